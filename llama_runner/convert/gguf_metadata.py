"""Metadata of a GGUF file as an ordered table, and its encoding.

Types are said by the caller, as in the GGUF specification
(https://github.com/ggml-org/ggml/blob/master/docs/gguf.md). A key that is set again keeps its place, and an
empty string or array is left out: both as the official writer does it, since the order is part of the bytes.
"""

from __future__ import annotations

import struct
from array import array
from math import isfinite
from typing import TYPE_CHECKING

from llama_runner.convert.errors import BadHyperparameter

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

UINT8, UINT32, INT32, FLOAT32, BOOL, STRING, ARRAY = 0, 4, 5, 6, 7, 8, 9


def encode_string(text: str | bytes) -> bytes:
    """Encode a GGUF string: length in eight bytes, then UTF-8."""
    data = text.encode("utf-8") if isinstance(text, str) else text
    return len(data).to_bytes(8, "little") + data


class KeyValues:
    """Ordered table of encoded metadata; ``{arch}`` in a key stands for the architecture's name."""

    def __init__(self, architecture: str) -> None:
        self.architecture = architecture
        self._values: dict[str, bytes] = {}
        self.string("general.architecture", architecture)

    def __len__(self) -> int:
        return len(self._values)

    def __contains__(self, key: str) -> bool:
        return self._key(key) in self._values

    def _key(self, key: str) -> str:
        return key.replace("{arch}", self.architecture)

    def _set(self, key: str, kind: int, value: bytes) -> None:
        self._values[self._key(key)] = kind.to_bytes(4, "little") + value

    def _pack(self, key: str, kind: int, layout: str, value: object) -> None:
        try:
            self._set(key, kind, struct.pack(layout, value))
        except (struct.error, OverflowError) as error:
            raise _unfit(key, value) from error

    def uint32(self, key: str, value: object) -> None:
        """Set a 32-bit unsigned integer."""
        self._number(key, UINT32, "<I", value)

    def int32(self, key: str, value: object) -> None:
        """Set a 32-bit signed integer."""
        self._number(key, INT32, "<i", value)

    def float32(self, key: str, value: object) -> None:
        """Set a 32-bit float; raises for infinities and NaN."""
        if isinstance(value, float) and not isfinite(value):
            raise _unfit(key, value)
        self._number(key, FLOAT32, "<f", value)

    def _number(self, key: str, kind: int, layout: str, value: object) -> None:
        if isinstance(value, bool):  # which struct takes for a number
            raise _unfit(key, value)
        self._pack(key, kind, layout, value)

    def boolean(self, key: str, value: object) -> None:
        """Set a boolean; any value counts by its truth, as in the official writer."""
        self._pack(key, BOOL, "?", value)

    def string(self, key: str, value: str) -> None:
        """Set a string; an empty one is left out."""
        if value:
            self._set(key, STRING, _encoded(key, (value,)))

    def text(self, key: str) -> str | None:
        """Return a string that was set, None if there is none."""
        value = self._values.get(self._key(key), b"")
        return value[12:].decode("utf-8") if value[:4] == STRING.to_bytes(4, "little") else None

    def strings(self, key: str, values: Sequence[str | bytes]) -> None:
        """Set an array of strings; an empty one is left out."""
        self._array(key, STRING, len(values), _encoded(key, values))

    def floats(self, key: str, values: Sequence[float]) -> None:
        """Set an array of 32-bit floats; an empty one is left out."""
        self._array(key, FLOAT32, len(values), _packed(key, "f", values))

    def integers(self, key: str, values: Sequence[int]) -> None:
        """Set an array of 32-bit signed integers; an empty one is left out."""
        self._array(key, INT32, len(values), _packed(key, "i", values))

    def unsigned(self, key: str, values: Sequence[int]) -> None:
        """Set an array of 32-bit unsigned integers; an empty one is left out."""
        self._array(key, UINT32, len(values), _packed(key, "I", values))

    def booleans(self, key: str, values: Sequence[object]) -> None:
        """Set an array of booleans; an empty one is left out."""
        self._array(key, BOOL, len(values), bytes(bool(value) for value in values))

    def octets(self, key: str, values: bytes) -> None:
        """Set an array of bytes; an empty one is left out."""
        self._array(key, UINT8, len(values), values)

    def _array(self, key: str, kind: int, count: int, data: bytes) -> None:
        if count:
            self._set(key, ARRAY, struct.pack("<IQ", kind, count) + data)

    @property
    def encoded(self) -> Mapping[str, bytes]:
        """The values in order, each with its type, as in the file."""
        return self._values

    def update(self, encoded: Mapping[str, bytes]) -> None:
        """Set values that were encoded before."""
        self._values.update(encoded)

    def encode(self) -> bytes:
        """Return all keys and values in order, as in the file."""
        return b"".join(encode_string(key) + value for key, value in self._values.items())


def _unfit(key: str, value: object) -> BadHyperparameter:
    return BadHyperparameter(key.rpartition(".")[2], f"cannot be {value!r}")


def _encoded(key: str, values: Iterable[str | bytes]) -> bytes:
    try:
        return b"".join(map(encode_string, values))
    except UnicodeEncodeError as error:  # JSON may hold half a surrogate pair
        raise BadHyperparameter(key.rpartition(".")[2], f"is not text ({error.reason})") from error


def _packed(key: str, kind: str, values: Sequence[float]) -> bytes:
    """Encode numbers as an array of 32-bit little-endian values."""
    try:
        packed = array(kind, values)
    except (OverflowError, TypeError) as error:
        raise BadHyperparameter(key.rpartition(".")[2], f"cannot be written ({error})") from error
    if struct.pack("=H", 1) != struct.pack("<H", 1):
        packed.byteswap()
    return packed.tobytes()
