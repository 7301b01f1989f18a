"""Makes foreign text safe to print: control characters are replaced by their escapes."""

from __future__ import annotations

import re

_CLASS = (
    "\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 and C1 control characters, ESC among them; not tab and line feed
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # bidirectional marks and overrides
    "\u2028\u2029"  # line and paragraph separators
    "\ud800-\udfff"  # surrogates, which cannot be encoded
)
# Not compiled here: compiling is slow, and a start that prints nothing does not need them.
_UNSAFE_IN_LINES = f"[{_CLASS}]"
_UNSAFE = f"[\t\n{_CLASS}]"
_UNINDENTED = r"\n(?![ \t\n]|full log: |$)"


def printable(text: str, *, limit: int | None = None) -> str:
    r"""Return text on one line, with each unsafe character as its escape (``\x1b``, ``\n``, ``\udcff``).

    ``limit`` is the greatest number of characters to keep; a longer text ends in "…".
    """
    if limit is not None and len(text) > limit:
        text = text[:limit] + "…"
    if text.isascii() and text.isprintable():  # most are
        return text
    return re.sub(_UNSAFE, _escape, text)


def printable_message(text: str) -> str:
    """Return a message like ``printable_lines``, with the lines after the first indented.

    So a line of a foreign text does not look like a message of this program, such as a hint. Lines that begin with
    "full log: " are not indented.
    """
    return re.sub(_UNINDENTED, "\n  ", printable_lines(text))


def printable_lines(text: str) -> str:
    """Return text like ``printable``, but with its line ends and tabs; for multi-line texts such as templates."""
    return re.sub(_UNSAFE_IN_LINES, _escape, text)


def _escape(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode("ascii")
