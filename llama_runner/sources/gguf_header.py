"""Reads and checks the header of a GGUF file in milliseconds.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. ``gguf.GGUFReader`` of the gguf package reads
everything into numpy arrays. This reader keeps scalars only, skips strings in arrays, and computes the end of the
tensor data, so that a truncated file is found before a server loads it. Counts are checked against the file's size.
"""

from __future__ import annotations

import mmap
import re
import struct
from typing import TYPE_CHECKING, Any, NamedTuple

from llama_runner.core.errors import SourceError
from llama_runner.core.immutable_values import Value, field
from llama_runner.system.files import open_regular

if TYPE_CHECKING:
    from pathlib import Path

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_VERSIONS = (2, 3)
_MAX_DIMENSIONS = 4
_MAX_STRING = 16 << 20
_MAX_KEPT = 64 << 20
"""Maximum bytes of all strings that are kept. Chat templates take kilobytes; the limit stops malformed files."""
_MAX_COUNT = 1 << 17
"""Maximum number of tensors, and of metadata values. A model of a hundred layers has a few thousand tensors."""
_MAX_STRINGS = 1 << 24
"""Maximum length of an array of strings, such as the tokens or merges of a vocabulary."""
_SMALLEST = 24

# Elements and bytes of one block of each ggml type, from ggml.h and ggml-common.h of the pinned llama.cpp.
BLOCKS: dict[int, tuple[int, int]] = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34),
    10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210),
    16: (256, 66), 17: (256, 74), 18: (256, 98), 19: (256, 50), 20: (32, 18), 21: (256, 110), 22: (256, 82),
    23: (256, 136), 24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8), 28: (1, 8), 29: (256, 56), 30: (1, 2),
    34: (256, 54), 35: (256, 66), 39: (32, 17), 40: (64, 36), 41: (128, 18), 42: (64, 18),
}  # fmt: skip

FILE_TYPES = {
    0: "f32", 1: "f16", 2: "q4_0", 3: "q4_1", 7: "q8_0", 8: "q5_0", 9: "q5_1", 10: "q2_k", 11: "q3_k_s",
    12: "q3_k_m", 13: "q3_k_l", 14: "q4_k_s", 15: "q4_k_m", 16: "q5_k_s", 17: "q5_k_m", 18: "q6_k", 19: "iq2_xxs",
    20: "iq2_xs", 21: "q2_k_s", 22: "iq3_xs", 23: "iq3_xxs", 24: "iq1_s", 25: "iq4_nl", 26: "iq3_s", 27: "iq3_m",
    28: "iq2_s", 29: "iq2_m", 30: "iq4_xs", 31: "iq1_m", 32: "bf16", 36: "tq1_0", 37: "tq2_0", 38: "mxfp4_moe",
    40: "q1_0", 41: "q2_0",
}  # fmt: skip
"""Names of quantizations by ``general.file_type``."""


POOLING = {0: "none", 1: "mean", 2: "cls", 3: "last", 4: "rank"}
"""How a model makes one vector of many, by llama.cpp's number; with ``rank`` it is a score."""


class NotGGUF(SourceError):
    """The file is not a GGUF file, or is damaged."""

    def __init__(self, path: Path | str, why: str) -> None:
        self.path, self.why = path, why
        super().__init__(f"{path} is not a usable GGUF file: {why}", hint="download or convert it again")


def missing_shards_error(path: Path, missing: list[str], count: int) -> SourceError:
    """Return the error for a model in several files of which some are missing."""
    return SourceError(
        f"{path} is one of {count} shards, and {len(missing)} are missing: {', '.join(missing[:4])}",
        hint=f"put them into {path.parent}",
    )


TENSOR_TYPES = {
    0: "f32", 1: "f16", 2: "q4_0", 3: "q4_1", 6: "q5_0", 7: "q5_1", 8: "q8_0", 10: "q2_k", 11: "q3_k", 12: "q4_k",
    13: "q5_k", 14: "q6_k", 16: "iq2_xxs", 17: "iq2_xs", 18: "iq3_xxs", 19: "iq1_s", 20: "iq4_nl", 21: "iq3_s",
    22: "iq2_s", 23: "iq4_xs", 24: "i8", 25: "i16", 26: "i32", 27: "i64", 28: "f64", 29: "iq1_m", 30: "bf16",
    34: "tq1_0", 35: "tq2_0", 39: "mxfp4", 40: "nvfp4", 41: "q1_0", 42: "q2_0",
}  # fmt: skip
"""Names of tensor types by ggml's number."""


