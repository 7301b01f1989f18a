"""Models with random weights and the demo model's tokenizer, of any size: what memory and speed depend on."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from filelock import FileLock

from tests.shared_root import shared_root


def random_model(root: Path, quantization: str = "f16") -> Path:
    """Return a model of 100 M random weights, which is kept between runs. ``root`` is that of the run."""
    directory = shared_root() / "random-models"
    directory.mkdir(exist_ok=True)
    plain, wanted = directory / "random-100m-f16.gguf", directory / f"random-100m-{quantization}.gguf"
    with FileLock(directory / "lock"):
        if not plain.exists():
            demo = next((root / "models" / "gguf").glob("local__demo__*/model.q4_k_m.gguf"))
            write_random_model(demo, plain.with_suffix(".part")).replace(plain)
        if not wanted.exists():
            program = next((root / "bins").glob("*/*/llama-quantize"))
            part = wanted.with_suffix(".part")
            subprocess.run([program, plain, part, quantization, "2"], check=True, capture_output=True)
            part.replace(wanted)
    return wanted


def write_random_model(
    demo: Path,
    target: Path,
    *,
    hidden: int = 768,
    layers: int = 12,
    heads: int = 12,
    kv_heads: int = 4,
    feed_forward: int = 2048,
    vocabulary: int = 8192,
    context: int = 32768,
) -> Path:
    """Write a Llama of 16-bit random weights. ``demo`` is the demo model as GGUF; its tokenizer gets more tokens."""
    changed = {
        "block_count": layers,
        "context_length": context,
        "embedding_length": hidden,
        "feed_forward_length": feed_forward,
        "attention.head_count": heads,
        "attention.head_count_kv": kv_heads,
        "attention.key_length": hidden // heads,
        "attention.value_length": hidden // heads,
        "rope.dimension_count": hidden // heads,
        "vocab_size": vocabulary,
    }
    key_width = kv_heads * (hidden // heads)
    shapes = {"token_embd": (vocabulary, hidden), "output_norm": (hidden,), "output": (vocabulary, hidden)}
    for layer in range(layers):
        shapes |= _named(layer, _attention(hidden, key_width) | _feed_forward(hidden, feed_forward))
    return _write(demo, target, "llama", changed, shapes, vocabulary)


def _named(layer: int, block: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    return {f"blk.{layer}.{name}": shape for name, shape in block.items()}


def _attention(hidden: int, key_width: int) -> dict[str, tuple[int, ...]]:
    square, keys = (hidden, hidden), (key_width, hidden)
    return {"attn_norm": (hidden,), "attn_q": square, "attn_k": keys, "attn_v": keys, "attn_output": square}


def _feed_forward(hidden: int, inner: int) -> dict[str, tuple[int, ...]]:
    wide = (inner, hidden)
    return {"ffn_norm": (hidden,), "ffn_gate": wide, "ffn_up": wide, "ffn_down": (hidden, inner)}


_HIDDEN, _LAYERS = 64, 4


def write_model_of_kind(demo: Path, target: Path, kind: str) -> Path:
    """Write a tiny random model: ``sliding`` window (Gemma 2), ``recurrent`` (Mamba) or ``hybrid`` (LFM2)."""
    tokens = len(gguf.GGUFReader(demo).fields["tokenizer.ggml.tokens"].data)
    keys: dict[str, object] = {
        "block_count": _LAYERS,
        "context_length": 4096,
        "embedding_length": _HIDDEN,
        "vocab_size": tokens,
        "attention.layer_norm_rms_epsilon": 1e-5,
    }
    heads = {"attention.head_count": 4, "attention.head_count_kv": 2, "feed_forward_length": 128}
    heads |= {"attention.key_length": 16, "attention.value_length": 16}
    shapes: dict[str, tuple[int, ...]] = {"token_embd": (tokens, _HIDDEN)}
    for layer in range(_LAYERS):
        if kind == "sliding":
            block = _attention(_HIDDEN, 32) | _feed_forward(_HIDDEN, 128)
            block |= {"post_attention_norm": (_HIDDEN,), "post_ffw_norm": (_HIDDEN,)}
        elif kind == "recurrent":
            inner, state, rank = 2 * _HIDDEN, 16, 4
            block = {"attn_norm": (_HIDDEN,), "ssm_in": (2 * inner, _HIDDEN), "ssm_conv1d": (inner, 4)}
            block |= {"ssm_conv1d.bias": (inner,), "ssm_x": (rank + 2 * state, inner), "ssm_dt": (inner, rank)}
            block |= {"ssm_dt.bias": (inner,), "ssm_a": (inner, state), "ssm_d": (inner,), "ssm_out": (_HIDDEN, inner)}
        else:
            block = _feed_forward(_HIDDEN, 128)
            if layer % 2:
                block |= {**_attention(_HIDDEN, 32), "attn_q_norm": (16,), "attn_k_norm": (16,)}
            else:
                block |= {"attn_norm": (_HIDDEN,), "shortconv.conv": (_HIDDEN, 3)}
                block |= {"shortconv.in_proj": (3 * _HIDDEN, _HIDDEN), "shortconv.out_proj": (_HIDDEN, _HIDDEN)}
        shapes |= _named(layer, block)
    if kind == "sliding":
        architecture, shapes = "gemma2", {**shapes, "output_norm": (_HIDDEN,)}
        keys |= heads | {"attention.sliding_window": 32}
        keys |= {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0}
    elif kind == "recurrent":
        architecture, shapes = "mamba", {**shapes, "output_norm": (_HIDDEN,)}
        keys |= {"ssm.conv_kernel": 4, "ssm.inner_size": 2 * _HIDDEN, "ssm.state_size": 16, "ssm.time_step_rank": 4}
        keys |= {"attention.head_count": 0, "feed_forward_length": 0}
    else:
        architecture, shapes = "lfm2", {**shapes, "token_embd_norm": (_HIDDEN,)}
        keys |= heads | {"attention.head_count_kv": [0, 2, 0, 2], "shortconv.l_cache": 3, "rope.freq_base": 1e6}
    return _write(demo, target, architecture, keys, shapes, tokens, sharpness=6.0)


def _write(
    demo: Path,
    target: Path,
    architecture: str,
    keys: Mapping[str, Any],
    shapes: Mapping[str, tuple[int, ...]],
    vocabulary: int,
    *,
    sharpness: float = 1.0,
) -> Path:
    """Write a model of random weights with the tokenizer of the demo model. One-dimensional tensors are F32.

    ``sharpness`` multiplies the logits: the best token is then better than the next by more than rounding.
    """
    writer = gguf.GGUFWriter(target, architecture)
    changed = {f"{architecture}.{name}": value for name, value in keys.items()}
    _write_keys(writer, demo, architecture, changed, vocabulary)
    _write_tensors(writer, shapes, sharpness)
    return target


def _write_keys(
    writer: gguf.GGUFWriter, demo: Path, architecture: str, changed: dict[str, Any], vocabulary: int
) -> None:
    reader = gguf.GGUFReader(demo)
    changed["general.file_type"] = int(gguf.LlamaFileType.MOSTLY_F16)
    for name, field in reader.fields.items():
        if name.startswith(("GGUF.", "general.architecture")):
            continue
        if name.startswith("llama.") and architecture != "llama":
            continue
        value = changed.pop(name, field.contents())
        if name == "tokenizer.ggml.tokens":
            value = [*value, *(f"<|{number}|>" for number in range(vocabulary - len(value)))]
        elif name == "tokenizer.ggml.token_type":
            value = [*value, *[int(gguf.TokenType.NORMAL)] * (vocabulary - len(value))]
        element = field.types[1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(name, value, field.types[0], element)
    for name, value in changed.items():
        if isinstance(value, list):
            writer.add_array(name, value)
        elif isinstance(value, float):
            writer.add_float32(name, value)
        else:
            writer.add_uint32(name, int(str(value)))


def _write_tensors(writer: gguf.GGUFWriter, shapes: Mapping[str, tuple[int, ...]], sharpness: float) -> None:
    names = {name: name if name.endswith(".bias") else f"{name}.weight" for name in shapes}
    names |= {name: name for name in shapes if name.endswith(("ssm_a", "ssm_d"))}
    # llama.cpp computes with these in 32 bits
    exact = ("ssm_a", "ssm_conv1d", "shortconv.conv")
    kinds = {
        name: np.float32 if len(shape) == 1 or name.endswith(exact) else np.float16 for name, shape in shapes.items()
    }
    for name, shape in shapes.items():
        size = int(np.prod(shape)) * np.dtype(kinds[name]).itemsize
        writer.add_tensor_info(names[name], shape, np.dtype(kinds[name]), size)
    random = np.random.default_rng(7)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for name, shape in shapes.items():
        weights = random.standard_normal(shape, dtype=np.float32) * (shape[-1] ** -0.5)
        if name.endswith("ssm_a"):
            weights = -np.abs(weights) - 0.5
        elif len(shape) == 1:
            weights = (np.abs(weights) + 0.5) * (sharpness if name in ("output_norm", "token_embd_norm") else 1.0)
        writer.write_tensor_data(weights.astype(kinds[name]))
    writer.close()
