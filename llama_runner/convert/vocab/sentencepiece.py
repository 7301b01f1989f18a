"""SentencePiece vocabularies: tokenizer.model itself, or its copy in a tokenizer.json with byte fallback.

tokenizer.model is a protobuf message (sentencepiece_model.proto); three of its fields are needed, so they are
read from the wire format here instead of depending on protobuf.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llama_runner.convert.errors import BadVocabulary, UnreadableFile
from llama_runner.convert.vocab import Vocabulary, special
from llama_runner.convert.vocab.token_types import BYTE, CONTROL, NORMAL, UNUSED, USER_DEFINED, added_token

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from llama_runner.convert.config import Config
    from llama_runner.convert.keyvalues import KeyValues
    from llama_runner.convert.source import Source
    from llama_runner.convert.vocab.tokenizer import Tokenizer

PADDING_SCORE = -10000.0
ADDED_SCORE = -1000.0
BYTE_TOKEN = re.compile(r"<0x[0-9A-Fa-f]{2}>")
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
VARINT_BITS = 64


@dataclass
class _Token:
    text: str
    score: float
    kind: int


def write(values: KeyValues, config: Config, source: Source) -> Vocabulary:
    """Write the vocabulary of tokenizer.model, padded or cut to the size that config.json gives."""
    pieces = read_model(source.path("tokenizer.model"))
    size = config.find("vocab_size") or len(pieces)
    tokens = [_Token(text, score, NORMAL if kind == USER_DEFINED else kind) for text, score, kind in pieces[:size]]
    tokens += [_Token(f"[PAD{number}]", PADDING_SCORE, UNUSED) for number in range(len(tokens), size)]
    for token, number in source.optional_object("added_tokens.json").items():
        if type(number) is not int or number < 0:
            raise BadVocabulary(f"added_tokens.json gives {token!r} the number {number!r}")
        if number < size:
            tokens[number] = _Token(token, ADDED_SCORE, USER_DEFINED)
    listed = source.optional_object("tokenizer_config.json").get("added_tokens_decoder") or {}
    for key, entry in listed.items():
        if not key.isdecimal() or not isinstance(entry, dict) or not isinstance(entry.get("content"), str):
            raise BadVocabulary(f"tokenizer_config.json lists {key!r} as an added token: {entry!r}")
        if (number := int(key)) < size:
            text, kind = added_token(entry["content"], special=bool(entry.get("special")))
            tokens[number] = _Token(text, ADDED_SCORE, kind)
    return _write(values, source, tokens, "sentencepiece")


def write_byte_fallback(values: KeyValues, config: Config, source: Source, tokenizer: Tokenizer) -> Vocabulary:
    """Write the vocabulary of a tokenizer.json that SentencePiece's was turned into; it has no scores."""
    size = len(tokenizer.base)
    texts = tokenizer.numbered()
    numbers = {text: number for number, text in texts.items()}
    special_numbers = {numbers[text] for text in tokenizer.specials if text in numbers}
    tokens = []
    for number in range(size):
        if number not in texts:
            raise BadVocabulary(f"tokenizer.json has {size} tokens, but none with the number {number}")
        kind = CONTROL if number in special_numbers else NORMAL
        tokens.append(_Token(texts[number], ADDED_SCORE, BYTE if BYTE_TOKEN.fullmatch(texts[number]) else kind))
    for number in sorted(number for number in tokenizer.added if number >= size):
        kind = CONTROL if number in special_numbers else USER_DEFINED
        tokens.append(_Token(texts[number], ADDED_SCORE, kind))
    if len(tokens) > config.integer("vocab_size"):
        raise BadVocabulary(
            f"it has {len(tokens)} tokens, the embedding has room for {config.integer('vocab_size')}",
            hint="tokens were added without resizing the model, or the tokenizer is another model's",
        )
    return _write(values, source, tokens, "byte-fallback")


def _write(values: KeyValues, source: Source, tokens: list[_Token], kind: str) -> Vocabulary:
    values.string("tokenizer.ggml.model", "llama")
    values.string("tokenizer.ggml.pre", "default")
    values.strings("tokenizer.ggml.tokens", [token.text for token in tokens])
    values.floats("tokenizer.ggml.scores", [token.score for token in tokens])
    values.integers("tokenizer.ggml.token_type", [token.kind for token in tokens])
    special.write(values, source, size=len(tokens))
    return Vocabulary(kind, len(tokens))


def read_model(path: Path) -> list[tuple[str, float, int]]:
    """Text, score and type of each piece of a tokenizer.model, in the order of their numbers."""
    try:
        pieces = [_piece(data) for field, data in _fields(path.read_bytes()) if field == 1 and isinstance(data, bytes)]
    except (IndexError, ValueError, struct.error) as error:
        raise UnreadableFile(path, f"it is not a SentencePiece model ({error})") from error
    if not pieces:
        raise UnreadableFile(path, "it is not a SentencePiece model (no pieces)")
    return pieces


def _piece(message: bytes) -> tuple[str, float, int]:
    text, score, kind = "", 0.0, NORMAL
    for field, value in _fields(message):
        if field == 1 and isinstance(value, bytes):
            text = value.decode("utf-8")
        elif field == 2 and isinstance(value, bytes):  # noqa: PLR2004 - field numbers of the .proto
            (score,) = struct.unpack("<f", value)
        elif field == 3 and isinstance(value, int):  # noqa: PLR2004
            kind = value
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
    """Each field of a protobuf message: its number, and its value or its bytes."""
    place = 0
    while place < len(data):
        tag, place = _varint(data, place)
        field, wire = tag >> 3, tag & 7
        if wire == VARINT:
            value, place = _varint(data, place)
            yield field, value
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
        yield field, data[place : place + length]
        place += length
