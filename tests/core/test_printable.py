"""No control character of a foreign text is printed."""

from __future__ import annotations

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from llama_runner.core.printable_text import printable, printable_lines


@given(st.text(st.characters()))
def test_nothing_that_controls_a_terminal_is_left(text: str) -> None:
    shown = printable(text)
    assert all(unicodedata.category(character) not in ("Cc", "Cs", "Zl", "Zp") for character in shown)
    shown.encode("utf-8")
    assert printable_lines(text).count("\n") == text.count("\n")


@given(st.text(st.characters(categories=["L", "N", "P", "S", "Zs"])))
def test_ordinary_text_stays_as_it_is(text: str) -> None:
    assert printable(text) == text


def test_what_is_replaced_is_written_as_an_escape() -> None:
    assert printable("\x1b[31mx\nhint: \u202e\udcff") == r"\x1b[31mx\nhint: \u202e\udcff"
    assert printable("a" * 50, limit=3) == "aaa…"
    assert printable_lines("a\tb\r\nc\x1b") == "a\tb\\r\nc\\x1b"
