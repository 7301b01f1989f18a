"""Writes GGUF files whose weights are a hole, for programs of llama.cpp that need no weights to answer.

Such a file takes kilobytes on the disk, whatever the size of the model.
"""

from __future__ import annotations

import math
import struct
from typing import TYPE_CHECKING

from llama_runner.core.immutable_values import Value
from llama_runner.sources.gguf_header import BLOCKS, TENSOR_TYPES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

TINY_CONTEXT = 256
"""Trained context of the tiny model, in tokens."""
_WIDTH = 32
ALIGNMENT = 32
"""Bytes that the data of a tensor begins at a multiple of."""
_VERSION = 3
_UINT32, _STRING = 4, 8
_NUMBERS = {name: number for number, name in TENSOR_TYPES.items()}


class Shape(Value):
    """A tensor: ``shape`` in ggml's order, the row length first."""

    name: str
    shape: tuple[int, ...]
    type: str


def write_sparse(target: Path, values: Mapping[str, bytes], tensors: Iterable[Shape]) -> None:
    """Write metadata, a table of tensors and a hole of the size of their data. ``target`` must not exist."""
    table, offset, count = [], 0, 0
    for tensor in tensors:
        dimensions = struct.pack(f"<I{len(tensor.shape)}Q", len(tensor.shape), *tensor.shape)
        table.append(_text(tensor.name) + dimensions + struct.pack("<IQ", _number_of(tensor.type), offset))
        offset += -(-bytes_of(tensor) // ALIGNMENT) * ALIGNMENT
        count += 1
    head = b"GGUF" + struct.pack("<IQQ", _VERSION, count, len(values))
    head += b"".join(_text(key) + value for key, value in values.items()) + b"".join(table)
    with target.open("xb") as file:
        file.write(head)
        file.truncate(-(-len(head) // ALIGNMENT) * ALIGNMENT + offset)


def bytes_of(tensor: Shape) -> int:
    """Return the bytes of a tensor's data."""
    block, width = BLOCKS.get(_number_of(tensor.type), (1, 4))
    return math.prod(tensor.shape) // block * width


def text_value(text: str) -> bytes:
    """Return a text as a value of the metadata, with its type."""
    return struct.pack("<I", _STRING) + _text(text)


def number_value(number: int) -> bytes:
    """Return a number as a value of the metadata, with its type."""
    return struct.pack("<II", _UINT32, number)


def real_value(number: float) -> bytes:
    """Return a real number as a value of the metadata, with its type."""
    return struct.pack("<If", 6, number)


def _text(text: str) -> bytes:
    data = text.encode("utf-8", "surrogateescape")
    return struct.pack("<Q", len(data)) + data


def _number_of(name: str) -> int:
    return _NUMBERS[name] if name in _NUMBERS else int(name.removeprefix("type "))


def write_tiny_model(target: Path, vocabulary: Mapping[str, bytes], tokens: int) -> None:
    """Write a model of one layer with a vocabulary of ``tokens`` tokens; ``vocabulary`` is its encoded metadata."""
    sizes = {"block_count": 1, "attention.head_count": 1, "context_length": TINY_CONTEXT, "vocab_size": tokens}
    sizes |= dict.fromkeys(("embedding_length", "feed_forward_length", "rope.dimension_count"), _WIDTH)
    values = {"general.architecture": text_value("llama"), **vocabulary}
    values |= {f"llama.{name}": number_value(number) for name, number in sizes.items()}
    values["llama.attention.layer_norm_rms_epsilon"] = real_value(1e-5)
    square = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
    write_sparse(
        target,
        values,
        (
            Shape("token_embd.weight", (_WIDTH, tokens), "f16"),
            Shape("output_norm.weight", (_WIDTH,), "f32"),
            *(Shape(f"blk.0.{name}.weight", (_WIDTH,), "f32") for name in ("attn_norm", "ffn_norm")),
            *(Shape(f"blk.0.{name}.weight", (_WIDTH, _WIDTH), "f16") for name in square),
        ),
    )
