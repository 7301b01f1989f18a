"""Writes unigram vocabularies: T5's from a SentencePiece model, XLM-RoBERTa's from one or from tokenizer.json.

llama.cpp calls both ``t5``, and normalizes text by the table that SentencePiece compiled into the model.
"""

from __future__ import annotations

import binascii
from base64 import b64decode
from typing import TYPE_CHECKING

from llama_runner.convert.errors import NO_WAY, BadVocabulary, MissingFile, TooManyTokens, UnsupportedOption
from llama_runner.convert.vocab import Vocabulary, sentencepiece_model_file, special_tokens, write_sentencepiece
from llama_runner.convert.vocab.token_types import CONTROL, NORMAL, UNKNOWN, USER_DEFINED
from llama_runner.convert.vocab.tokenizer import Tokenizer
from llama_runner.convert.vocab.write_sentencepiece import SentencePieceToken

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from llama_runner.convert.gguf_metadata import KeyValues
    from llama_runner.convert.model_config import Config
    from llama_runner.convert.model_directory import ModelDirectory

UNKNOWN_PIECE = 3  # the number that the official script takes where tokenizer.json names none
# fairseq put its own tokens first, so XLM-RoBERTa's numbers are SentencePiece's plus one, without the last
REALIGNED = (("<s>", CONTROL), ("<pad>", CONTROL), ("</s>", CONTROL), ("<unk>", UNKNOWN))


def write_t5(values: KeyValues, config: Config, source: ModelDirectory) -> Vocabulary:
    """Write the vocabulary of tokenizer.model or spiece.model; `sentencepiece` writes one of the BPE kind."""
    path = next((source.path(name) for name in ("tokenizer.model", "spiece.model") if source.has(name)), None)
    if path is None:
        raise MissingFile(source.path("spiece.model"), purpose="the vocabulary")
    model = sentencepiece_model_file.read(path)
    if model.kind == sentencepiece_model_file.BPE and path.name == "tokenizer.model":
        return write_sentencepiece.write(values, config, source)
    if model.kind != sentencepiece_model_file.UNIGRAM:
        raise UnsupportedOption(f"the model type in {path.name}", model.kind, hint=NO_WAY)
    tokens = write_sentencepiece.padded(model.pieces, _size_limit(config, len(model.pieces)))
    write_sentencepiece.add_named(tokens, source)
    write_sentencepiece.compare(tokens, source, name=path.name)
    _write(values, tokens, prefix=model.add_dummy_prefix)
    _write_normalization(values, source, tokens, clean=model.remove_extra_whitespaces, charsmap=model.charsmap)
    return Vocabulary("unigram", len(tokens))


def write_xlm_roberta(
    values: KeyValues, config: Config, source: ModelDirectory, *, masks: Mapping[int, str] | None = None
) -> Vocabulary:
    """Write the vocabulary of sentencepiece.bpe.model if present, else of tokenizer.json.

    ``masks`` are tokens that the SentencePiece model lacks, by number (NomicBERT's mixture has ``<mask>`` at 250001).
    """
    path = source.path("sentencepiece.bpe.model")
    if not path.is_file():
        return _write_fast(values, config, source)
    model = sentencepiece_model_file.read(path)
    if model.kind != sentencepiece_model_file.UNIGRAM:
        raise UnsupportedOption(f"the model type in {path.name}", model.kind, hint=NO_WAY)
    tokens = write_sentencepiece.padded(model.pieces, _size_limit(config, len(model.pieces)))
    tokens = [*(SentencePieceToken(text, 0.0, kind) for text, kind in REALIGNED), *tokens[3:-1]]
    for number, text in (masks or {}).items():
        if number >= len(tokens):
            raise BadVocabulary(f"{text} is expected to have the number {number}, there are {len(tokens)} tokens")
        tokens[number] = SentencePieceToken(text, 0.0, CONTROL)
    _write(values, tokens, prefix=model.add_dummy_prefix)
    values.uint32("tokenizer.ggml.token_type_count", _types(config))
    _write_normalization(values, source, tokens, clean=model.remove_extra_whitespaces, charsmap=model.charsmap)
    return Vocabulary("unigram", len(tokens))


