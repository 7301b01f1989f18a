"""The line of a key in a TOML file. Only for messages: it parses parts of the file again."""

from __future__ import annotations

from bisect import bisect_left
from typing import Any

from llama_runner.config.toml import TOMLDecodeError, loads


def line_of(text: str, keys: tuple[str, ...]) -> int | None:
    """Return the line, counted from 1, on which the statement begins that brings a key or table into a file.

    ``text`` is a file that parses. None if it does not hold the key.
    """
    lines = text.splitlines(keepends=True)

    def holds(count: int) -> bool:
        """Whether the key is in the first ``count`` lines, with the rest of the last statement in them."""
        while (value := _parsed("".join(lines[:count]))) is None and count < len(lines):
            count += 1
        return _has(value, keys)

    found = bisect_left(range(len(lines) + 1), True, key=holds)
    return found if found <= len(lines) else None


def _parsed(text: str) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = loads(text)
    except (TOMLDecodeError, RecursionError):
        return None
    return found


def _has(value: Any, keys: tuple[str, ...]) -> bool:  # noqa: ANN401 - a TOML value
    for key in keys:
        if not isinstance(value, dict) or key not in value:
            return False
        value = value[key]
    return True
