"""GGUF files without weights, which llama.cpp's programs read to say what a model needs.

A skeleton has the metadata and the table of tensors of a model and, where the weights are, a hole: the file takes
kilobytes on the disk. Its vocabulary is small: llama-server reserves work space for the scores of one token of each
slot, llama-fit-params for those of a whole batch, which for a large vocabulary is most of its answer.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from llama_runner.core.immutable_values import Value
from llama_runner.sources.gguf_header import BLOCKS, TENSOR_TYPES
from llama_runner.system.files import open_regular

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from llama_runner.sources.gguf_header import GgufHeader

VOCABULARY = 256
"""Tokens of a skeleton; rows of every type have a multiple of this many elements."""
_ALIGNMENT = 32
_VERSION = 3
_UINT32, _STRING = 4, 8
_LEFT_OUT = ("tokenizer.", "split.", "general.alignment")
_NUMBERS = {name: number for number, name in TENSOR_TYPES.items()}


class Shape(Value):
    """A tensor: ``shape`` in ggml's order, the row length first."""

    name: str
    shape: tuple[int, ...]
    type: str


def write_skeleton(target: Path, file: Path, headers: Sequence[GgufHeader]) -> None:
    """Write the skeleton of a model; ``file`` is its first file, of the first of ``headers``."""
    first = headers[0]
    architecture = first.text("general.architecture") or ""
    with open_regular(file) as source:
        values = {}
        for key, (start, end) in first.spans.items():
            if not key.startswith(_LEFT_OUT) and key != f"{architecture}.vocab_size":
                source.seek(start)
                values[key] = source.read(end - start)
    tokens = first.arrays.get("tokenizer.ggml.tokens") or first.metadata.get(f"{architecture}.vocab_size")
    tensors = [
        Shape(entry.name, _with_small_vocabulary(entry.name, entry.shape, tokens), entry.type)
        for header in headers
        for entry in header.entries
    ]
    write_sparse(target, architecture, values, tensors)


def write_sparse(target: Path, architecture: str, values: Mapping[str, bytes], tensors: Iterable[Shape]) -> None:
    """Write metadata, a table of tensors and a hole of the size of their data; the vocabulary has no tokens' texts."""
    pairs = dict(values)
    pairs["tokenizer.ggml.model"] = text_value("no_vocab")
    pairs[f"{architecture}.vocab_size"] = number_value(VOCABULARY)
    table, offset, count = [], 0, 0
    for tensor in tensors:
        number = _number_of(tensor.type)
        dimensions = struct.pack(f"<I{len(tensor.shape)}Q", len(tensor.shape), *tensor.shape)
        table.append(_text(tensor.name) + dimensions + struct.pack("<IQ", number, offset))
        elements = 1
        for length in tensor.shape:
            elements *= length
        block, width = BLOCKS.get(number, (1, 4))
        offset += -(-(elements // block * width) // _ALIGNMENT) * _ALIGNMENT
        count += 1
    head = b"GGUF" + struct.pack("<IQQ", _VERSION, count, len(pairs))
    head += b"".join(_text(key) + value for key, value in pairs.items()) + b"".join(table)
    with target.open("xb") as file:
        file.write(head)
        file.truncate(-(-len(head) // _ALIGNMENT) * _ALIGNMENT + offset)


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


def _with_small_vocabulary(name: str, shape: tuple[int, ...], tokens: int | None) -> tuple[int, ...]:
    rows = len(shape) > 1 or name == "output.bias"  # a vector may be as long as the vocabulary by chance
    if name.startswith("blk.") or not rows or shape[-1] != tokens:
        return shape
    return (*shape[:-1], VOCABULARY)
