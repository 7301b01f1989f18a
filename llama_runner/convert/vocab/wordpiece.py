"""Writes WordPiece vocabularies, as BERT has them.

llama.cpp marks the beginning of a word where WordPiece marks its continuation, so ``##ing`` becomes ``ing``
and ``go`` becomes ``\u2581go``; control tokens stay as they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llama_runner.convert.errors import NO_WAY, UnsupportedOption
from llama_runner.convert.vocab import Vocabulary, pre_tokenizer_of_wordpiece, special_tokens
from llama_runner.convert.vocab.bpe import collect
from llama_runner.convert.vocab.token_types import CONTROL, SPACE_MARK
from llama_runner.convert.vocab.tokenizer import Tokenizer

if TYPE_CHECKING:
    from llama_runner.convert.gguf_metadata import KeyValues
    from llama_runner.convert.model_config import Config
    from llama_runner.convert.model_directory import ModelDirectory

CONTINUATION = "##"
# Numbers that llama.cpp takes for WordPiece where a file has none: by key, the attribute of the tokenizer.
ASSUMED = {
    "bos_token_id": (101, "cls_token"),
    "seperator_token_id": (102, "sep_token"),
    "unknown_token_id": (100, "unk_token"),
    "padding_token_id": (0, "pad_token"),
    "mask_token_id": (103, "mask_token"),
}
IDEOGRAPHS = "llama.cpp makes a word of each Chinese character, the tokenizer does not"


def write(values: KeyValues, config: Config, source: ModelDirectory) -> Vocabulary:
    """Write the vocabulary of tokenizer.json if present, else of vocab.txt."""
    tokenizer = Tokenizer.load(source, config)
    if tokenizer.model.get("type") != "WordPiece":
        raise UnsupportedOption("the tokenizer's model", tokenizer.model.get("type"), hint=NO_WAY)
    tokens, types = collect(tokenizer, config)
    values.uint32("tokenizer.ggml.token_type_count", config.find("type_vocab_size"))
    values.string("tokenizer.ggml.model", "bert")
    values.string("tokenizer.ggml.pre", pre_tokenizer_of_wordpiece.name_of(tokenizer))
    values.strings("tokenizer.ggml.tokens", [_marked(*pair) for pair in zip(tokens, types, strict=True)])
    values.integers("tokenizer.ggml.token_type", types)
    normalizer = dict(tokenizer.document.get("normalizer") or {})
    if not source.has("tokenizer.json") and normalizer.get("lowercase"):
        del normalizer["lowercase"]  # as llama.cpp assumes
    special_tokens.write(values, source, size=len(tokens), normalizer=normalizer)
    _complete(values, tokenizer)
    differences = (IDEOGRAPHS,) if normalizer.get("handle_chinese_chars") is False else ()
    return Vocabulary("wordpiece", len(tokens), differences)


def _complete(values: KeyValues, tokenizer: Tokenizer) -> None:
    """Write special tokens that only the vocabulary numbers, if llama.cpp's defaults differ."""
    numbers = {text: number for number, text in tokenizer.numbered().items()}
    texts = {**tokenizer.named, **_put_around(tokenizer.document.get("post_processor"))}
    if isinstance(unknown := tokenizer.model.get("unk_token"), str):
        texts["unk_token"] = unknown
    for name, (assumed, attribute) in ASSUMED.items():
        number = numbers.get(texts.get(attribute, ""))
        key = f"tokenizer.ggml.{name}"
        if number not in (None, assumed) and key not in values:
            values.uint32(key, number)


def _put_around(processor: object) -> dict[str, str]:
    """Return the tokens that a post-processor adds before and after a text."""
    if not isinstance(processor, dict):
        return {}
    if processor.get("type") == "BertProcessing":
        return {"cls_token": processor["cls"][0], "sep_token": processor["sep"][0]}
    single = processor.get("single") or [{}]
    ends = {"cls_token": single[0].get("SpecialToken"), "sep_token": single[-1].get("SpecialToken")}
    return {name: entry["id"] for name, entry in ends.items() if entry}


def _marked(token: str, kind: int) -> str:
    if kind == CONTROL:
        return token
    return token.removeprefix(CONTINUATION) if token.startswith(CONTINUATION) else SPACE_MARK + token
