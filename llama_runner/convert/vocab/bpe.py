"""Writes byte-level BPE vocabularies (GPT-2, Llama 3, Qwen, …) of tokenizer.json; also collects WordPiece's tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llama_runner.convert.errors import NO_WAY, BadVocabulary, NoSuchPreTokenizer, TooManyTokens, UnsupportedOption
from llama_runner.convert.vocab import Vocabulary, pre_tokenizer_of_bpe, special_tokens
from llama_runner.convert.vocab.pretokenizer_names import NAMES
from llama_runner.convert.vocab.recognise_pretokenizer import NO_BYTES, NOT_BYTES, recognise, steps_of, unknown
from llama_runner.convert.vocab.token_types import NORMAL, UNUSED, added_token

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llama_runner.convert.gguf_metadata import KeyValues
    from llama_runner.convert.model_config import Config
    from llama_runner.convert.model_directory import ModelDirectory
    from llama_runner.convert.vocab.tokenizer import Tokenizer

ADD_BOS = "tokenizer.ggml.add_bos_token"
# Names for which llama.cpp puts BOS first unless told not to.
PUT_BOS = frozenset({
    "llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "jina-v5-nano",
    "tekken", "chameleon",
})  # fmt: skip


def write(
    values: KeyValues,
    config: Config,
    source: ModelDirectory,
    tokenizer: Tokenizer,
    *,
    preset: Mapping[str, int] | None = None,
) -> Vocabulary:
    """Write tokens, types and merges of a byte-level BPE; special tokens in files override ``preset``."""
    if tokenizer.model.get("type", "BPE") != "BPE":
        raise UnsupportedOption("the tokenizer's model", tokenizer.model.get("type"), hint=NO_WAY)
    tokens, types = collect(tokenizer, config)
    check_merges(tokenizer)
    name = pre_tokenizer(source, tokenizer)
    values.string("tokenizer.ggml.model", "gpt2")
    values.string("tokenizer.ggml.pre", name)
    values.strings("tokenizer.ggml.tokens", tokens)
    values.integers("tokenizer.ggml.token_type", types)
    special_tokens.write(values, source, merges=True, preset=preset)
    if name in PUT_BOS and ADD_BOS not in values and not begins_with_special(tokenizer):
        values.boolean(ADD_BOS, value=False)
    return Vocabulary("bpe", len(tokens))


def begins_with_special(tokenizer: Tokenizer) -> bool:
    """Return whether the tokenizer adds a special token, such as BOS, before a text."""
    return _begins_with_special(tokenizer.document.get("post_processor"))


def _begins_with_special(processor: object) -> bool:
    if not isinstance(processor, dict):
        return False
    if processor.get("type") == "Sequence":
        return any(map(_begins_with_special, processor.get("processors") or ()))
    if processor.get("type") == "TemplateProcessing":
        single = processor.get("single") or [{}]
        return "SpecialToken" in single[0]
    return processor.get("type") in ("RobertaProcessing", "BertProcessing")


def pre_tokenizer(source: ModelDirectory, tokenizer: Tokenizer) -> str:
    """Return llama.cpp's name of the pre-tokenizer: given by the user, by the official hash, or by structure.

    Raises `UnknownPreTokenizer` if none of them gives a name, `NoSuchPreTokenizer` if llama.cpp has no such name.
    """
    return given_name(source, tokenizer) or recognise(tokenizer)


def given_name(source: ModelDirectory, tokenizer: Tokenizer) -> str | None:
    """Return the name given by the user or by the official table, None if there is neither.

    Raises `NoSuchPreTokenizer`, and `UnknownPreTokenizer` for a vocabulary that is not of bytes and a name for bytes.
    """
    if (said := source.pre_tokenizer) is None:
        known = pre_tokenizer_of_bpe.name_of(tokenizer)
        is_first_llama3 = known == "smaug-bpe" and bool(tokenizer.model.get("ignore_merges"))
        return "llama-bpe" if is_first_llama3 else known  # both have the hash of smaug-bpe, which takes no whole words
    if said not in NAMES:
        raise NoSuchPreTokenizer(said, NAMES)
    if said not in NOT_BYTES and NO_BYTES in steps_of(tokenizer):
        raise unknown(tokenizer)
    return said


def check_merges(tokenizer: Tokenizer) -> None:
    """Raise `BadVocabulary` for a merge of, or to, an absent token, as the tokenizers library does."""
    base = tokenizer.base
    for merge in tokenizer.model.get("merges") or []:
        parts = merge.split(" ") if isinstance(merge, str) else merge
        if len(parts) != 2 or parts[0] not in base or parts[1] not in base or "".join(parts) not in base:  # noqa: PLR2004
            raise BadVocabulary(f"the merge {merge!r} does not join two known tokens to a known one")


def collect(tokenizer: Tokenizer, config: Config) -> tuple[list[str], list[int]]:
    """Return text and type of each token, padded to the size in config.json."""
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
