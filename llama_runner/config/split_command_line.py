"""Splits command lines into words as a shell or Windows does. Nothing is executed or expanded."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from llama_runner.core.immutable_values import Value

if TYPE_CHECKING:
    from collections.abc import Iterable

_CONTINUED = re.compile(r"(?:\\|`|\^)[ \t]*$")
"""What ends a line that goes on: in a shell, in PowerShell, and in cmd.exe."""
_WINDOWS = re.compile(r"(?:^|[\s\"'=])(?:[A-Za-z]:\\|\.{1,2}\\|\\\\)|\.exe\b|\\[\w.-]+\.gguf", re.IGNORECASE)
_RUN, _QUOTED_RUN = re.compile(r"[^\s\"'\\]+"), re.compile(r"[^\"'\\]+")
"""Characters that mean only themselves, outside and inside quotation marks."""


class Word(Value):
    """A word of a command line."""

    text: str
    line: int
    """The line on which it begins, counted from 1."""


class CommandError(ValueError):
    """A command line that cannot be read."""

    def __init__(self, text: str, line: int) -> None:
        self.line = line
        super().__init__(text)


class UnclosedQuote(CommandError):
    """A quotation mark has no counterpart."""

    def __init__(self, line: int) -> None:
        super().__init__("a quotation mark is not closed", line)


def split_command(lines: Iterable[tuple[int, str]], *, windows: bool | None = None) -> list[Word]:
    """Return the words of a command that may stand on several lines; each line comes with its number.

    Lines that begin with ``#`` are comments. ``windows``: a backslash is a part of a path; by default this is decided
    by whether the text has Windows paths. Raises ``UnclosedQuote``.
    """
    kept = [(number, text) for number, text in lines if not text.lstrip().startswith("#")]
    if windows is None:
        windows = any(has_windows_paths(text) for _, text in kept)
    return _Splitter(windows=windows).words([(number, _CONTINUED.sub(" ", text)) for number, text in kept])


def has_windows_paths(text: str) -> bool:
    """Return whether a text has paths of Windows."""
    return _WINDOWS.search(text) is not None


def continues(line: str) -> bool:
    """Return whether a command goes on after a line."""
    return _CONTINUED.search(line) is not None or line.lstrip().startswith("#")


class _Splitter:
    def __init__(self, *, windows: bool) -> None:
        self._windows = windows
        self._words: list[Word] = []
        self._text: list[str] | None = None
        """The characters of the word that has begun; None between words."""
        self._line = 0
        self._quote = ""

    def words(self, lines: list[tuple[int, str]]) -> list[Word]:
        for number, text in lines:
            at = 0
            while at < len(text):
                at = self._take(text, at, number)
            if self._quote:
                self._put("\n", number)
            else:
                self._end()
        if self._quote:
            raise UnclosedQuote(self._line)
        return self._words

    def _take(self, text: str, at: int, line: int) -> int:
        """Take what stands at a position, and return the next one."""
        if run := (_QUOTED_RUN if self._quote else _RUN).match(text, at):
            self._put(run[0], line)
            return run.end()
        char, after = text[at], text[at + 1 : at + 2]
        if self._quote:
            if char == self._quote:
                self._quote = ""
            elif char == "\\" and self._quote == '"' and self._escapes(after):
                self._put(after, line)
                return at + 2
            else:
                self._put(char, line)
        elif char.isspace():
            self._end()
        elif char == '"' or (char == "'" and not (self._windows and self._text)):
            self._put("", line)
            self._quote = char
        elif char == "\\" and after and (not self._windows or after == '"'):
            self._put(after, line)
            return at + 2
        else:
            self._put(char, line)
        return at + 1

    def _escapes(self, after: str) -> bool:
        """Whether a backslash between double quotation marks is one for the character after it."""
        return bool(after) and after in ('"' if self._windows else '"\\$`')

    def _put(self, text: str, line: int) -> None:
        if self._text is None:
            self._text, self._line = [], line
        self._text.append(text)

    def _end(self) -> None:
        if self._text is not None:
            self._words.append(Word("".join(self._text), self._line))
            self._text = None