class TensorEntry(
    NamedTuple(  # not as annotations: they are texts, which typing compiles, and the first one takes 3 ms
        "TensorEntry",
        [("name", str), ("shape", tuple[int, ...]), ("type", str), ("elements", int), ("bytes", int)],
    )
):
    """One tensor of the header; ``shape`` in ggml's order, the row length first."""

    __slots__ = ()


class GgufHeader(Value):
    """Header of a GGUF file: scalars by key, lengths of arrays by key, tensors, and where the tensor data is."""

    version: int
    tensors: int
    metadata: dict[str, Any]
    data_end: int
    arrays: dict[str, int] = field(default_factory=dict)
    entries: tuple[TensorEntry, ...] = ()
    spans: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Where the type and value of each key begin and end in the file."""
    data_start: int = 0
    """Where the tensor data begin."""

    def facts(self) -> dict[str, Any]:
        """Return what launching and the summary need, as canonical JSON values."""
        architecture = self.text("general.architecture")
        context = self.metadata.get(f"{architecture}.context_length")
        found = {
            "architecture": architecture,
            "name": self.text("general.name"),
            "quantization": FILE_TYPES.get(self.metadata.get("general.file_type", -1)),
            "context_length": context if type(context) is int else None,
            "chat_template": "tokenizer.chat_template" in self.metadata,
            "tensors": self.tensors,
            "pooling": POOLING.get(self.metadata.get(f"{architecture}.pooling_type", -1)),
            "classes": self._classes(),
        }
        return {name: value for name, value in found.items() if value is not None}

    def _classes(self) -> int | None:
        """Return how many numbers the head of a classifier gives, None for a model without one."""
        head = next((entry for entry in self.entries if entry.name == "cls.output.weight"), None)
        return None if head is None else (*head.shape, 1)[1]

    def text(self, key: str) -> str | None:
        """Return a text value; None if it is absent or not a text."""
        value = self.metadata.get(key)
        return value if isinstance(value, str) else None


def read_header(path: Path) -> GgufHeader:
    """Read and check the header of one file; raises ``NotGGUF``."""
    try:
        if not path.is_file():
            why = "it is a directory" if path.is_dir() else "it is not a regular file"
            raise NotGGUF(path, why if path.exists() else "it does not exist")
        with open_regular(path) as file:
            size = path.stat().st_size
            if size < _SMALLEST:
                raise NotGGUF(path, "it is empty" if not size else f"it has {size} bytes, a header has {_SMALLEST}")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _Reader(path, data, size).header()
    except OSError as error:
        raise NotGGUF(path, error.strerror or str(error)) from error


class _Reader:
    """A cursor over the header of one file."""

    def __init__(self, path: Path, data: mmap.mmap, size: int) -> None:
        self._path, self._data, self._size, self._at, self._kept = path, data, size, 0, 0

    def header(self) -> GgufHeader:
        magic = self._data[:4]
        if magic != b"GGUF":
            raise NotGGUF(self._path, f"it begins with {magic!r}")
        self._at = 4
        version, tensors, pairs = self._take("IQQ")
        if version not in _VERSIONS:
            swapped = int.from_bytes(struct.pack("<I", version), "big")
            why = f"version {version}" if swapped not in _VERSIONS else "it is big-endian"
            raise NotGGUF(self._path, f"{why}; versions 2 and 3 in little-endian order are supported")
        # A pair takes at least 13 bytes, a tensor's entry 24: an impossible count is found before the loop.
        if pairs * 13 + tensors * 24 > self._size:
            raise NotGGUF(
                self._path,
                f"it is truncated or damaged: {tensors} tensors and {pairs} values do not fit into {self._size} bytes",
            )
        if max(pairs, tensors) > _MAX_COUNT:  # a sparse file can have any size
            raise NotGGUF(self._path, f"it counts {tensors} tensors and {pairs} values")
        metadata: dict[str, Any] = {}
        arrays: dict[str, int] = {}
        spans: dict[str, tuple[int, int]] = {}
        for _ in range(pairs):
            key = self._string()
            start = self._at
            (kind,) = self._take("I")
            if kind == _ARRAY:
                arrays[key] = self._skip_array()
            else:
                metadata[key] = self._value(kind)
            spans[key] = start, self._at
        entries: list[TensorEntry] = []
        alignment = metadata.get("general.alignment", 32)
        end = self._tensor_data_end(tensors, alignment, entries)
        if end > self._size:
            raise NotGGUF(self._path, f"it is truncated: {self._size} bytes of {end}")
        start = -(-self._at // alignment) * alignment
        return GgufHeader(version, tensors, metadata, end, arrays, tuple(entries), spans, start)

    def _take(self, layout: str) -> tuple[Any, ...]:
        try:
            values = struct.unpack_from("<" + layout, self._data, self._at)
        except struct.error:
            raise NotGGUF(self._path, f"its header is truncated at byte {self._at}") from None
        self._at += struct.calcsize("<" + layout)
        return values

    def _skip(self, count: int) -> None:
        if count > self._size - self._at:
            raise NotGGUF(self._path, f"its header is truncated at byte {self._at}")
        self._at += count

    def _string(self) -> str:
        (length,) = self._take("Q")
        start = self._at
        if length > _MAX_STRING:
            raise NotGGUF(self._path, f"a string of {length} bytes at byte {start}")
        self._skip(length)
        self._kept += length
        if self._kept > _MAX_KEPT:
            raise NotGGUF(self._path, f"strings of more than {_MAX_KEPT} bytes")
        return self._data[start : self._at].decode("utf-8", "replace")

    def _value(self, kind: int) -> Any:  # noqa: ANN401 - as the file says
        """Return a scalar."""
        if kind == _STRING:
            return self._string()
        if kind in _SCALARS:
            return self._take(_SCALARS[kind])[0]
        raise NotGGUF(self._path, f"unknown value type {kind} at byte {self._at}")

    def _skip_array(self) -> int:
        """Skip an array and return its number of elements."""
        of, count = self._take("IQ")
        if of in _SCALARS:
            self._skip(count * struct.calcsize("<" + _SCALARS[of]))
        elif of == _STRING:
            self._skip_strings(count)
        else:
            raise NotGGUF(self._path, f"unknown array type {of} at byte {self._at}")
        return int(count)

    def _skip_strings(self, count: int) -> None:
        """Skip an array of strings. A vocabulary has hundreds of thousands, so this loop is tight."""
        if count > _MAX_STRINGS:
            raise NotGGUF(self._path, f"an array of {count} strings at byte {self._at}")
        if count * 8 > self._size - self._at:
            raise NotGGUF(self._path, f"its header is truncated at byte {self._size}, or damaged")
        data, at, length = self._data, self._at, struct.Struct("<Q").unpack_from
        try:
            for _ in range(count):
                at += 8 + length(data, at)[0]
        except (struct.error, OverflowError):  # beyond the file, beyond any file
            raise NotGGUF(self._path, f"its header is truncated at byte {at}") from None
        self._skip(at - self._at)

    def _tensor_data_end(self, tensors: int, alignment: int, entries: list[TensorEntry]) -> int:
        """Read the list of tensors into ``entries`` and return where their data ends."""
        if not isinstance(alignment, int) or alignment <= 0 or alignment % 8:
            raise NotGGUF(self._path, f"alignment {alignment}")
        furthest = 0
        for _ in range(tensors):
            name = self._string()
            (dimensions,) = self._take("I")
            if dimensions > _MAX_DIMENSIONS:
                raise NotGGUF(self._path, f"tensor {name!r} has {dimensions} dimensions")
            shape = self._take(f"{dimensions}Q")
            kind, offset = self._take("IQ")
            elements = 1
            for length in shape:
                elements *= length
            # An unknown type is newer than this table; llama-server accepts or refuses it.
            block, width = BLOCKS.get(kind, (1, 0))
            nbytes = elements // block * width
            entries.append(TensorEntry(name, shape, TENSOR_TYPES.get(kind, f"type {kind}"), elements, nbytes))
            furthest = max(furthest, offset + nbytes)
        start = -(-self._at // alignment) * alignment
        return start + furthest if tensors else self._at


_SHARD = r"(?P<base>.*)-(?P<index>\d{5})-of-(?P<count>\d{5})\.gguf$"


def check_model(path: Path) -> tuple[GgufHeader, list[Path]]:
    """Check a model file and, if it is one of several shards, that the others exist.

    Returns the header of the first shard, which has the metadata, and all files, the first one first.
    """
    header = read_header(path)
    count = header.metadata.get("split.count", 0)
    if isinstance(count, bool) or not isinstance(count, int) or count < 0:
        raise NotGGUF(path, f"split.count is {count!r}")
    match = re.match(_SHARD, path.name)
    if not count and not match:
        return header, [path]
    if not match:
        raise NotGGUF(path, f"it is one of {count} shards but is not named NAME-00001-of-{count:05}.gguf")
    named = int(match["count"])
    if not 1 <= int(match["index"]) <= named:
        raise NotGGUF(path, f"its name says shard {int(match['index'])} of {named}")
    if count not in (0, named):
        raise NotGGUF(path, f"its name says {named} shards and its header {count}")
    count = named
    files = [path.with_name(f"{match['base']}-{index:05}-of-{count:05}.gguf") for index in range(1, count + 1)]
    if missing := [file.name for file in files if not file.exists()]:
        raise missing_shards_error(path, missing, count)
    headers = [read_header(file) for file in files]
    return headers[0], files
