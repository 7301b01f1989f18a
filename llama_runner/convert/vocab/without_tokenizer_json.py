"""Converts vocabularies without tokenizer.json to one, as transformers does.

GPT-2 and its likes have vocab.json and merges.txt, WordPiece has vocab.txt. Other classes cannot be loaded without
tokenizer.json by transformers either.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_runner.convert.errors import MissingFile
from llama_runner.convert.vocab.pretokenizer_expressions import QWEN2

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llama_runner.convert.model_directory import ModelDirectory

BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
PLAIN: Mapping[str, Any] = {"pre_tokenizer": BYTES, "post_processor": {"type": "ByteLevel"}}
SPLIT = {"type": "Split", "pattern": {"Regex": QWEN2}, "behavior": "Isolated", "invert": False}
QWEN: Mapping[str, Any] = {
    "normalizer": {"type": "NFC"},
    "pre_tokenizer": {"type": "Sequence", "pretokenizers": [SPLIT, {**BYTES, "use_regex": False}]},
    "post_processor": {"type": "ByteLevel"},
}
STEPS = {"GPT2Tokenizer": PLAIN, "CodeGenTokenizer": PLAIN, "Qwen2Tokenizer": QWEN}


def tokenizer_document(source: ModelDirectory, own_class: str) -> dict[str, Any]:
    """Return the contents of the equivalent tokenizer.json; raises `MissingFile`."""
    if own_class in STEPS and source.has("vocab.json"):
        return _from_merges(source, own_class)
    if source.has("vocab.txt"):
        return _from_word_list(source)
    raise MissingFile(source.path("tokenizer.json"), purpose="the vocabulary")


def _from_merges(source: ModelDirectory, own_class: str) -> dict[str, Any]:
    if not source.has("merges.txt"):
        raise MissingFile(source.path("merges.txt"), purpose="the vocabulary, as vocab.json is there")
    vocabulary = source.object("vocab.json", purpose="the vocabulary")
    lines = source.text("merges.txt").split("\n")
    if lines[0].startswith("#version:"):
        del lines[0]
    return {
        "model": {"type": "BPE", "vocab": vocabulary, "merges": [line.split() for line in lines if line.strip()]},
        "decoder": {"type": "ByteLevel"},
        **STEPS[own_class],
    }


def _from_word_list(source: ModelDirectory) -> dict[str, Any]:
    """Read vocab.txt, one token per line."""
    lines = source.text("vocab.txt").split("\n")
    if lines and not lines[-1]:
        del lines[-1]
    base = {token: number for number, token in enumerate(lines)}
    return {
        "model": {"type": "WordPiece", "vocab": base},
        "normalizer": {"type": "BertNormalizer"},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "decoder": {"type": "WordPiece", "cleanup": True},
    }
