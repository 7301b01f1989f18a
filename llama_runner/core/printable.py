"""Foreign text made safe to print: no control character of it reaches a terminal."""

from __future__ import annotations

import re

_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f"  # C0 and C1 control characters, ESC among them
    "\u200e\u200f\u202a-\u202e\u2066-\u2069"  # marks and overrides of writing direction
    "\u2028\u2029"  # line and paragraph separators
    "\ud800-\udfff]"  # surrogates, which cannot be encoded
)


def printable(text: str, *, limit: int | None = None) -> str:
    r"""Return text on one line, with each unsafe character as its escape (``\x1b``, ``\n``, ``\udcff``).

    ``limit`` is the greatest number of characters to keep; a longer text ends in "…".
    """
    if limit is not None and len(text) > limit:
        text = text[:limit] + "…"
    return _UNSAFE.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text)


def printable_lines(text: str) -> str:
    """Return text as ``printable`` does, but keep its line ends and tabs; for multi-line texts such as templates."""
    return "\n".join("\t".join(map(printable, line.split("\t"))) for line in text.split("\n"))
