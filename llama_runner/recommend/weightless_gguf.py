"""GGUF files without weights, which llama.cpp's programs read to say what a model needs.

A skeleton has the metadata and the table of tensors of a model and, where the weights are, a hole: the file takes
kilobytes on the disk. Its vocabulary is small: llama-server reserves work space for the scores of one token of each
slot, llama-fit-params for those of a whole batch, which for a large vocabulary is most of its answer.
"""

from __future__ import annotations

import os
import struct
from functools import cache
from random import Random
from typing import TYPE_CHECKING

from llama_runner.sources.gguf_header import read_header
from llama_runner.sources.gguf_without_weights import ALIGNMENT, Shape, number_value, text_value, write_sparse
from llama_runner.system.files import open_regular

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from llama_runner.sources.gguf_header import GgufHeader

VOCABULARY = 256
"""Tokens of a skeleton; rows of every type have a multiple of this many elements."""
_PATTERN = 1 << 20
_ONES = struct.pack("<f", 1.0) * (_PATTERN // 4)
_SMALL_FLOAT16 = bytes(byte & 0x83 | 0x0C for byte in range(256))
"""Makes a byte one that, as the second of a float16, is a number from 0.00024 to 0.0005 of either sign. All are of one
size: with subnormal scales a block of q8_0 takes 1.4 times as long, with sizes far apart the attention 1.25 times."""
_LEFT_OUT = ("tokenizer.", "split.", "general.alignment")


def write_skeleton(target: Path, file: Path, headers: Sequence[GgufHeader]) -> None:
    """Write the skeleton of a model; ``file`` is its first file, of the first of ``headers``."""
    first = headers[0]
    architecture, tokens = first.text("general.architecture") or "", vocabulary_of(first)
    tensors = [
        Shape(entry.name, _with_small_vocabulary(entry.name, entry.shape, tokens), entry.type)
        for header in headers
        for entry in header.entries
    ]
    write_without_vocabulary(target, architecture, metadata_of(file, first), tensors)


def metadata_of(file: Path, header: GgufHeader) -> dict[str, bytes]:
    """Return the encoded metadata of a file without what is said of its vocabulary and its parts."""
    left_out = f"{header.text('general.architecture')}.vocab_size"
    values = {}
    with open_regular(file) as source:
        for key, (start, end) in header.spans.items():
            if not key.startswith(_LEFT_OUT) and key != left_out:
                source.seek(start)
                values[key] = source.read(end - start)
    return values


def vocabulary_of(header: GgufHeader) -> int | None:
    """Return the number of tokens of a vocabulary; None if the header does not say it."""
    given = header.metadata.get(f"{header.text('general.architecture')}.vocab_size")
    return header.arrays.get("tokenizer.ggml.tokens") or (given if isinstance(given, int) else None)


def write_without_vocabulary(
    target: Path,
    architecture: str,
    values: Mapping[str, bytes],
    tensors: Iterable[Shape],
    *,
    tokens: int = VOCABULARY,
) -> None:
    """Write a skeleton from its metadata and tensors; the vocabulary has no tokens' texts."""
    pairs = dict(values)
    pairs["tokenizer.ggml.model"] = text_value("no_vocab")
    pairs[f"{architecture}.vocab_size"] = number_value(tokens)
    write_sparse(target, pairs, tensors)


def fill_with_numbers(target: Path) -> None:
    """Fill the weights of a skeleton with small random numbers; vectors with ones.

    llama.cpp computes up to 1.5 times as fast with zeros as with other numbers.
    """
    header = read_header(target)
    os.truncate(target, header.data_start)
    with target.open("ab") as file:
        for entry in header.entries:
            pattern = _ONES if len(entry.shape) == 1 and entry.type == "f32" else _numbers(entry.type)
            left = -(-entry.bytes // ALIGNMENT) * ALIGNMENT
            while left > 0:
                left -= file.write(pattern[:left])


@cache
def _numbers(kind: str) -> bytes:
    """Return random bytes that are small finite numbers of a type; the scales of quantized types are float16."""
    found = bytearray(Random(1).randbytes(_PATTERN).translate(_SMALL_FLOAT16))  # noqa: S311 - not for secrets
    if kind in ("f32", "bf16"):
        step = 4 if kind == "f32" else 2
        found[step - 1 :: step] = (byte & 0x80 | 0x3C for byte in found[step - 1 :: step])
    return bytes(found)


def _with_small_vocabulary(name: str, shape: tuple[int, ...], tokens: int | None) -> tuple[int, ...]:
    rows = len(shape) > 1 or name == "output.bias"  # a vector may be as long as the vocabulary by chance
    if name.startswith("blk.") or not rows or shape[-1] != tokens:
        return shape
    return (*shape[:-1], VOCABULARY)
