"""Reads the needed fields of tokenizer.model, SentencePiece's protobuf message (sentencepiece_model.proto).

They are read from the wire format instead of depending on protobuf. Every length is checked against the
bytes that are there before memory is taken.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from llama_runner.convert.errors import UnreadableFile, reading
from llama_runner.system.files import read_bounded

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

UNIGRAM, BPE = 1, 2
NORMAL = 1
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
VARINT_BITS = 64
LARGEST = 1 << 28  # bytes; the largest real ones have a few million


@dataclass
class Model:
    """Pieces (text, score, type) by number, kind of model, and normalization."""

    pieces: list[tuple[str, float, int]] = field(default_factory=list)
    kind: int = UNIGRAM
    charsmap: bytes = b""
    add_dummy_prefix: bool = True
    remove_extra_whitespaces: bool = True


def read(path: Path) -> Model:
    """Read a SentencePiece model; raises `UnreadableFile`."""
    try:
        with reading(path):
            content = read_bounded(path, LARGEST)
        model = _model(content)
    except (IndexError, ValueError, struct.error) as error:
        raise UnreadableFile(path, f"it is not a SentencePiece model ({error})") from error
    if not model.pieces:
        raise UnreadableFile(path, "it is not a SentencePiece model (no pieces)")
    return model


def _model(data: bytes) -> Model:
    model = Model()
    for number, value in _fields(data):
        if not isinstance(value, bytes):
            continue
        if number == 1:
            model.pieces.append(_piece(value))
        elif number == 2:  # noqa: PLR2004 - field numbers of the .proto
            model.kind = next((v for n, v in _fields(value) if n == 3 and isinstance(v, int)), UNIGRAM)  # noqa: PLR2004
        elif number == 3:  # noqa: PLR2004
            _normalization(value, model)
    return model


def _normalization(message: bytes, model: Model) -> None:
    for number, value in _fields(message):
        if number == 2 and isinstance(value, bytes):  # noqa: PLR2004
            model.charsmap = value
        elif number == 3 and isinstance(value, int):  # noqa: PLR2004
            model.add_dummy_prefix = bool(value)
        elif number == 4 and isinstance(value, int):  # noqa: PLR2004
            model.remove_extra_whitespaces = bool(value)


def _piece(message: bytes) -> tuple[str, float, int]:
    text, score, kind = "", 0.0, NORMAL
    for number, value in _fields(message):
        if number == 1 and isinstance(value, bytes):
            text = value.decode("utf-8")
        elif number == 2 and isinstance(value, bytes):  # noqa: PLR2004
            (score,) = struct.unpack("<f", value)
        elif number == 3 and isinstance(value, int):  # noqa: PLR2004
            kind = value
    if not 1 <= kind <= 6:  # noqa: PLR2004
        message_text = f"a piece of type {kind}"
        raise ValueError(message_text)
    return text, score, kind


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004 - the bit that says that more follows
            return value, place
        shift += 7
        if shift >= VARINT_BITS:
            message = "a number is too long"
            raise ValueError(message)


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield the fields of a protobuf message: number, and value or bytes."""
    place = 0
    while place < len(data):
        tag, place = _varint(data, place)
        number, wire = tag >> 3, tag & 7
        if wire == VARINT:
            value, place = _varint(data, place)
            yield number, value
            continue
        if wire == BYTES:
            length, place = _varint(data, place)
        elif wire in (FIXED32, FIXED64):
            length = 4 if wire == FIXED32 else 8
        else:
            message = f"wire type {wire}"
            raise ValueError(message)
        if place + length > len(data):
            message = f"{place + length - len(data)} bytes are missing at the end"
            raise ValueError(message)
        yield number, data[place : place + length]
        place += length
