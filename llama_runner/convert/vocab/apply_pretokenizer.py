r"""Splits the official script's sample text as the tokenizers library would, with the standard library's ``re``.

Only for that text: a class such as ``\p{L}`` becomes the list of its characters that occur there, so that no table of
Unicode is needed. Only expressions of `pretokenizer_expressions` are run, since one from a model's file may not end;
any other raises `UnsupportedPreTokenizer`.
"""

from __future__ import annotations

import re
import unicodedata
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from llama_runner.convert.vocab import pretokenizer_expressions
from llama_runner.convert.vocab.pretokenizer_expressions import GPT2, LETTERS, canonical
from llama_runner.convert.vocab.tokenizer import byte_alphabet

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

FAMILIAR = frozenset(
    value for name, value in vars(pretokenizer_expressions).items() if name.isupper() and not name.startswith("_")
)
HAN = (0x2E80, 0x2FDF), (0x3005, 0x3007), (0x3021, 0x3029), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF)
_PROPERTY = re.compile(r"\\p\{(\w+)\}")
_WITHOUT_HAN = re.compile(r"\[((?:\\p\{\w+\})+)&&\[\^\\p\{Han\}\]\]")


class UnsupportedPreTokenizer(Exception):
    """A step of the tokenizer is not supported here."""


class Splitter:
    """Applies a tokenizer's steps to a text over the characters of ``alphabet``."""

    def __init__(self, alphabet: str) -> None:
        # a piece may have gone through the byte-level alphabet before an expression sees it
        self._alphabet = "".join(sorted({*alphabet, *byte_alphabet()}))

    def split(self, pieces: Iterable[str], step: object) -> list[str]:
        """Return the pieces after one step; raises `UnsupportedPreTokenizer`."""
        if step is None:
            return list(pieces)
        if not isinstance(step, dict):
            raise UnsupportedPreTokenizer
        if step.get("type") == "Sequence":
            found = list(pieces)
            for part in step.get("pretokenizers") or []:
                found = self.split(found, part)
            return found
        return [part for piece in pieces for part in self._apply(piece, step) if part]

    def _apply(self, piece: str, step: Mapping[str, Any]) -> Iterator[str]:
        kind = step.get("type")
        if kind == "ByteLevel":
            yield from self._bytes(piece, step)
        elif kind == "Split":
            yield from self._matched(piece, step)
        elif kind == "Digits":
            expression = r"\p{N}" if step.get("individual_digits") else r"\p{N}+"
            yield from _isolated(self._compiled(expression), piece)
        elif kind == "Punctuation" and step.get("behavior", "Isolated") in ("Isolated", "Contiguous"):
            expression = r"[\p{P}!-/:-@\[-`{-~]" + "+" * (step.get("behavior") == "Contiguous")
            yield from _isolated(self._compiled(expression), piece)
        else:
            raise UnsupportedPreTokenizer

    def _bytes(self, piece: str, step: Mapping[str, Any]) -> Iterator[str]:
        if step.get("add_prefix_space", True) and not piece.startswith(" "):
            piece = f" {piece}"
        parts = _isolated(self._compiled(GPT2), piece) if step.get("use_regex", True) else [piece]
        shown = {byte: character for character, byte in byte_alphabet().items()}
        for part in parts:
            yield "".join(shown[byte] for byte in part.encode("utf-8"))

    def _matched(self, piece: str, step: Mapping[str, Any]) -> Iterator[str]:
        pattern = step.get("pattern")
        text = pattern.get("Regex") if isinstance(pattern, dict) else None
        expression = canonical(text) if isinstance(text, str) else ""
        if expression not in FAMILIAR:
            raise UnsupportedPreTokenizer
        # the long list of letters is what it is; for the sample, the letters in it are these
        expression = r"\s?[A-Za-z\u0400-\u0481\u048a-\u052f]+" if expression == LETTERS else expression
        compiled = self._compiled(expression)
        behavior, inverted = step.get("behavior"), bool(step.get("invert"))
        if behavior == "Isolated" or (behavior, inverted) == ("Removed", True):
            yield from _isolated(compiled, piece)
        elif (behavior, inverted) == ("MergedWithNext", False):
            yield from _merged_with_next(compiled, piece)
        else:
            raise UnsupportedPreTokenizer

    def _compiled(self, expression: str) -> re.Pattern[str]:
        expression = _WITHOUT_HAN.sub(lambda found: f"[{self._listed(found[1], without_han=True)}]", expression)
        text, inside, place = "", False, 0
        while place < len(expression):
            character = expression[place]
            if found := _PROPERTY.match(expression, place):
                listed = self._listed(found[0])
                text += listed if inside else f"[{listed}]"
                place = found.end()
                continue
            if character == "\\":
                text += expression[place : place + 2]
                place += 2
                continue
            inside = True if character == "[" else False if character == "]" else inside
            text += r"\[" if character == "[" and text.endswith("[") else character
            place += 1
        return re.compile(text)

    def _listed(self, properties: str, *, without_han: bool = False) -> str:
        names = _PROPERTY.findall(properties)
        listed = [c for c in self._alphabet if any(_has(c, name) for name in names)]
        kept = "".join(re.escape(c) for c in listed if not (without_han and _has(c, "Han")))
        return kept or "\\U0010ffff"


def _has(character: str, name: str) -> bool:
    if name == "Han":
        return any(first <= ord(character) <= last for first, last in HAN)
    return unicodedata.category(character).startswith(name)


def _isolated(pattern: re.Pattern[str], piece: str) -> Iterator[str]:
    """Return matches and the text between them in order; an empty match separates."""
    start = 0
    for match in pattern.finditer(piece):
        yield piece[start : match.start()]
        yield match[0]
        start = match.end()
    yield piece[start:]


def _merged_with_next(pattern: re.Pattern[str], piece: str) -> Iterator[str]:
    """Split before each match; a match goes with the following text."""
    cuts = [0, *(match.start() for match in pattern.finditer(piece)), len(piece)]
    for start, end in pairwise(cuts):
        yield piece[start:end]
