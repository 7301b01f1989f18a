"""Foreign text made safe to print: no control character of it reaches a terminal."""

from __future__ import annotations

import re

_CLASS = (
    "\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 and C1 control characters, ESC among them; not tab and line feed
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # marks and overrides of writing direction
    "\u2028\u2029"  # line and paragraph separators
    "\ud800-\udfff"  # surrogates, which cannot be encoded
)
# Patterns, not compiled ones: these are slow to compile, and a start that prints nothing needs none of them.
_UNSAFE_IN_LINES = f"[{_CLASS}]"
_UNSAFE = f"[\t\n{_CLASS}]"
_UNINDENTED = r"\n(?![ \t\n]|full log: |$)"


def printable(text: str, *, limit: int | None = None) -> str:
    r"""Return text on one line, with each unsafe character as its escape (``\x1b``, ``\n``, ``\udcff``).

    ``limit`` is the greatest number of characters to keep; a longer text ends in "…".
    """
    if limit is not None and len(text) > limit:
        text = text[:limit] + "…"
    return re.sub(_UNSAFE, _escape, text)


def printable_message(text: str) -> str:
    """Return a message of one or more lines as ``printable_lines`` does, with the lines after the first indented.

    So no line of a foreign text can pass for a message of ours, such as a hint. "full log: " stays where it is.
    """
    return re.sub(_UNINDENTED, "\n  ", printable_lines(text))


def printable_lines(text: str) -> str:
    """Return text as ``printable`` does, but keep its line ends and tabs; for multi-line texts such as templates."""
    return re.sub(_UNSAFE_IN_LINES, _escape, text)


def _escape(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode("ascii")
