"""The lines of keys in a TOML file. Only for messages: it reads the file again, statement by statement."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from llama_runner.config.toml import TOMLDecodeError, loads

if TYPE_CHECKING:
    from collections.abc import Iterator

_TOKEN = re.compile(
    r'"""(?:[^"\\]|\\.|"{1,2}(?!"))*"{3,5}'
    r"|'''(?:[^']|'{1,2}(?!'))*'{3,5}"
    r'|"(?:[^"\\\n]|\\.)*"'
    r"|'[^'\n]*'"
    r"|#[^\n]*|[][{}\n]",
    re.DOTALL,
)
"""What tells where a statement ends: strings, comments, brackets, line ends."""

Keys = tuple[str, ...]


def lines_of(text: str) -> dict[Keys, int]:
    """Return for each key and table the line, counted from 1, on which the statement begins that brings it.

    ``text`` is a file that parses. Keys of inline tables have the line of their statement.
    """
    found: dict[Keys, int] = {}
    table: Keys = ()
    for line, statement in _statements(text):
        try:
            value = loads(statement)
        except (TOMLDecodeError, RecursionError):
            continue
        if statement.lstrip(" \t").startswith("["):
            table = _only_path(value)
            for count in range(1, len(table) + 1):
                found.setdefault(table[:count], line)
        else:
            for keys in _paths(value, table):
                found.setdefault(keys, line)
    return found


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """Return each statement with the line on which it begins."""
    begin, line, line_begin, depth = 0, 1, 1, 0
    for match in _TOKEN.finditer(text):
        found = match[0]
        if found in ("[", "{"):
            depth += 1
        elif found in ("]", "}"):
            depth -= 1
        line += found.count("\n")
        if found == "\n" and depth <= 0:
            yield line_begin, text[begin : match.end()]
            begin, line_begin, depth = match.end(), line, 0
    yield line_begin, text[begin:]


def _only_path(value: dict[str, Any]) -> Keys:
    """Return the keys of a table header."""
    keys: list[str] = []
    while value:
        key, below = next(iter(value.items()))
        keys.append(key)
        value = below[0] if isinstance(below, list) else below
    return tuple(keys)


def _paths(value: dict[str, Any], above: Keys) -> Iterator[Keys]:
    pending = [(above, value)]
    while pending:
        keys, table = pending.pop()
        for key, each in table.items():
            yield (*keys, key)
            if isinstance(each, dict):
                pending.append(((*keys, key), each))
