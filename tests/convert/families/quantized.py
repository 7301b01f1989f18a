"""Tiny checkpoints that are quantized already: FP8, GPTQ, compressed-tensors, in families that lay tensors out anew."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from tests.convert.cases import Case
from tests.convert.checkpoints import ENCODERS, Shapes, edit_json, encoded, numbers, write_json, write_safetensors
from tests.convert.families import deepseek, qwen
from tests.convert.tiny import ATTENTION, EMBEDDINGS, EXPERTS, GATED, HEAD, HEAD_NORMS, expand, sizes_of, tiny

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

Entries = dict[str, tuple[str, tuple[int, ...], bytes]]

LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 420,
    "hidden_size": 96,
    "intermediate_size": 160,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "tie_word_embeddings": False,
}
QWEN3 = {**qwen.CONFIG, **qwen.QWEN3}
LLAMA_TABLE = EMBEDDINGS + HEAD + ATTENTION + GATED
QUANTIZED = re.compile(r"layers\.\d+\..*_proj\.weight$|experts\.\d+\..*\.weight$")


def integers(name: str, shape: tuple[int, ...], bits: int, *, dtype: str = "<i4") -> np.ndarray[Any, Any]:
    """Any integers of so many bits, depending on the name alone."""
    chosen = np.random.RandomState(len(name) * 131 + sum(map(ord, name)))
    return chosen.randint(0, 1 << bits, size=shape).astype(dtype)


def words(values: np.ndarray[Any, Any], bits: int) -> bytes:
    """Unsigned integers along the last dimension packed into 32-bit words, the lowest first."""
    several = 32 // bits
    padded = np.zeros((values.shape[0], -(-values.shape[1] // several) * several), dtype="<u8")
    padded[:, : values.shape[1]] = values
    parts = padded.reshape(values.shape[0], -1, several) << (np.arange(several, dtype="<u8") * np.uint64(bits))
    data: bytes = parts.sum(axis=-1).astype("<u4").tobytes()
    return data


def turned_words(values: np.ndarray[Any, Any], bits: int) -> bytes:
    """The same along the first dimension."""
    packed = np.frombuffer(words(np.ascontiguousarray(values.T), bits), dtype="<u4")
    return np.ascontiguousarray(packed.reshape(values.shape[1], -1).T).tobytes()


def scaled(
    suffix: str, *, stored: str = "F8_E4M3", scales: str = "F32", block: int = 0, scalar: tuple[int, ...] | None = None
) -> Callable[[str, tuple[int, ...]], Entries]:
    """Numbers of 8 bits with a scale: for each ``block``, of a shape of its own, or else for each row."""

    def make(name: str, shape: tuple[int, ...]) -> Entries:
        values = integers(name, shape, 8, dtype="u1")
        if stored != "I8":
            values[values & 0x7C == 0x7C] = 0x41  # neither infinite nor none
        shape_of_scale = scalar if scalar is not None else (shape[0], 1)
        if block:
            shape_of_scale = tuple(-(-size // block) for size in shape)
        scale = np.abs(numbers(f"{name} scale", shape_of_scale)) / 100
        data = integers(name, shape_of_scale, 3, dtype="u1") + np.uint8(120)
        encoding = data.tobytes() if scales == "F8_E8M0" else ENCODERS[scales](scale)
        return {
            name: (stored, shape, values.tobytes()),
            name.removesuffix("weight") + suffix: (scales, shape_of_scale, encoding),
        }

    return make


def every_code(stored: str) -> Callable[[str, tuple[int, ...]], Entries]:
    """All numbers of 8 bits, infinite and none among them, with scales that are too large and too small as well."""

    def make(name: str, shape: tuple[int, ...]) -> Entries:
        scale = np.resize(np.array([0.01, 1e38, 1e-44], dtype="<f4"), (shape[0], 1))
        codes = np.resize(np.arange(256, dtype="u1"), shape)
        return {name: (stored, shape, codes.tobytes()), f"{name}_scale_inv": ("F32", scale.shape, scale.tobytes())}

    return make


def gptq(bits: int, group: int, *, shuffled: bool = False) -> Callable[[str, tuple[int, ...]], Entries]:
    """Integers with zero points and scales per group of inputs, which may be ``shuffled``."""

    def make(name: str, shape: tuple[int, ...]) -> Entries:
        outputs, inputs = shape
        groups, several, base = inputs // group, 32 // bits, name.removesuffix("weight")
        index = np.arange(inputs, dtype="<i4") // group
        if shuffled:
            np.random.RandomState(inputs).shuffle(index)
        scale = np.abs(numbers(f"{name} scale", (groups, outputs))) / 50
        weights, zeros = integers(name, (inputs, outputs), bits), integers(f"{name} zero", (groups, outputs), bits)
        return {
            f"{base}qweight": ("I32", (inputs // several, outputs), turned_words(weights, bits)),
            f"{base}qzeros": ("I32", (groups, outputs // several), words(zeros, bits)),
            f"{base}scales": ("F16", (groups, outputs), ENCODERS["F16"](scale)),
            f"{base}g_idx": ("I32", (inputs,), index.tobytes()),
        }

    return make


def packed(bits: int, group: int, *, zeros: bool, scales: str = "BF16") -> Callable[[str, tuple[int, ...]], Entries]:
    """Integers as compressed-tensors packs them, with zero points or symmetric."""

    def make(name: str, shape: tuple[int, ...]) -> Entries:
        height, width = shape
        groups, several = width // group, 32 // bits
        scale = np.abs(numbers(f"{name} scale", (height, groups))) / 50
        entries: Entries = {
            f"{name}_packed": ("I32", (height, -(-width // several)), words(integers(name, shape, bits), bits)),
            f"{name}_scale": (scales, (height, groups), ENCODERS[scales](scale)),
            f"{name}_shape": ("I64", (2,), np.array(shape, dtype="<i8").tobytes()),
        }
        if zeros:
            points = integers(f"{name} zero", (height, groups), bits)
            entries[f"{name}_zero_point"] = ("I32", (-(-height // several), groups), turned_words(points, bits))
        return entries

    return make


def read_entries(directory: Path) -> Entries:
    """The tensors of a checkpoint of one file."""
    data = (directory / "model.safetensors").read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    header.pop("__metadata__")
    return {
        name: (entry["dtype"], tuple(entry["shape"]), data[slice(*(start + place for place in entry["data_offsets"]))])
        for name, entry in header.items()
    }


def of_another(case: Case, settings: Mapping[str, Any], make: Callable[[str, tuple[int, ...]], Entries]) -> Case:
    """A case of another family with its matrices in blocks made by ``make``."""

    def build(directory: Path) -> None:
        case.build(directory)
        entries = read_entries(directory)
        for name in [name for name in entries if QUANTIZED.search(name)]:
            entries.update(make(name, entries[name][1]))
        write_safetensors(directory / "model.safetensors", entries)
        edit_json(directory / "config.json", quantization_config=settings)

    return Case(build, ("auto",), pre=case.pre)


def of_the_cache(name: str, shape: tuple[int, ...]) -> Entries:
    """Plain numbers, and a scale for the keys that are cached."""
    scale: Entries = {name.replace("weight", "k_scale"): ("F32", (), ENCODERS["F32"](np.ones(())))}
    return {**encoded({name: shape}, "BF16"), **(scale if "k_proj" in name else {})}


def quantized(
    config: Mapping[str, Any],
    table: str,
    settings: Mapping[str, Any] | None,
    make: Callable[[str, tuple[int, ...]], Entries],
    *,
    outtypes: tuple[str, ...] = ("auto",),
    tokenizer: str = "spm",
    dtype: str = "BF16",
    shards: int = 0,
    files: Mapping[str, Any] | None = None,
    extra: Shapes | None = None,
) -> Case:
    """A case whose matrices in blocks are made by ``make``; ``settings`` is the quantization_config."""

    def build(directory: Path) -> None:
        shapes = expand(table, sizes_of(config))
        plain = {name: shape for name, shape in shapes.items() if not QUANTIZED.search(name)}
        entries: Entries = encoded(extra or {}, "F32")
        for name, shape in shapes.items():
            if QUANTIZED.search(name):
                entries.update(make(name, shape))
        said = {**config, "quantization_config": settings}
        tiny(directory, said, plain, dtype=dtype, tokenizer=tokenizer, shards=shards, extra=entries)
        for name, content in (files or {}).items():
            write_json(directory / name, content)

    return Case(build, outtypes, pre="gpt-2" if tokenizer == "gpt2" else "-")


FP8 = {"quant_method": "fp8", "activation_scheme": "dynamic", "fmt": "e4m3"}
BLOCKS = {**FP8, "weight_block_size": [64, 64]}
GPTQ4 = {"quant_method": "gptq", "bits": 4, "group_size": 32, "desc_act": False, "sym": True}
GPTQ8 = {**GPTQ4, "bits": 8, "desc_act": True}


def compressed(form: str, **weights: Any) -> dict[str, Any]:
    """A quantization_config of compressed-tensors."""
    group = {"targets": ["Linear"], "weights": {"type": "int", "symmetric": True, **weights}}
    return {"quant_method": "compressed-tensors", "format": form, "config_groups": {"group_0": group},
            "ignore": ["lm_head"], "quantization_status": "compressed"}  # fmt: skip


FLOATS = {"type": "float", "num_bits": 8, "strategy": "channel"}
INT4 = compressed("pack-quantized", num_bits=4, strategy="group", group_size=32)
INT8 = compressed("pack-quantized", num_bits=8, strategy="group", group_size=32)
MODELOPT = {"hf_quant_config.json": {"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "FP8"}}}
SPARSE = {**qwen.CONFIG, **qwen.QWEN3_MOE}
SPARSE_TABLE = EMBEDDINGS + HEAD + ATTENTION + HEAD_NORMS + EXPERTS
KINDS = ("auto", "f32", "f16", "q8_0")

CASES = {
    "fp8-blocks": quantized(LLAMA, LLAMA_TABLE, BLOCKS, scaled("weight_scale_inv", block=64), outtypes=KINDS),
    "fp8-blocks-qwen3": quantized(
        QWEN3, LLAMA_TABLE + HEAD_NORMS, BLOCKS, scaled("weight_scale_inv", block=64, scales="BF16"), tokenizer="gpt2",
        shards=3),
    "fp8-experts": quantized(
        SPARSE, SPARSE_TABLE, {**FP8, "weight_block_size": [16, 48]},
        lambda name, shape: scaled("weight_scale_inv", scalar=(-(-shape[0] // 16), -(-shape[1] // 48)))(name, shape),
        tokenizer="gpt2", outtypes=KINDS),
    "fp8-deepseek": of_another(deepseek.CASES["v3-predicts"], {**FP8, "weight_block_size": [16, 16]},
                               scaled("weight_scale_inv", block=16)),
    "fp8-tensor": quantized(
        LLAMA, LLAMA_TABLE, FP8, scaled("weight_scale_inv", scalar=()), dtype="F16",
        extra={"model.layers.0.mlp.up_proj.activation_scale": ()}),
    "fp8-e5m2": quantized(LLAMA, LLAMA_TABLE, FP8, scaled("weight_scale_inv", stored="F8_E5M2"), dtype="F32"),
    "fp8-e8m0": quantized(
        LLAMA, LLAMA_TABLE, BLOCKS, scaled("weight_scale_inv", scales="F8_E8M0", block=64), outtypes=("f32",)),
    "fp8-every-code": quantized(LLAMA, LLAMA_TABLE, FP8, every_code("F8_E4M3"), outtypes=("auto", "f32", "f16")),
    "fp8-e5m2-every-code": quantized(LLAMA, LLAMA_TABLE, FP8, every_code("F8_E5M2"), outtypes=("auto", "f32")),
    "modelopt": quantized(
        LLAMA, LLAMA_TABLE, None, scaled("weight_scale", scalar=()), files=MODELOPT,
        extra={"model.layers.0.mlp.up_proj.input_scale": (), "model.layers.0.self_attn.k_proj.k_scale": ()}),
    "modelopt-mixed": quantized(
        LLAMA, LLAMA_TABLE, None, scaled("weight_scale", scalar=(1,)),
        files={"hf_quant_config.json": {"producer": {"name": "modelopt"}, "quantization": {
            "quant_algo": "MIXED_PRECISION", "quantized_layers": {"x": {"quant_algo": "FP8"}}}}}),
    "modelopt-cache": quantized(
        LLAMA, LLAMA_TABLE, None, of_the_cache,
        files={"hf_quant_config.json": {"producer": {"name": "modelopt"},
                                        "quantization": {"quant_algo": None, "kv_cache_quant_algo": "FP8"}}}),
    "gptq-4": quantized(LLAMA, LLAMA_TABLE, GPTQ4, gptq(4, 32), outtypes=KINDS, dtype="F16"),
    "gptq-8-shuffled": quantized(LLAMA, LLAMA_TABLE, GPTQ8, gptq(8, 32, shuffled=True), outtypes=("auto", "f32")),
    "gptq-2": quantized(LLAMA, LLAMA_TABLE, {**GPTQ4, "bits": 2}, gptq(2, 16), outtypes=("f32",)),
    "gptq-v2-experts": quantized(
        SPARSE, SPARSE_TABLE, {**GPTQ4, "checkpoint_format": "gptq_v2"}, gptq(4, 16), tokenizer="gpt2", shards=2),
    "float-channel": quantized(
        LLAMA, LLAMA_TABLE, compressed("float-quantized", **FLOATS), scaled("weight_scale", scales="BF16"),
        outtypes=KINDS),
    "float-block": quantized(
        LLAMA, LLAMA_TABLE,
        compressed("float-quantized", **{**FLOATS, "strategy": "block", "block_structure": [64, 64]}),
        scaled("weight_scale", block=64)),
    "int-channel": quantized(
        LLAMA, LLAMA_TABLE, compressed("int-quantized", num_bits=8, strategy="channel"),
        scaled("weight_scale", stored="I8", scales="F16"), dtype="F16"),
    "naive-channel": quantized(
        LLAMA, LLAMA_TABLE, compressed("naive-quantized", num_bits=8, strategy="channel"),
        scaled("weight_scale", stored="I8")),
    "packed-4": quantized(LLAMA, LLAMA_TABLE, INT4, packed(4, 32, zeros=False), outtypes=KINDS),
    "packed-4-zeros": quantized(LLAMA, LLAMA_TABLE, INT4, packed(4, 32, zeros=True), outtypes=("auto", "f32")),
    "packed-8-zeros": quantized(LLAMA, LLAMA_TABLE, INT8, packed(8, 32, zeros=True, scales="F16"), dtype="F16"),
    "packed-3-experts": quantized(
        SPARSE, SPARSE_TABLE, compressed("pack-quantized", num_bits=3, strategy="group", group_size=16),
        packed(3, 16, zeros=True), tokenizer="gpt2", shards=2),
}  # fmt: skip
