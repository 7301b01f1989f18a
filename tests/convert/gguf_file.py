"""Reads GGUF files for the tests, as plainly as the specification describes them."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, NamedTuple

from llama_runner.convert.gguf_metadata import encode_string

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SIMPLE = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}


class Gguf(NamedTuple):
    """Metadata, and per tensor its dimensions (fastest first), its type's number and its bytes' offset in the file."""

    values: dict[str, Any]
    tensors: dict[str, tuple[tuple[int, ...], int, int]]


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data, self.place = data, 0

    def unpack(self, layout: str) -> Any:
        (value,) = struct.unpack_from(layout, self.data, self.place)
        self.place += struct.calcsize(layout)
        return value

    def string(self) -> str:
        length = self.unpack("<Q")
        self.place += length
        return self.data[self.place - length : self.place].decode("utf-8")

    def value(self, kind: int) -> Any:
        if kind == 8:
            return self.string()
        if kind == 9:
            kind, count = self.unpack("<I"), self.unpack("<Q")
            if kind in SIMPLE:
                layout = f"<{count}{SIMPLE[kind][1]}"
                self.place += struct.calcsize(layout)
                return [*struct.unpack_from(layout, self.data, self.place - struct.calcsize(layout))]
            return [self.value(kind) for _ in range(count)]
        return self.unpack(SIMPLE[kind])


def read(path: Path) -> Gguf:
    """Everything but the weights."""
    reader = _Reader(path.read_bytes())
    assert reader.data[:4] == b"GGUF"
    reader.place = 4
    assert reader.unpack("<I") == 3
    tensor_count, value_count = reader.unpack("<Q"), reader.unpack("<Q")
    values = {}
    for _ in range(value_count):
        key = reader.string()
        values[key] = reader.value(reader.unpack("<I"))
    found = []
    for _ in range(tensor_count):
        name = reader.string()
        dimensions = tuple(reader.unpack("<Q") for _ in range(reader.unpack("<I")))
        found.append((name, dimensions, reader.unpack("<I"), reader.unpack("<Q")))
    start = -(-reader.place // 32) * 32
    return Gguf(values, {name: (dimensions, kind, start + offset) for name, dimensions, kind, offset in found})


def raw_values(data: bytes, count: int) -> list[tuple[str, bytes]]:
    """Keys and encoded values, in their order; ``data`` begins with the first of ``count`` keys."""
    reader = _Reader(data)
    found = []
    for _ in range(count):
        key = reader.string()
        start = reader.place
        reader.value(reader.unpack("<I"))
        found.append((key, data[start : reader.place]))
    return found


def rewritten(data: bytes, change: Callable[[dict[str, bytes]], None]) -> bytes:
    """A file with other metadata; ``change`` gets the encoded values, types included, by key."""
    reader = _Reader(data)
    reader.place = 8
    tensors, count = reader.unpack("<Q"), reader.unpack("<Q")
    values = dict(raw_values(data[reader.place :], count))
    for _ in range(count):
        reader.string()
        reader.value(reader.unpack("<I"))
    start = reader.place
    for _ in range(tensors):
        reader.string()
        for layout in ("<Q",) * reader.unpack("<I") + ("<I", "<Q"):
            reader.unpack(layout)
    change(values)
    listed = b"".join(encode_string(key) + value for key, value in values.items())
    head = data[:16] + struct.pack("<Q", len(values)) + listed + data[start : reader.place]
    return head + bytes(-len(head) % 32) + data[reader.place + -reader.place % 32 :]
