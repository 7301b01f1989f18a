"""Finds the official name of a byte-level BPE by hashing an encoded sample text, as the official script does.

The sample is encoded here as the tokenizers library encodes it: added tokens first, then NFC, the pre-tokenizer, the
merges, the post-processor. What is not known here, or is not in the table, has no official name (`name_of` gives
None), and the structure of tokenizer.json decides.
"""

from __future__ import annotations

import heapq
import re
import unicodedata
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from llama_runner.convert.vocab.apply_pretokenizer import Splitter, UnsupportedPreTokenizer
from llama_runner.convert.vocab.pre_tokenizer_of_wordpiece import SAMPLE
from llama_runner.convert.vocab.pretokenizer_names import HASHES
from llama_runner.core.short_sha256 import sha256

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from llama_runner.convert.vocab.tokenizer import AddedToken, Tokenizer


def name_of(tokenizer: Tokenizer) -> str | None:
    """Return the name in the official table; None if it is not listed or cannot be encoded here."""
    try:
        numbers = encode(tokenizer, SAMPLE)
    except (UnsupportedPreTokenizer, KeyError, TypeError, ValueError, AttributeError, IndexError):
        return None  # a broken tokenizer.json is found by those who write it
    return HASHES.get(sha256(str(numbers).encode()).hexdigest())


def encode(tokenizer: Tokenizer, text: str) -> list[int]:
    """Return the numbers of a text's tokens, with those of the post-processor; raises `UnsupportedPreTokenizer`."""
    splitter = Splitter(text)
    merges = _Merges(tokenizer)
    numbers: list[int] = []
    exact = {n: token for n, token in tokenizer.added.items() if not token.normalized}
    loose = {n: token for n, token in tokenizer.added.items() if token.normalized}
    for part in _cut(text, exact):
        if isinstance(part, int):
            numbers.append(part)
            continue
        for piece in _cut(_normalized(part, tokenizer.document.get("normalizer")), loose):
            if isinstance(piece, int):
                numbers.append(piece)
            else:
                words = splitter.split([piece], tokenizer.document.get("pre_tokenizer"))
                numbers += [number for word in words for number in merges.numbers(word)]
    return _processed(numbers, tokenizer.document.get("post_processor"))


def _cut(text: str, added: Mapping[int, AddedToken]) -> Iterator[str | int]:
    """Yield the text between added tokens, and the numbers of these tokens."""
    present = {token.content: (number, token) for number, token in added.items() if token.content in text}
    if any(token.lstrip or token.rstrip or token.single_word for _, token in present.values()):
        raise UnsupportedPreTokenizer
    if not present:
        yield text
        return
    longest_first = sorted(present, key=len, reverse=True)
    for part in re.split("(" + "|".join(map(re.escape, longest_first)) + ")", text):
        if part:
            yield present[part][0] if part in present else part


def _normalized(text: str, normalizer: object) -> str:
    if normalizer is None:
        return text
    if isinstance(normalizer, dict) and normalizer.get("type") == "NFC":
        return unicodedata.normalize("NFC", text)
    if isinstance(normalizer, dict) and normalizer.get("type") == "Sequence":
        for part in normalizer.get("normalizers") or []:
            text = _normalized(text, part)
        return text
    raise UnsupportedPreTokenizer


class _Merges:
    """Joins the characters of a word by the merges of highest rank."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        model = tokenizer.model
        if model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
            raise UnsupportedPreTokenizer
        self._base = tokenizer.base
        self._whole_words = bool(model.get("ignore_merges"))
        pairs = (merge.split(" ") if isinstance(merge, str) else merge for merge in model.get("merges") or [])
        self._ranks = {(left, right): rank for rank, (left, right) in enumerate(pairs)}

    def numbers(self, word: str) -> list[int]:
        if self._whole_words and word in self._base:
            return [self._base[word]]
        if missing := set(word) - self._base.keys():
            raise UnsupportedPreTokenizer(missing)
        return [self._base[part] for part in self._joined(list(word))]

    def _joined(self, parts: list[str]) -> list[str]:
        after = [*range(1, len(parts)), -1]
        before = [-1, *range(len(parts) - 1)]
        pairs = enumerate(pairwise(parts))
        waiting = [(self._ranks[pair], at, pair) for at, pair in pairs if pair in self._ranks]
        heapq.heapify(waiting)
        while waiting:
            _, at, (left, right) = heapq.heappop(waiting)
            follower = after[at]
            if parts[at] != left or follower < 0 or parts[follower] != right:
                continue
            parts[at], parts[follower] = left + right, ""
            after[at] = after[follower]
            if after[at] >= 0:
                before[after[at]] = at
            for first, second in ((before[at], at), (at, after[at])):
                if first >= 0 <= second and (pair := (parts[first], parts[second])) in self._ranks:
                    heapq.heappush(waiting, (self._ranks[pair], first, pair))
        return [part for part in parts if part]


def _processed(numbers: Sequence[int], processor: object) -> list[int]:
    """Return the numbers with the tokens that the post-processor adds around a text."""
    if processor is None:
        return list(numbers)
    if not isinstance(processor, dict):
        raise UnsupportedPreTokenizer
    kind = processor.get("type")
    if kind == "ByteLevel":
        return list(numbers)
    if kind == "Sequence":
        for part in processor.get("processors") or []:
            numbers = _processed(numbers, part)
        return list(numbers)
    if kind in ("RobertaProcessing", "BertProcessing"):
        return [processor["cls"][1], *numbers, processor["sep"][1]]
    if kind == "TemplateProcessing":
        return _templated(numbers, processor)
    raise UnsupportedPreTokenizer


def _templated(numbers: Sequence[int], processor: Mapping[str, Any]) -> list[int]:
    result: list[int] = []
    for entry in processor["single"]:
        if "Sequence" in entry:
            result += numbers
        else:
            result += processor["special_tokens"][entry["SpecialToken"]["id"]]["ids"]
    return result
