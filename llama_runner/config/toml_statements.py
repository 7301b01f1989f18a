"""The statements of a TOML file with their lines: for messages, and to remove or rename some of them as text."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from llama_runner.config.errors import dotted
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


_KEY = re.compile(r"""(\s*(?:\[\[?\s*)?)(?:"(?:[^"\\]|\\.)*"|'[^']*'|[^"'=\]])+?(?=\s*[=\]])""")
"""The key of a statement, after its indentation and the brackets of a table."""


class Statement(NamedTuple):
    """A header, a key with its value, a comment, or an empty line."""

    line: int
    text: str
    table: Keys
    """The table that it stands in; for a header the table that it begins."""
    value: dict[str, Any]
    """What it says; {} for comments and empty lines."""
    is_header: bool

    @property
    def path(self) -> Keys:
        """The key with its tables; () for comments and empty lines."""
        if self.is_header or not self.value:
            return self.table if self.is_header else ()
        keys, value = list(self.table), self.value
        for _ in range(len(_own_keys(self.text))):
            key, below = next(iter(value.items()))
            keys.append(key)
            value = below
        return tuple(keys)


def lines_of(text: str) -> dict[Keys, int]:
    """Return for each key and table the line, counted from 1, on which the statement begins that brings it.

    ``text`` is a file that parses. Keys of inline tables have the line of their statement.
    """
    found: dict[Keys, int] = {}
    for each in statements(text):
        if each.is_header:
            for count in range(1, len(each.table) + 1):
                found.setdefault(each.table[:count], each.line)
        else:
            for keys in _paths(each.value, each.table):
                found.setdefault(keys, each.line)
    return found


def without(text: str, keys: Keys) -> str:
    """Return a text without the statements of a key or a table, and without the comments right above a table."""
    kept: list[str] = []
    after: list[str] = []
    """Comments and empty lines since the last statement that is removed."""
    removing = False
    for each in statements(text):
        if not each.value:
            (after if removing else kept).append(each.text)
            continue
        removes = each.path[: len(keys)] == keys
        if each.is_header and removes and not removing:
            while kept and kept[-1].lstrip().startswith("#"):
                kept.pop()
        if each.is_header or len(each.table) < len(keys):
            if removing and not removes:
                kept += after
            removing, after = removes and each.is_header, []
        elif removing:
            after = []
        if not removes:
            kept.append(each.text)
    return "".join([*kept, *after])


def renamed(text: str, keys: Keys, name: str) -> str:
    """Return a text in which the last of the keys is another name, in headers and in dotted keys."""
    done: list[str] = []
    for each in statements(text):
        key = _KEY.match(each.text)
        begin = 0 if each.is_header else len(each.table)
        if key is not None and each.path[: len(keys)] == keys and begin < len(keys):
            new = (*keys[:-1], name, *each.path[len(keys) :])
            done.append(f"{key[1]}{dotted(new[begin:])}{each.text[key.end() :]}")
        else:
            done.append(each.text)
    return "".join(done)


def statements(text: str) -> Iterator[Statement]:
    """Return the statements of a file that parses; together they are the whole text."""
    table: Keys = ()
    for line, statement in _split(text):
        try:
            value = loads(statement)
        except TOMLDecodeError:
            value = {}
        is_header = bool(value) and statement.lstrip(" \t").startswith("[")
        if is_header:
            table = _only_path(value)
        yield Statement(line, statement, table, value, is_header)


def _own_keys(statement: str) -> Keys:
    """Return the parts of the key of a statement."""
    key = _KEY.match(statement)
    assert key is not None
    return _only_path(loads(f"{key[0]} = 0"))


def _split(text: str) -> Iterator[tuple[int, str]]:
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
    while isinstance(value, dict) and value:
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
