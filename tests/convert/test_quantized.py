"""Checkpoints that are quantized already: what is converted, what is refused and why, and that memory stays bounded."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from llama_runner.convert import convert, dequantize, describe, inspect
from llama_runner.convert import errors as E  # noqa: N812 - as in the other tests
from llama_runner.convert.cast_numbers import LAYOUT
from llama_runner.convert.gguf_writer import Reader
from llama_runner.convert.safetensors import read_shard
from llama_runner.core.errors import ExitCode, SourceError
from tests.convert.checkpoints import edit_json, llama, write_json, write_safetensors
from tests.convert.families.quantized import (
    CASES,
    FP8,
    LLAMA,
    LLAMA_TABLE,
    Entries,
    compressed,
    integers,
    quantized,
    read_entries,
    scaled,
)
from tests.convert.json_changes import NODES, paths_in, replaced
from tests.convert.official import recorded
from tests.convert.tensors import entry, values_of
from tests.convert.tiny import tiny

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

UP = "model.layers.0.mlp.up_proj."


def _spoiled(directory: Path, title: str, change: Callable[[Entries], object], **settings: Any) -> Path:
    """The checkpoint of a case with other tensors, and other settings of its quantization."""
    CASES[title].build(directory)
    entries, config = read_entries(directory), json.loads((directory / "config.json").read_text())
    change(entries)
    config["quantization_config"] = {**(config.get("quantization_config") or {}), **settings}
    return tiny(directory, config, {}, tokenizer="spm", extra=entries)


def _set(**entries: tuple[str, tuple[int, ...], bytes]) -> Callable[[Entries], object]:
    return lambda found: found.update({f"{UP}{name}": entry for name, entry in entries.items()})


def _drop(*names: str) -> Callable[[Entries], object]:
    return lambda found: [found.pop(f"{UP}{name}") for name in names]


BROKEN: dict[str, tuple[str, Callable[[Entries], object], dict[str, Any], str]] = {
    "FP8 without its scale": (
        "fp8-blocks", _drop("weight_scale_inv"), {}, f"{UP}weight is stored as F8_E4M3, and its scale is missing"),
    "FP8 scale of another shape": (
        "fp8-blocks", _set(weight_scale_inv=entry("F32", (3, 1))), {},
        "weight_scale_inv has the shape [3, 1], which does not fit [160, 96] in blocks of [64, 64]"),
    "FP8 blocks of another size": (
        "fp8-blocks", _drop(), {"weight_block_size": [32, 32]}, "does not fit [96, 160] in blocks of [32, 32]"),
    "FP8 scale for each of other rows": (
        "float-channel", _set(weight_scale=entry("BF16", (96, 1))), {},
        "weight_scale has the shape [96, 1], which does not fit [160, 96]"),
    "FP8 scale of whole numbers": (
        "fp8-blocks", _set(weight_scale_inv=entry("I32", (3, 2))), {},
        "weight_scale_inv is stored as I32, not as F32"),
    "a scale for 16 bits": (
        "fp8-blocks", _set(weight=entry("BF16", (160, 96))), {}, f"{UP}weight has a scale but is stored as BF16"),
    "GPTQ without zero points": ("gptq-4", _drop("qzeros"), {}, f"{UP}qweight lacks {UP}qzeros"),
    "GPTQ without groups": ("gptq-4", _drop("g_idx"), {}, f"{UP}qweight lacks {UP}g_idx"),
    "GPTQ of other bits": ("gptq-4", _drop(), {"bits": 8}, "g_idx has the shape"),
    "GPTQ of floats": ("gptq-4", _set(qweight=entry("F32", (12, 160))), {}, "qweight is stored as F32, not as I32"),
    "GPTQ scales of other groups": (
        "gptq-4", _set(scales=entry("F16", (4, 160))), {}, "qzeros has the shape [3, 20], [4, 20] is expected"),
    "GPTQ scales of other outputs": (
        "gptq-4", _set(scales=entry("F16", (3, 96))), {}, "scales has the shape [3, 96], [3, 160] is expected"),
    "GPTQ scales in one row": (
        "gptq-4", _set(scales=entry("F16", (480,))), {}, "qweight has the shape [12, 160] and scales [480]"),
    "packed without scales": ("packed-4", _drop("weight_scale"), {}, f"{UP}weight_packed lacks {UP}weight_scale"),
    "packed in other groups": (
        "packed-4", _drop(), {"config_groups": compressed("", num_bits=4, strategy="group", group_size=64)[
            "config_groups"]}, "has 20 words of 4 bits in a row, 5 groups of 64 are expected"),
    "packed zero points of another shape": (
        "packed-4-zeros", _set(weight_zero_point=entry("I32", (160, 3))), {},
        "weight_zero_point has the shape [160, 3], [20, 3] is expected with 4 bits"),
    "packed scales of other rows": (
        "packed-4", _set(weight_scale=entry("BF16", (96, 3))), {},
        "has the shape [96, 3], which does not fit [160, 12]"),
}  # fmt: skip


@pytest.mark.parametrize("title", BROKEN)
def test_parts_that_do_not_fit_together_are_reported(title: str, tmp_path: Path) -> None:
    case, change, settings, text = BROKEN[title]
    directory = _spoiled(tmp_path / "model", case, change, **settings)
    with pytest.raises(E.BrokenQuantization, match=re.escape(text)) as caught:
        inspect(directory)
    assert caught.value.code == ExitCode.SOURCE
    assert caught.value.hint


def test_a_group_that_is_not_there_is_reported_and_no_file_is_left(tmp_path: Path) -> None:
    index = np.full(96, 3, dtype="<i4").tobytes()
    directory = _spoiled(tmp_path / "model", "gptq-4", _set(g_idx=entry("I32", (96,), index)))
    with pytest.raises(E.BrokenQuantization, match=re.escape("up_proj.g_idx names group 3, of 3")):
        convert(directory, tmp_path / "out.gguf", name="model")
    assert not (tmp_path / "out.gguf").exists()


@pytest.mark.parametrize("title", ["fp8-blocks", "gptq-4", "packed-4"])
def test_weights_that_config_json_does_not_call_quantized_are_reported(title: str, tmp_path: Path) -> None:
    CASES[title].build(tmp_path / "model")
    edit_json(tmp_path / "model" / "config.json", quantization_config=None)
    with pytest.raises(SourceError, match=r"config\.json has no quantization_config: model\.layers"):
        inspect(tmp_path / "model")


def test_numbers_of_8_bits_without_a_scale_are_reported(tmp_path: Path) -> None:
    directory = llama(tmp_path / "model")
    entries = read_entries(directory)
    entries["model.norm.weight"] = entry("F8_E4M3", (32,))
    write_safetensors(directory / "model.safetensors", entries)
    with pytest.raises(SourceError, match=r"model\.norm\.weight is stored as F8_E4M3"):
        inspect(directory)


@pytest.mark.parametrize(
    ("shape", "block"),
    [((3, 3, 2), (16, 32)), ((3, 40, 1), None), ((1, 40, 1), None), ((3, 1, 1), None), ((3,), None), ((), None)],
)
def test_scales_of_stacked_experts(shape: tuple[int, ...], block: tuple[int, int] | None, tmp_path: Path) -> None:
    """Each against the same in plain numpy, a few rows at a time and across the borders of the experts."""
    scale = np.arange(1, np.prod(shape, dtype=int) + 1, dtype="<f4").reshape(shape)
    weight = integers("experts", (3, 40, 48), 8, dtype="i1")
    entries = {"w": ("I8", (3, 40, 48), weight.tobytes()), "s": ("F32", shape, scale.tobytes())}
    write_safetensors(tmp_path / "model.safetensors", entries)
    scales, weights = sorted(read_shard(tmp_path / "model.safetensors").tensors, key=lambda tensor: tensor.name)
    made = dequantize.ScaledTensor.make("w", weights, scales, block)
    wide = scale.reshape(*shape, *[1] * (3 - len(shape)))
    if block:
        wide = wide.repeat(block[0], axis=1)[:, :40].repeat(block[1], axis=2)[:, :, :48]
    expected = (weight.astype("<f4") * wide).reshape(120, 48)
    with weights.path.open("rb", buffering=0) as file:
        reader = Reader({weights.path: file})
        for low, high in ((0, 120), (35, 45), (39, 40), (40, 41), (119, 120)):
            assert np.array_equal(made.rows(low, high, reader), expected[low:high])


@pytest.mark.parametrize("shape", [(2, 40, 1), (3, 40, 7), (40,), (3, 40, 1, 1)])
def test_scales_of_stacked_experts_that_do_not_fit(shape: tuple[int, ...], tmp_path: Path) -> None:
    entries = {"w": entry("I8", (3, 40, 48)), "s": entry("F32", shape)}
    write_safetensors(tmp_path / "model.safetensors", entries)
    scales, weights = read_shard(tmp_path / "model.safetensors").tensors
    with pytest.raises(E.BrokenQuantization, match="which does not fit"):
        dequantize.ScaledTensor.make("w", weights, scales, None)


def test_weights_that_only_config_json_calls_quantized_are_taken_as_they_are(tmp_path: Path) -> None:
    plain = llama(tmp_path / "plain")
    said = llama(tmp_path / "said", quantization_config=FP8)
    one, other = (convert(path, tmp_path / f"{path.name}.gguf", name="model") for path in (plain, said))
    assert one.sha256 == other.sha256


REFUSED: dict[str, tuple[dict[str, Any], str, bool]] = {
    "AWQ": ({"quant_method": "awq", "bits": 4}, "awq", False),
    "bitsandbytes": ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes", False),
    "HQQ": ({"quant_method": "hqq"}, "hqq", False),
    "MXFP4 of another architecture": ({"quant_method": "mxfp4"}, "mxfp4", False),
    "BitNet": ({"quant_method": "bitnet"}, "bitnet", False),
    "3 bits": ({"quant_method": "gptq", "bits": 3}, "gptq with 3 bits", False),
    "Marlin": (
        {"quant_method": "gptq", "bits": 4, "checkpoint_format": "marlin"}, "gptq in the format 'marlin'", False),
    "GPTQ of its own for some layers": (
        {"quant_method": "gptq", "bits": 4, "dynamic": {"+:x": {"bits": 8}}}, "gptq with settings of their own", False),
    "NVFP4": (compressed("nvfp4-pack-quantized"), "compressed-tensors nvfp4-pack-quantized", True),
    "sparse": (
        compressed("marlin-24", num_bits=4, strategy="group"),
        "compressed-tensors marlin-24 of 4 bits per group", False),
    "two groups": (
        {**compressed("pack-quantized"), "config_groups": {"a": {}, "b": {}}},
        "compressed-tensors pack-quantized with 2 groups", False),
    "ModelOpt NVFP4": ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, "modelopt NVFP4", True),
    "ModelOpt NVFP4 in some layers": (
        {"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION",
         "quantized_layers": {"x": {"quant_algo": "NVFP4"}}},
        "modelopt MIXED_PRECISION", True),
    "ModelOpt AWQ in some layers": (
        {"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION",
         "quantized_layers": {"x": {"quant_algo": "FP8"}, "y": {"quant_algo": "W4A16_AWQ"}}},
        "modelopt MIXED_PRECISION", False),
    "ModelOpt AWQ": ({"quant_method": "modelopt", "quant_algo": "W4A8_AWQ"}, "modelopt W4A8_AWQ", False),
}  # fmt: skip


@pytest.mark.parametrize("title", REFUSED)
def test_methods_that_are_not_undone_here_are_refused_before_any_weights_are_here(title: str, tmp_path: Path) -> None:
    settings, method, official = REFUSED[title]
    directory = llama(tmp_path / "model", quantization_config=settings)
    (directory / "model.safetensors").unlink()
    with pytest.raises(E.AlreadyQuantized, match=re.escape(f"the checkpoint is already quantized: {method}")) as caught:
        describe(directory)
    assert caught.value.official is official
    assert ("own script converts it" in str(caught.value.hint)) is official


def test_the_original_model_is_named_where_the_card_does(tmp_path: Path) -> None:
    directory = llama(tmp_path / "model", quantization_config={"quant_method": "awq"})
    (directory / "README.md").write_text("---\nbase_model: acme/Tiny-7B\n---\n", encoding="utf-8")
    with pytest.raises(E.AlreadyQuantized) as caught:
        inspect(directory)
    assert caught.value.originals == ("acme/Tiny-7B",)
    assert "convert the original checkpoint (acme/Tiny-7B), which is not quantized" in str(caught.value.hint)


@pytest.mark.parametrize("card", ["---\n: [\n---\n", "---\n- 3\n---\n", "no front matter"])
def test_a_card_that_cannot_be_read_names_nothing(card: str, tmp_path: Path) -> None:
    directory = llama(tmp_path / "model", quantization_config={"quant_method": "awq"})
    (directory / "README.md").write_text(card, encoding="utf-8")
    with pytest.raises(E.AlreadyQuantized) as caught:
        inspect(directory)
    assert caught.value.originals == ()


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ([1], "quantization_config is [1], an object is expected"),
        ({"bits": 4}, "quantization_config.quant_method is None"),
        ({**FP8, "weight_block_size": [128]}, "weight_block_size is [128], two numbers above zero"),
        ({**FP8, "weight_block_size": "128x128"}, "weight_block_size is '128x128'"),
        ({**FP8, "weight_block_size": [128, -1]}, "weight_block_size is [128, -1]"),
        (compressed("pack-quantized", num_bits=4, strategy="group", group_size=0), "group_size is 0"),
        (compressed("float-quantized", num_bits=8, strategy="block"), "block_structure is missing"),
    ],
)
def test_settings_that_cannot_be_are_reported(settings: object, text: str, tmp_path: Path) -> None:
    directory = llama(tmp_path / "model", quantization_config=settings)
    with pytest.raises(E.BadHyperparameter, match=re.escape(text)):
        inspect(directory)


CHUNKED = ("fp8-blocks/auto", "fp8-experts/f16", "float-channel/f32", "modelopt/auto", "gptq-8-shuffled/f32",
           "gptq-v2-experts/auto", "packed-4-zeros/f32", "packed-3-experts/auto")  # fmt: skip


@pytest.mark.parametrize("key", CHUNKED)
def test_large_tensors_are_made_in_parts_and_are_the_same(
    key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    title, outtype = key.split("/")
    CASES[title].build(tmp_path / "model")
    for kind in (dequantize.EncodedTensor, dequantize.GptqTensor, dequantize.Transposed):
        monkeypatch.setattr(kind, "chunk", 2000)  # a few rows
    made = convert(tmp_path / "model", tmp_path / "out.gguf", name="tiny", outtype=outtype)  # type: ignore[arg-type]
    assert made.sha256 == recorded("quantized")[key]


@pytest.mark.parametrize(
    ("settings", "shape", "suffix"),
    [
        ({**FP8, "activation_scheme": "static"}, (), "weight_scale"),  # of vLLM's makers
        ({"quant_method": "fbgemm_fp8"}, (160, 1), "weight_scale"),
        (compressed("float-quantized", num_bits=8, type="float", strategy="tensor"), (1,), "weight_scale"),
    ],
)
def test_scales_that_the_official_script_does_not_know_are_applied(
    settings: dict[str, Any], shape: tuple[int, ...], suffix: str, tmp_path: Path
) -> None:
    made = scaled(suffix, scalar=shape) if shape != (160, 1) else scaled(suffix)
    quantized(LLAMA, LLAMA_TABLE, settings, made).build(tmp_path / "model")
    entries = read_entries(tmp_path / "model")
    codes = np.frombuffer(entries[f"{UP}weight"][2], "u1").reshape(160, 96)
    scale = np.frombuffer(entries[f"{UP}weight_scale"][2], LAYOUT["F32"]).reshape(-1, 1)
    found = values_of(tmp_path / "model", tmp_path)
    assert codes[0, 0] != 0
    sign, exponent, mantissa = codes >> 7, (codes >> 3) & 15, codes & 7
    exact = np.where(exponent, 1 + mantissa / 8, mantissa / 4) * 2.0 ** (exponent.astype(int) - 7) * (1 - 2.0 * sign)
    assert np.array_equal(found, exact.astype("<f4") * scale)


def _one_scale_each(zero: int | None) -> Callable[[Entries], object]:
    def change(found: Entries) -> None:
        for name in [name for name in found if name.endswith("weight_scale")]:
            rows, points = found[name][1][0], name.removesuffix("scale") + "zero_point"
            found[name] = entry("F16", (rows, 1), np.full(rows, 2, "<f2").tobytes())
            del found[points]
            if zero is not None:
                found[points] = entry("I32", (-(-rows // 4), 1), bytes([zero]) * rows)

    return change


@pytest.mark.parametrize("zero", [None, 3])
def test_packed_rows_with_one_scale_each(zero: int | None, tmp_path: Path) -> None:
    settings = compressed("pack-quantized", num_bits=8, strategy="channel")
    directory = _spoiled(tmp_path / "model", "packed-8-zeros", _one_scale_each(zero), **settings)
    stored = np.frombuffer(read_entries(directory)[f"{UP}weight_packed"][2], "u1").reshape(160, 96)
    middle = 128 if zero is None else zero
    assert np.array_equal(values_of(directory, tmp_path), (stored.astype("<f4") - middle) * 2)


@pytest.mark.parametrize("title", ["fp8-blocks", "gptq-4", "packed-4-zeros", "modelopt"])
def test_any_value_anywhere_in_the_settings_is_taken_or_a_typed_error(title: str, tmp_path: Path) -> None:
    CASES[title].build(tmp_path / "model")
    chosen = Random(title)
    for name in ("config.json", "hf_quant_config.json"):
        file = tmp_path / "model" / name
        value = json.loads(file.read_text()) if file.exists() else {}
        for path in (path for path in paths_in(value) if name != "config.json" or path[:1] == ("quantization_config",)):
            changed = replaced(value, path, json.loads(chosen.choice(NODES)))
            file.write_text(json.dumps(changed), encoding="utf-8")
            with suppress(SourceError):
                inspect(tmp_path / "model")
        file.write_text(json.dumps(value), encoding="utf-8")


def test_an_unfinished_description_beside_config_json_is_no_quantization(tmp_path: Path) -> None:
    directory = llama(tmp_path / "model")
    write_json(directory / "hf_quant_config.json", {"producer": {"name": "modelopt"}})
    assert inspect(directory).architecture == "LlamaForCausalLM"
