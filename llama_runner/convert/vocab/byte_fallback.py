"""Writes SentencePiece BPE vocabularies in the form of a tokenizer.json with byte fallback.

tokenizer.json has merges in their order where SentencePiece has a score for each token. BPE joins the two neighbours
whose merge comes first; llama.cpp's SentencePiece tokenizer (src/llama-vocab.cpp) joins the two whose token has the
highest score, whichever two they are. A token's score is therefore minus the place of the first merge that makes it.
Both then give the same, since tokenizer.json lists every pair of tokens that makes a token, and all pairs that make the
same token together, if it was converted from a SentencePiece model. `_differences` says what is not the same.

The official script writes -1000 for every token and no ``add_space_prefix``, and pads nothing.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from llama_runner.convert.errors import BadVocabulary, TooManyTokens, UnsupportedOption
from llama_runner.convert.vocab import Vocabulary, bpe, write_sentencepiece
from llama_runner.convert.vocab.token_types import BYTE, CONTROL, NORMAL, SPACE_MARK, UNUSED, USER_DEFINED
from llama_runner.convert.vocab.write_sentencepiece import PADDING_SCORE, SentencePieceToken

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from llama_runner.convert.gguf_metadata import KeyValues
    from llama_runner.convert.model_config import Config
    from llama_runner.convert.model_directory import ModelDirectory
    from llama_runner.convert.vocab.tokenizer import Tokenizer

Merge = tuple[str, str]
BYTE_TOKEN = re.compile(r"<0x[0-9A-Fa-f]{2}>")
SPACE_PREFIX = "tokenizer.ggml.add_space_prefix"
NORMAL_FORMS = frozenset({"NFC", "NFD", "NFKC", "NFKD", "Nmt", "Precompiled"})
HINT = "use a repository that has tokenizer.model, or a GGUF file that its makers publish"
AFTER_SPECIAL = "llama.cpp puts a space before text after a special token, the tokenizer only before the first text"
BEFORE_SPACE = "llama.cpp puts a space before text that begins with one, the tokenizer does not"
NOT_NORMALIZED = "llama.cpp does not normalize text, the tokenizer does ({})"
OTHER_PAIRS = "llama.cpp joins {!r} and {!r}, the tokenizer has no such merge (and {} more)"
OTHER_ORDER = "llama.cpp joins all pairs that make {!r} at once, the tokenizer has other merges between (and {} more)"


def write(values: KeyValues, config: Config, source: ModelDirectory, tokenizer: Tokenizer) -> Vocabulary:
    """Write the vocabulary, padded to ``vocab_size``."""
    bpe.check_merges(tokenizer)
    merges = [_pair(merge) for merge in tokenizer.model.get("merges") or []]
    tokens = _tokens(tokenizer, merges, config.integer("vocab_size"))
    prefix, differences = _spaces(tokenizer.document, merges)
    if not prefix or SPACE_PREFIX in values:
        values.boolean(SPACE_PREFIX, prefix)
    write_sentencepiece.write_tokens(values, source, tokens)
    if bpe.ADD_BOS not in values and not bpe.begins_with_special(tokenizer):
        values.boolean(bpe.ADD_BOS, value=False)  # which llama.cpp puts first unless told not to
    return Vocabulary("byte-fallback", len(tokens), (*differences, *_differences(tokenizer, merges)))


def _pair(merge: str | Sequence[str]) -> Merge:
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return left, right


def _tokens(tokenizer: Tokenizer, merges: list[Merge], room: int) -> list[SentencePieceToken]:
    texts = tokenizer.numbered()
    for number in range(len(tokenizer.base)):
        if number not in texts:
            raise BadVocabulary(f"tokenizer.json has {len(tokenizer.base)} tokens, but none with the number {number}")
    if (count := max(texts, default=-1) + 1) > room:
        raise TooManyTokens(count, room)
    scores: dict[str, float] = {}
    for rank, (left, right) in enumerate(merges):
        scores.setdefault(left + right, float(-rank))
    last = float(-len(merges))  # of tokens that no merge makes
    tokens = [SentencePieceToken(f"[PAD{number}]", min(last, PADDING_SCORE), UNUSED) for number in range(room)]
    for number, text in texts.items():
        shown, kind = _typed(tokenizer, number, text)
        tokens[number] = SentencePieceToken(shown, scores.get(text, last), kind)
    return tokens


def _typed(tokenizer: Tokenizer, number: int, text: str) -> tuple[str, int]:
    """Return text and type of a token; tokens found before merging have a type of their own."""
    added = tokenizer.added.get(number)
    if BYTE_TOKEN.fullmatch(text) and number < len(tokenizer.base):
        return text, BYTE
    if added is None:
        return text, CONTROL if text in tokenizer.specials else NORMAL
    if added.special or text in tokenizer.specials:
        return text, CONTROL
    return text.replace(SPACE_MARK, " ") if added.normalized else text, USER_DEFINED


def _spaces(document: Mapping[str, Any], merges: list[Merge]) -> tuple[bool, list[str]]:
    """Return whether a space is added before a text, and the differences of llama.cpp; raises `UnsupportedOption`."""
    prefix, differences = False, []
    for step in _steps(document.get("normalizer"), "normalizers"):
        kind = step.get("type")
        if kind == "Prepend" and step.get("prepend") == SPACE_MARK:
            prefix = True
        elif kind in NORMAL_FORMS:
            differences.append(NOT_NORMALIZED.format(kind))
        elif kind != "Replace" or step.get("pattern") != {"String": " "} or step.get("content") != SPACE_MARK:
            raise UnsupportedOption("the normalizer in tokenizer.json", document["normalizer"], hint=HINT)
    for step in _steps(document.get("pre_tokenizer"), "pretokenizers"):
        if step.get("type") == "Metaspace" and not _is_split(step, merges):
            scheme = step.get("prepend_scheme", "always" if step.get("add_prefix_space", True) else "never")
            if scheme != "never":
                prefix = True
                differences += [BEFORE_SPACE, *([AFTER_SPECIAL] if scheme == "first" else [])]
        elif step.get("type") != "Split" or step.get("pattern") != {"String": " "}:  # there are no spaces any more
            raise UnsupportedOption("the pre-tokenizer in tokenizer.json", document["pre_tokenizer"], hint=HINT)
    return prefix, differences


def _is_split(step: Mapping[str, Any], merges: list[Merge]) -> bool:
    """Return whether a text is split at spaces that merges would join."""
    return bool(step.get("split", True)) and any(SPACE_MARK in (left + right)[1:] for left, right in merges)


def _steps(step: object, parts: str) -> Iterator[Mapping[str, Any]]:
    if isinstance(step, dict) and step.get("type") == "Sequence":
        for part in step.get(parts) or ():
            yield from _steps(part, parts)
    elif isinstance(step, dict):
        yield step


def _differences(tokenizer: Tokenizer, merges: list[Merge]) -> Iterator[str]:
    """Return sentences about merges that scores cannot express."""
    known, named = set(merges), {token.content for token in tokenizer.added.values()}
    base = tokenizer.base
    lengths = {len(text) for text in base}  # a token of a megabyte is not cut at each of its characters
    ordered = sorted(lengths)
    cuts = {length: [cut for cut in ordered if length - cut in lengths] for length in ordered}
    others = [
        (text[:cut], text[cut:])
        for text in base
        if text not in named
        for cut in cuts[len(text)]
        if text[:cut] in base and text[cut:] in base and (text[:cut], text[cut:]) not in known
    ]
    if others:
        yield OTHER_PAIRS.format(*others[0], len(others) - 1)
    ended: set[str] = set()
    apart: list[str] = []
    for (left, right), (next_left, next_right) in pairwise([*merges, ("", "")]):
        text = left + right
        if text in ended:
            apart.append(text)
        if text != next_left + next_right:
            ended.add(text)
    if apart:
        yield OTHER_ORDER.format(apart[0], len(apart) - 1)
