"""Reads and checks the headers of safetensors files.

Format: eight bytes little endian (length N), N bytes of JSON ``{name: {dtype, shape, data_offsets}}``, then the
data, which the tensors cover without gaps (https://github.com/huggingface/safetensors#format). `gguf_writer` reads the
data. Every rule is checked, and the length is compared with the size of the file before memory is allocated.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

from llama_runner.convert.errors import BrokenShard
from llama_runner.system.files import open_regular
from llama_runner.system.platforms import change_time_ns

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

HEADER_LIMIT = 100_000_000  # the limit of the reference implementation
MOST_DIMENSIONS = 64  # PyTorch's; the product of millions of lengths would take hours
ITEM_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16,
    "I32": 32, "U32": 32, "F32": 32,
    "I64": 64, "U64": 64, "F64": 64, "C64": 64,
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip


@dataclass(frozen=True)
class Stamp:
    """Metadata by which a version of a file is recognised without reading it.

    ``ctime_ns`` shows that a file was replaced by one with the same size and mtime. Making or removing a hard link
    changes it too, together with ``links``, and leaves the bytes alone.
    """

    size: int
    mtime_ns: int
    inode: int
    ctime_ns: int
    links: int

    @classmethod
    def of(cls, file: int | str | Path) -> Stamp:
        """Return the stamp of an open file or of a path, following links. Raises ``OSError``."""
        found = os.stat(file)  # noqa: PTH116 - also of a descriptor
        return cls(found.st_size, found.st_mtime_ns, found.st_ino, change_time_ns(file, found), found.st_nlink)

    def is_same(self, other: Stamp) -> bool:
        """Return whether the file is unchanged."""
        if (self.size, self.mtime_ns, self.inode) != (other.size, other.mtime_ns, other.inode):
            return False
        return self.ctime_ns == other.ctime_ns or self.links != other.links


@dataclass(frozen=True)
class Tensor:
    """Tensor of a shard: ``offset`` is from the start of the file, ``shape`` is row-major."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    nbytes: int
    path: Path

    @property
    def elements(self) -> int:
        """Number of elements; one for a scalar."""
        return prod(self.shape)


@dataclass(frozen=True)
class Shard:
    """Safetensors file: tensors sorted by name, and its stamp when it was read."""

    path: Path
    stamp: Stamp
    tensors: tuple[Tensor, ...]


def read_shard(path: Path) -> Shard:
    """Read the header of a file; raises `BrokenShard`, or ``OSError`` if it cannot be opened."""
    with open_regular(path) as file:
        stamp = Stamp.of(file.fileno())
        head = file.read(8)
        if len(head) < 8:  # noqa: PLR2004
            raise BrokenShard(path, f"only {len(head)} bytes long")
        length = int.from_bytes(head, "little")
        if length > stamp.size - 8:
            raise BrokenShard(path, f"its header claims {length} bytes, the file has {stamp.size}")
        if length > HEADER_LIMIT:
            raise BrokenShard(path, f"its header claims {length} bytes, more than the format allows ({HEADER_LIMIT})")
        text = file.read(length)
    header = _parse(path, text)
    start = 8 + length
    tensors = [_tensor(path, name, entry, start) for name, entry in header.items() if name != "__metadata__"]
    _check_layout(path, tensors, start, stamp.size)
    return Shard(path, stamp, tuple(sorted(tensors, key=lambda tensor: tensor.name)))


def _parse(path: Path, text: bytes) -> Mapping[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise BrokenShard(path, "its header has two members of the same name")
        return found

    try:
        header = json.loads(text.decode("utf-8"), object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise BrokenShard(path, f"its header is not JSON ({error})") from error
    if not isinstance(header, dict):
        raise BrokenShard(path, "its header is not a JSON object")
    return header


def _numbers(value: object) -> tuple[int, ...] | None:
    if not isinstance(value, list) or not all(type(item) is int and 0 <= item < 1 << 63 for item in value):
        return None
    return tuple(value)


def _tensor(path: Path, name: str, entry: object, start: int) -> Tensor:
    if not isinstance(entry, dict):
        raise BrokenShard(path, f"tensor {name} is not described by an object")
    dtype, shape, offsets = (
        entry.get("dtype"),
        _numbers(entry.get("shape")),
        _numbers(entry.get("data_offsets")),
    )
    if not isinstance(dtype, str) or dtype not in ITEM_BITS:
        raise BrokenShard(path, f"tensor {name} has the unknown dtype {dtype!r}")
    if shape is None:
        raise BrokenShard(path, f"tensor {name} has the shape {entry.get('shape')!r}")
    if len(shape) > MOST_DIMENSIONS:
        raise BrokenShard(path, f"tensor {name} has {len(shape)} dimensions")
    if offsets is None or len(offsets) != 2 or offsets[0] > offsets[1]:  # noqa: PLR2004
        raise BrokenShard(path, f"tensor {name} has the data offsets {entry.get('data_offsets')!r}")
    begin, end = offsets
    bits = prod(shape) * ITEM_BITS[dtype]
    if bits != (end - begin) * 8:
        raise BrokenShard(
            path, f"tensor {name} occupies {end - begin} bytes, {dtype} {list(shape)} needs {(bits + 7) // 8}"
        )
    return Tensor(name, dtype, shape, start + begin, end - begin, path)


def _check_layout(path: Path, tensors: list[Tensor], start: int, size: int) -> None:
    position = start
    for tensor in sorted(tensors, key=lambda tensor: (tensor.offset, tensor.nbytes)):
        if tensor.offset + tensor.nbytes > size:
            missing = tensor.offset + tensor.nbytes - size
            raise BrokenShard(path, f"truncated: tensor {tensor.name} ends {missing} bytes beyond the end of the file")
        if tensor.offset < position:
            raise BrokenShard(path, f"tensor {tensor.name} overlaps the one before it")
        if tensor.offset > position:
            raise BrokenShard(path, f"{tensor.offset - position} bytes before tensor {tensor.name} belong to no tensor")
        position = tensor.offset + tensor.nbytes
    if position != size:
        raise BrokenShard(path, f"{size - position} bytes at the end belong to no tensor")
