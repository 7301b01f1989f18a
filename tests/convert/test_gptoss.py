"""gpt-oss: experts in MXFP4 or on their side."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import numpy as np
import pytest

from llama_runner.convert import convert, dequantize, inspect
from llama_runner.convert import errors as E  # noqa: N812 - as in the other tests
from llama_runner.core.errors import SourceError
from tests.convert.checkpoints import edit_json, shard
from tests.convert.families import gptoss
from tests.convert.families.quantized import read_entries
from tests.convert.official import recorded
from tests.convert.tensors import entry, values_of
from tests.convert.tiny import tiny

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.convert.families.quantized import Entries


DOWN = "model.layers.1.mlp.experts.down_proj_"


def _gpt_oss(directory: Path, change: Callable[[Entries], object], title: str = "mxfp4") -> Path:
    gptoss.CASES[title].build(directory)
    entries, config = read_entries(directory), json.loads((directory / "config.json").read_text())
    change(entries)
    return tiny(directory, config, {}, extra=entries)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda found: found.pop(f"{DOWN}scales"), f"tensor {DOWN}blocks lacks {DOWN}scales"),
        (lambda found: found.update({f"{DOWN}blocks": entry("I8", (3, 64, 3, 16))}), "stored as I8, not as U8"),
        (lambda found: found.update({f"{DOWN}scales": entry("U8", (3, 64, 2))}), "[3, 64, 2], [3, 64, 3] is expected"),
        (lambda found: found.update({f"{DOWN}blocks": entry("U8", (3, 64, 48))}), "no blocks of 16 bytes"),
    ],
)
def test_experts_whose_blocks_and_exponents_do_not_fit_are_reported(
    change: Callable[[Entries], object], text: str, tmp_path: Path
) -> None:
    with pytest.raises(E.BrokenQuantization, match=re.escape(text)):
        inspect(_gpt_oss(tmp_path / "model", change))


def test_experts_of_another_size_are_reported(tmp_path: Path) -> None:
    directory = _gpt_oss(tmp_path / "model", lambda found: found.pop("lm_head.weight"))
    edit_json(directory / "config.json", intermediate_size=64)
    text = "down_proj has shape [3, 64, 96], config.json implies [3, 64, 64]"
    with pytest.raises(SourceError, match=re.escape(text)):
        inspect(directory)


def test_exponents_in_another_shard_than_their_blocks_are_found(tmp_path: Path) -> None:
    """The official script looks for them in the order of the files, and would take others."""
    for name in ("one", "several"):
        gptoss.CASES["mxfp4"].build(tmp_path / name)
    shard(tmp_path / "several", 2)
    one, several = (values_of(tmp_path / name, tmp_path, "blk.1.ffn_up_exps.weight") for name in ("one", "several"))
    assert np.array_equal(one, several)


@pytest.mark.parametrize("key", ["mxfp4/auto", "turned/f16", "turned/q8_0"])
def test_experts_are_made_in_parts_and_are_the_same(key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    title, outtype = key.split("/")
    gptoss.CASES[title].build(tmp_path / "model")
    for kind in (dequantize.EncodedTensor, dequantize.Transposed):
        monkeypatch.setattr(kind, "chunk", 1200)  # a few rows, and not of whole experts
    made = convert(tmp_path / "model", tmp_path / "out.gguf", name="tiny", outtype=outtype)  # type: ignore[arg-type]
    assert made.sha256 == recorded("gptoss")[key]
