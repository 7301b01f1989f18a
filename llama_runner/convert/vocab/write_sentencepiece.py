"""Writes SentencePiece BPE vocabularies of tokenizer.model; `byte_fallback` writes those of tokenizer.json."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from llama_runner.convert.errors import BadVocabulary
from llama_runner.convert.vocab import Vocabulary, sentencepiece_model_file, special_tokens
from llama_runner.convert.vocab.token_types import NORMAL, UNUSED, USER_DEFINED, added_token

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from llama_runner.convert.gguf_metadata import KeyValues
    from llama_runner.convert.model_config import Config
    from llama_runner.convert.model_directory import ModelDirectory

PADDING_SCORE = -10000.0
ADDED_SCORE = -1000.0


@dataclass
class SentencePieceToken:
    """Token of the output."""

    text: str
    score: float
    kind: int


def write(values: KeyValues, config: Config, source: ModelDirectory) -> Vocabulary:
    """Write the vocabulary of tokenizer.model, padded or cut to the size in config.json."""
    pieces = sentencepiece_model_file.read(source.path("tokenizer.model")).pieces
    tokens = padded(pieces, config.integer("vocab_size") if config.find("vocab_size") else len(pieces))
    add_named(tokens, source)
    listed = source.optional_object("tokenizer_config.json").get("added_tokens_decoder") or {}
    for key, entry in listed.items():
        if not key.isdecimal() or not isinstance(entry, dict) or not isinstance(entry.get("content"), str):
            raise BadVocabulary(f"tokenizer_config.json lists {key!r} as an added token: {entry!r}")
        if (number := int(key)) < len(tokens):
            text, kind = added_token(entry["content"], special=bool(entry.get("special")))
            tokens[number] = SentencePieceToken(text, ADDED_SCORE, kind)
    compare(tokens, source)
    write_tokens(values, source, tokens)
    return Vocabulary("sentencepiece", len(tokens))


def compare(tokens: Sequence[SentencePieceToken], source: ModelDirectory, *, name: str = "tokenizer.model") -> None:
    """Raise `BadVocabulary` if tokenizer.json, which transformers reads, has another vocabulary.

    Tokens that were added to either, bytes and control tokens are not compared.
    """
    document = source.optional_object("tokenizer.json")
    texts = _base(document.get("model"))
    if not texts:
        return
    listed = document.get("added_tokens")
    added = {entry.get("content") for entry in listed if isinstance(entry, dict)} if isinstance(listed, list) else set()
    for number, token in enumerate(tokens):
        other = texts.get(number)
        if other == token.text or other in added:
            continue
        if token.kind == NORMAL and token.text not in added:
            said = "missing" if other is None else repr(other)
        elif token.kind == UNUSED and token.text == f"[PAD{number}]" and other is not None:
            said = repr(other)
        else:
            continue
        mine = "missing" if token.kind == UNUSED else repr(token.text)
        raise BadVocabulary(
            f"token {number} is {mine} in {name} and {said} in tokenizer.json",
            hint="one of the two files is another model's; remove that one, or fetch both again",
        )


def _base(model: object) -> dict[int, str]:
    """Return the trained tokens of tokenizer.json; empty for another kind."""
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    if isinstance(vocabulary, dict):
        return {number: text for text, number in vocabulary.items()}
    if isinstance(vocabulary, list):
        return {number: entry[0] for number, entry in enumerate(vocabulary) if isinstance(entry, list) and entry}
    return {}


def padded(pieces: Iterable[tuple[str, float, int]], size: int) -> list[SentencePieceToken]:
    """Return pieces as tokens, padded or cut to a size; user-defined pieces count as normal."""
    tokens = [
        SentencePieceToken(text, score, NORMAL if kind == USER_DEFINED else kind) for text, score, kind in pieces
    ][:size]
    return tokens + [SentencePieceToken(f"[PAD{number}]", PADDING_SCORE, UNUSED) for number in range(len(tokens), size)]


def add_named(tokens: list[SentencePieceToken], source: ModelDirectory) -> None:
    """Insert the tokens of added_tokens.json; those beyond the vocabulary are left out."""
    for text, number in source.optional_object("added_tokens.json").items():
        if type(number) is not int or number < 0:
            raise BadVocabulary(f"added_tokens.json gives {text!r} the number {number!r}")
        if number < len(tokens):
            tokens[number] = SentencePieceToken(text, ADDED_SCORE, USER_DEFINED)


def write_tokens(values: KeyValues, source: ModelDirectory, tokens: list[SentencePieceToken]) -> None:
    """Write tokens of llama.cpp's kind ``llama``, and the special tokens."""
    values.string("tokenizer.ggml.model", "llama")
    values.string("tokenizer.ggml.pre", "default")
    values.strings("tokenizer.ggml.tokens", [token.text for token in tokens])
    values.floats("tokenizer.ggml.scores", [token.score for token in tokens])
    values.integers("tokenizer.ggml.token_type", [token.kind for token in tokens])
    special_tokens.write(values, source, size=len(tokens))
