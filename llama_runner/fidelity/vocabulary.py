"""Compares the vocabulary that a GGUF file has with the original's: tokens, merges, scores."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from llama_runner.convert.vocab import sentencepiece_model_file
from llama_runner.fidelity.report import Finding, shown

if TYPE_CHECKING:
    from llama_runner.fidelity.original_tokenizer import Original
    from llama_runner.fidelity.vocabulary_of_gguf import MadeFile

_SPACE = "▁"
_UNUSED = 5
_SCORE_ERROR = 1e-5
_PADDING = re.compile(r"\[PAD\d+\]|<dummy\d+>|<pad_\d+>")


def vocabulary_findings(original: Original, made: MadeFile) -> list[Finding]:
    """Return what the file has otherwise: each part once, with its first difference."""
    found = []
    if text := _tokens(original, made):
        found.append(Finding("tokens", text, "file"))
    if text := _merges(original, made):
        found.append(Finding("merges", text, "file"))
    return found


def _tokens(original: Original, made: MadeFile) -> str | None:
    wrong: list[tuple[int, str, str | None]] = []
    for number, want in original.texts.items():
        if number >= len(made.tokens):
            wrong.append((number, want, None))
            continue
        got, kind = made.tokens[number], made.types[number] if number < len(made.types) else 1
        if got in _written(want, made.kind) or kind == _UNUSED or _PADDING.fullmatch(got):
            continue
        wrong.append((number, want, got))
    if not wrong:
        return None
    number, want, there = wrong[0]
    has = "the file has fewer" if there is None else f"in the file {shown(there)}"
    more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
    return f"token {number} is {shown(want)}, {has}{more}"


def _written(text: str, kind: str) -> tuple[str, ...]:
    """Return how a token may be written in a file."""
    if kind == "bert":  # llama.cpp marks the beginning of a word instead of its continuation
        return (text, text[2:] if text.startswith("##") else _SPACE + text)
    return (text, text.replace(_SPACE, " "))


def _merges(original: Original, made: MadeFile) -> str | None:
    want, got = original.merges, made.merges
    if made.kind == "llama":
        return _scores(original, made)
    if want is None or made.kind != "gpt2" or list(got or ()) == want:
        return None
    if got is None:
        return f"the original has {len(want)} merges, the file none"
    place = next((place for place, pair in enumerate(zip(want, got, strict=False)) if pair[0] != pair[1]), None)
    if place is None:
        return f"the original has {len(want)} merges, the file {len(got)}"
    return f"merge {place} is {shown(want[place])}, in the file {shown(got[place])}"


def _scores(original: Original, made: MadeFile) -> str | None:
    """Compare the order in which pairs are merged, which are scores in the file."""
    pieces = () if original.pieces is None else sentencepiece_model_file.read(original.pieces).pieces
    for number, (text, score, _) in enumerate(pieces):
        if original.texts[number] != text:  # an added token took its place, and is not merged
            continue
        if number < len(made.scores) and abs(made.scores[number] - score) > _SCORE_ERROR * max(1.0, abs(score)):
            return f"the score of token {number} ({shown(text)}) is {score:g}, in the file {made.scores[number]:g}"
    if original.document is None or not made.scores:
        return None
    numbers, before, inversions, first = original.numbers, float("inf"), 0, ""
    merges = original.document["model"].get("merges") or ()
    for text in dict.fromkeys("".join(merge.split(" ") if isinstance(merge, str) else merge) for merge in merges):
        place = numbers.get(text)
        if place is None or place >= len(made.scores):
            continue
        if made.scores[place] > before:
            inversions, first = inversions + 1, first or text
        before = made.scores[place]
    if 100 * inversions > len(merges):
        return f"the scores in the file do not follow the order of {len(merges)} merges, first at {shown(first)}"
    return None
