"""Reads the commands of a shell script: words, assigned variables, operators. Nothing is run."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from llama_runner.config.paths_of_imported_file import variable
from llama_runner.config.split_command_line import CommandError, UnclosedQuote, Word

if TYPE_CHECKING:
    from collections.abc import Iterator

_RUN = re.compile(r"[^\s\"'\\$;&|<>#]+")
_QUOTED_RUN = re.compile(r"[^\"\\$]+")
_CONTINUED = re.compile(r"\\[ \t]*$")
_OPERATOR = re.compile(r"[;&|]+|\d?[<>]+&?\d?")
_VARIABLE = re.compile(r"\$(?:([A-Za-z_]\w{0,127})|\{([A-Za-z_]\w{0,127})(?:(:?[-=?+])([^{}]*))?\})")
_ASSIGNMENT = re.compile(r"([A-Za-z_]\w{0,127})=(.*)", re.DOTALL)
_LONGEST = 1 << 14
_LONGEST_EXPANDED = 1 << 19
"""Maximum characters of a variable, and of all that are put in."""


class Script:
    """The commands of a script, one after the other; assignments before a command count in it."""

    def __init__(self, text: str) -> None:
        self._lines = list(enumerate(text.splitlines(), 1))
        self._values: dict[str, str] = {}
        self._command: list[Word] = []
        self._text: list[str] | None = None
        self._line = 0
        self._quote = ""
        self._expanded = 0
        self._redirected = False
        """Whether the next word is the file of a redirection."""

    def commands(self) -> Iterator[list[Word]]:
        """Iterate over the words of each command; assignments alone are taken as variables. Raises ``CommandError``."""
        goes_on = False
        for number, line in self._lines:
            comment = not self._quote and line.lstrip().startswith("#")
            if comment and goes_on:
                continue
            continued = _CONTINUED.search(line) if self._quote != "'" else None
            yield from self._take_line(line[: continued.start()] if continued else line, number)
            goes_on = continued is not None
            if self._quote and not goes_on:
                self._put("\n", number)
            elif not self._quote:
                self._end_word()
                if not goes_on:
                    yield from self._end_command()
        if self._quote:
            raise UnclosedQuote(self._line)
        yield from self._end_command()

    def _take_line(self, line: str, number: int) -> Iterator[list[Word]]:
        at = 0
        while at < len(line):
            char = line[at]
            if self._quote == "'":
                end = line.find("'", at)
                self._put(line[at : end if end >= 0 else None], number)
                self._quote, at = ("", end + 1) if end >= 0 else ("'", len(line))
            elif run := (_QUOTED_RUN if self._quote else _RUN).match(line, at):
                self._put(run[0], number)
                at = run.end()
            elif char == "$" and (named := _VARIABLE.match(line, at)):
                self._expand(named, number)
                at = named.end()
            elif char == "\\" and at + 1 < len(line):
                keep = "\\" if self._quote and line[at + 1] not in '"\\$`' else ""
                self._put(keep + line[at + 1], number)
                at += 2
            elif char == self._quote:
                self._quote, at = "", at + 1
            elif operator := None if self._quote else _OPERATOR.match(line, at):
                at = operator.end()
                yield from self._operator(operator[0])
            elif char == "#" and self._text is None and not self._quote:
                return
            else:
                self._take_character(char, number)
                at += 1

    def _take_character(self, char: str, number: int) -> None:
        """Take a character that means itself, opens a quotation, or ends a word."""
        if not self._quote and char in "\"'":
            self._put("", number)
            self._quote = char
        elif not self._quote and char.isspace():
            self._end_word()
        else:
            self._put(char, number)

    def _operator(self, text: str) -> Iterator[list[Word]]:
        if "<" in text or ">" in text:
            if self._text is not None and "".join(self._text).isdigit():
                self._text = None  # 2>
            self._end_word()
            self._redirected = not text[-1].isdigit()
        else:
            self._end_word()
            yield from self._end_command()

    def _expand(self, match: re.Match[str], line: int) -> None:
        """Put in the value of a variable: an assigned one, its default, or a mark for the environment."""
        name, operator, default = match[1] or match[2], match[3] or "", match[4]
        value = self._values.get(name)
        if value is None:
            value = default if operator[-1:] in ("-", "=") else "" if operator[-1:] == "+" else variable(name)
        self._expanded += len(value)
        if self._expanded > _LONGEST_EXPANDED:
            raise CommandError(f"the variables stand for more than {_LONGEST_EXPANDED} characters", line)
        if self._quote:
            self._put(value, line)
            return
        for at, part in enumerate(re.split(r"\s+", value)):  # words of a value, as the shell divides it
            if at:
                self._end_word()
            if part:
                self._put(part, line)

    def _put(self, text: str, line: int) -> None:
        if self._text is None:
            self._text, self._line = [], line
        self._text.append(text)

    def _end_word(self) -> None:
        if self._text is not None:
            if not self._redirected:
                self._command.append(Word("".join(self._text), self._line))
            self._redirected, self._text = False, None

    def _end_command(self) -> Iterator[list[Word]]:
        words, self._command, self._redirected = self._command, [], False
        named = words[1:] if words and words[0].text in ("export", "readonly", "local", "declare") else words
        found = [_ASSIGNMENT.fullmatch(word.text) for word in named]
        if words and all(found):
            for match in found:
                assert match is not None
                self._values[match[1]] = match[2] if len(match[2]) <= _LONGEST else variable(match[1])
        elif words:
            yield words