def _write_fast(values: KeyValues, config: Config, source: ModelDirectory) -> Vocabulary:
    tokenizer = Tokenizer.load(source, config)
    if tokenizer.model.get("type") != "Unigram":
        raise UnsupportedOption("the tokenizer's model", tokenizer.model.get("type"), hint=NO_WAY)
    settings = source.optional_object("tokenizer_config.json")
    tokens = write_sentencepiece.padded(_fast_pieces(tokenizer, settings), _size_limit(config, len(tokenizer.base)))
    for number, token in enumerate(tokens):
        token.kind = USER_DEFINED if token.kind == NORMAL and number in tokenizer.added else token.kind
    _write(values, tokens, prefix=bool(settings.get("add_prefix_space", False)))
    values.uint32("tokenizer.ggml.token_type_count", _types(config))
    charsmap = _charsmap(tokenizer.document.get("normalizer"))
    _write_normalization(values, source, tokens, clean=tokenizer.clean_up, charsmap=charsmap)
    return Vocabulary("unigram", len(tokens))


def _fast_pieces(tokenizer: Tokenizer, settings: Mapping[str, Any]) -> list[tuple[str, float, int]]:
    texts = tokenizer.numbered()
    numbers = {text: number for number, text in texts.items()}
    added = {token.content: number for number, token in tokenizer.added.items()}
    unknown = settings.get("unk_token")
    unknown = unknown.get("content") if isinstance(unknown, dict) else unknown
    unknown_number = added.get(str(unknown), tokenizer.model.get("unk_id", UNKNOWN_PIECE))
    specials = {numbers[text] for text in tokenizer.specials if text in numbers}
    pieces = []
    for number, (_, score) in enumerate(tokenizer.model["vocab"]):
        kind = UNKNOWN if number == unknown_number else CONTROL if number in specials else NORMAL
        pieces.append((texts[number], float(score), kind))
    return pieces


def _charsmap(normalizer: object) -> bytes:
    encoded = normalizer.get("precompiled_charsmap") if isinstance(normalizer, dict) else None
    if not isinstance(encoded, str):
        raise UnsupportedOption("the normalizer in tokenizer.json", normalizer, hint=NO_WAY)
    try:
        return b64decode(encoded)
    except binascii.Error as error:
        raise BadVocabulary(f"the normalizer in tokenizer.json is not base64 ({error})") from error


def _size_limit(config: Config, pieces: int) -> int:
    size = config.integer("vocab_size") if config.find("vocab_size") is not None else pieces
    if pieces > size:
        raise TooManyTokens(pieces, size)
    return size


def _types(config: Config) -> object:
    found = config.find("type_vocab_size")
    return 1 if found is None else found


def _write(values: KeyValues, tokens: list[SentencePieceToken], *, prefix: bool) -> None:
    values.string("tokenizer.ggml.model", "t5")
    values.string("tokenizer.ggml.pre", "default")
    values.strings("tokenizer.ggml.tokens", [token.text for token in tokens])
    values.floats("tokenizer.ggml.scores", [token.score for token in tokens])
    values.integers("tokenizer.ggml.token_type", [token.kind for token in tokens])
    values.boolean("tokenizer.ggml.add_space_prefix", prefix)


def _write_normalization(
    values: KeyValues, source: ModelDirectory, tokens: list[SentencePieceToken], *, clean: bool, charsmap: bytes
) -> None:
    values.boolean("tokenizer.ggml.remove_extra_whitespaces", clean)
    values.octets("tokenizer.ggml.precompiled_charsmap", charsmap)
    special_tokens.write(values, source, size=len(tokens))
