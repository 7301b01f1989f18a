"""Byte-level BPE is recognised by what tokenizer.json says, not by a hash of one known vocabulary."""

from __future__ import annotations

from typing import Any

import pytest

from llama_runner.convert.errors import UnknownPreTokenizer
from llama_runner.convert.vocab import pretokenizer as known
from llama_runner.convert.vocab.pretokenizer import recognise
from llama_runner.convert.vocab.tokenizer import Tokenizer

BYTES: dict[str, Any] = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}
GPT2: dict[str, Any] = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
DIGITS: dict[str, Any] = {"type": "Digits", "individual_digits": True}
NFC = {"type": "NFC"}


def split(expression: str, *, removed: bool = False) -> dict[str, Any]:
    behavior = "Removed" if removed else "Isolated"
    return {"type": "Split", "pattern": {"Regex": expression}, "behavior": behavior, "invert": removed}


def tokenizer(
    *steps: dict[str, Any], normalizer: Any = None, ignore_merges: bool = False, base: Any = None
) -> Tokenizer:
    pre = steps[0] if len(steps) == 1 else {"type": "Sequence", "pretokenizers": list(steps)}
    document = {"pre_tokenizer": pre, "normalizer": normalizer}
    return Tokenizer({"ignore_merges": ignore_merges}, document, base or {}, {}, (), clean_up=False)


def raw(expression: str) -> str:
    """The expression with its line ends as characters, as some files have it."""
    return expression.replace(r"\r", "\r").replace(r"\n", "\n")


LETTERS = "\\s?[A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6]+"
FOUND = {
    "llama-bpe": tokenizer(split(known.LLAMA3), BYTES, ignore_merges=True),
    "smaug-bpe": tokenizer(split(known.LLAMA3), BYTES),
    "gpt-2": tokenizer(GPT2),
    "olmo": tokenizer(GPT2, normalizer=NFC),
    "qwen2": tokenizer(split(known.QWEN2), BYTES, normalizer={"type": "Sequence", "normalizers": [NFC]}),
    "stablelm2": tokenizer(split(known.QWEN2), BYTES),
    "qwen35": tokenizer(split(known.QWEN35), BYTES, normalizer=NFC),
    "tekken": tokenizer(split(known.TEKKEN), BYTES, ignore_merges=True),
    "gpt-4o": tokenizer(split(known.GPT4O, removed=True), BYTES),
    "seed-coder": tokenizer(split(raw(known.SEED_CODER)), BYTES),
    "minicpm5": tokenizer(split(known.THREE_DIGITS), split(known.MINICPM5), BYTES),
    "smollm": tokenizer(DIGITS, GPT2),
    "refact": tokenizer(DIGITS, GPT2, base={"<fim_prefix>": 1}),
    "command-r": tokenizer(DIGITS, GPT2, normalizer=NFC),
    "deepseek-v3": tokenizer(
        split(known.THREE_DIGITS), split(known.KANA), split(raw(known.DEEPSEEK3)), BYTES,
        normalizer={"type": "Sequence", "normalizers": []}),
    "deepseek-coder": tokenizer(
        split("[\r\n]"), split(r"\s?\p{L}+"), split(r"\s?\p{P}+"), split(known.CJK), DIGITS, BYTES),
    "deepseek-llm": tokenizer(
        split("[\r\n]"), split(LETTERS), split(known.DEEPSEEK_PUNCTUATION), split(r"\s+$"), split(known.CJK), DIGITS,
        BYTES),
    "viking": tokenizer(split(known.WORDS_BEFORE_PUNCTUATION), DIGITS, BYTES),
    "bloom": tokenizer(split(known.WORDS_BEFORE_PUNCTUATION), BYTES),
}  # fmt: skip


@pytest.mark.parametrize("name", FOUND)
def test_structure_gives_the_name(name: str) -> None:
    assert recognise(FOUND[name]) == name


@pytest.mark.parametrize(
    ("unknown", "nearest"),
    [
        (tokenizer(split(known.TEKKEN + "|x"), BYTES), "tekken"),
        (tokenizer(split(known.LLAMA3), GPT2, ignore_merges=True), "llama-bpe"),
        (tokenizer({**split(known.QWEN2), "behavior": "MergedWithNext"}, BYTES), "qwen2"),
    ],
)
def test_another_structure_is_an_error_that_names_the_nearest(unknown: Tokenizer, nearest: str) -> None:
    with pytest.raises(UnknownPreTokenizer) as caught:
        recognise(unknown)
    assert caught.value.nearest == nearest


def test_no_splitting_at_all_is_an_error() -> None:
    with pytest.raises(UnknownPreTokenizer, match="unknown BPE pre-tokenizer: no splitting"):
        recognise(tokenizer(BYTES))
