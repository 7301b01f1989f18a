"""Byte-level BPE vocabularies (GPT-2, Llama 3, Qwen, …) from tokenizer.json; collects WordPiece's tokens as well."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llama_runner.convert.errors import NoSuchPreTokenizer, TooManyTokens, UnsupportedOption
from llama_runner.convert.vocab import Vocabulary, encoding, special
from llama_runner.convert.vocab.known import NAMES
from llama_runner.convert.vocab.pretokenizer import recognise
from llama_runner.convert.vocab.token_types import NORMAL, UNUSED, added_token

if TYPE_CHECKING:
    from llama_runner.convert.config import Config
    from llama_runner.convert.keyvalues import KeyValues
    from llama_runner.convert.source import Source
    from llama_runner.convert.vocab.tokenizer import Tokenizer


def write(values: KeyValues, config: Config, source: Source, tokenizer: Tokenizer) -> Vocabulary:
    """Write tokens, types and merges of a byte-level BPE tokenizer."""
    if tokenizer.model.get("type", "BPE") != "BPE":
        raise UnsupportedOption("the tokenizer's model", tokenizer.model.get("type"))
    tokens, types = collect(tokenizer, config)
    values.string("tokenizer.ggml.model", "gpt2")
    values.string("tokenizer.ggml.pre", pre_tokenizer(source, tokenizer))
    values.strings("tokenizer.ggml.tokens", tokens)
    values.integers("tokenizer.ggml.token_type", types)
    special.write(values, source, merges=True)
    return Vocabulary("bpe", len(tokens))


def pre_tokenizer(source: Source, tokenizer: Tokenizer) -> str:
    """llama.cpp's name for how a tokenizer splits text: said by the user, or by the official hash, or by structure.

    Raises `UnknownPreTokenizer` where nobody knows, `NoSuchPreTokenizer` where llama.cpp does not know what was said.
    """
    if (said := source.pre_tokenizer) is None:
        return encoding.name_of(tokenizer) or recognise(tokenizer)
    if said not in NAMES:
        raise NoSuchPreTokenizer(said, NAMES)
    return said


def collect(tokenizer: Tokenizer, config: Config) -> tuple[list[str], list[int]]:
    """The text and type of each token, padded to the size that config.json gives."""
    known = tokenizer.numbered()
    size = config.integer("vocab_size")
    if max(known, default=0) >= size:
        raise TooManyTokens(max(known) + 1, size)
    tokens, types = [f"[PAD{number}]" for number in range(size)], [UNUSED] * size
    for number, text in known.items():
        tokens[number], types[number] = text, NORMAL
    for number, token in tokenizer.added.items():
        shown = token.content if token.normalized else tokenizer.shown(token)
        tokens[number], types[number] = added_token(shown, special=token.special)
    return tokens, types
