"""Where the numbers of a stored tensor go, for what the official script has no output to compare with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from llama_runner.convert import convert, cut_tensor_into_chunks
from llama_runner.convert.select_tensor_rows import Rows, every, for_rope, part
from tests.convert.checkpoints import numbers
from tests.convert.families.older import FALCON, FALCON_TABLE, MATRICES, NORMS, ONE_NORM, STABLELM
from tests.convert.gguf_file import read
from tests.convert.official import cases_of
from tests.convert.tiny import GATED, HEAD, expand, sizes_of, tiny

if TYPE_CHECKING:
    from pathlib import Path

    from llama_runner.convert import Outtype


def tensor(path: Path, name: str) -> np.ndarray[Any, Any]:
    """A float32 tensor of a GGUF file."""
    dimensions, kind, offset = read(path).tensors[name]
    assert kind == 0
    return np.fromfile(path, "<f4", int(np.prod(dimensions)), offset=offset).reshape(dimensions[::-1])


def test_norms_of_single_heads_are_stacked(tmp_path: Path) -> None:
    heads = "".join(f"model.layers.{{b}}.self_attn.q_layernorm.norms.{number}.weight head\n" for number in range(4))
    heads += "".join(f"model.layers.{{b}}.self_attn.k_layernorm.norms.{number}.weight head\n" for number in range(2))
    config = {**STABLELM, "qk_layernorm": True}
    shapes = expand(NORMS + MATRICES + GATED + HEAD + heads, sizes_of(config))
    convert(tiny(tmp_path / "m", config, shapes, dtype="F32"), tmp_path / "out.gguf", name="m", outtype="f16")
    for kind, count in (("q", 4), ("k", 2)):
        names = [f"model.layers.1.self_attn.{kind}_layernorm.norms.{number}.weight" for number in range(count)]
        wanted = np.stack([numbers(name, (16,)) for name in names]).astype("<f4")
        assert (tensor(tmp_path / "out.gguf", f"blk.1.attn_{kind}_norm.weight") == wanted).all()


def test_falcon_7b_has_one_head_of_keys_whatever_transformers_fills_in(tmp_path: Path) -> None:
    config = {**FALCON, "new_decoder_architecture": False, "num_kv_heads": None}
    shapes = expand(FALCON_TABLE + ONE_NORM, {**sizes_of(config), "fused": 96})
    directory = tiny(tmp_path / "m", config, shapes)
    convert(directory, tmp_path / "out.gguf", name="m")
    assert read(tmp_path / "out.gguf").values["falcon.attention.head_count_kv"] == 1


@pytest.mark.parametrize(
    ("rows", "wanted"),
    [
        (for_rope(8, 2), [0, 2, 1, 3, 4, 6, 5, 7]),
        (part(2, start=1, of=4, items=3), [1, 2, 5, 6, 9, 10]),
        (every(2, 3, start=1), [1, 3, 5]),
        (Rows(((2, 1), (2, 3))), [0, 3, 1, 4]),
    ],
)
def test_a_choice_of_rows_has_the_expected_numbers(rows: Rows, wanted: list[int]) -> None:
    assert rows.numbers().tolist() == wanted
    assert rows.count == len(wanted)


@pytest.mark.parametrize(("chunk", "tile"), [(64, 64), (1000, 500), (1 << 20, 100)])
def test_no_size_of_chunks_changes_the_bytes(
    chunk: int, tile: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GPT-2 has all its matrices transposed, Falcon its rows sorted, the experts of Granite are cut in two."""
    outtypes: tuple[Outtype, ...] = ("f16", "q8_0")
    for group, title in (("older", "gpt2"), ("older", "falcon"), ("llama", "granitemoe"), ("llama", "mixtral")):
        cases_of(group)[title].build(tmp_path / title)
        for number, outtype in enumerate(outtypes):
            whole = convert(tmp_path / title, tmp_path / f"{title}.{number}", name="m", outtype=outtype)
            with monkeypatch.context() as patch:
                patch.setattr(cut_tensor_into_chunks, "CHUNK", chunk)
                patch.setattr(cut_tensor_into_chunks, "TILE", tile)
                cut = convert(tmp_path / title, tmp_path / f"{title}.{number}.cut", name="m", outtype=outtype)
            assert cut.sha256 == whole.sha256
