"""Command lines are split into words as a shell, or Windows, splits them."""

from __future__ import annotations

import shlex
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_runner.config.split_command_line import UnclosedQuote, split_command
from tests.fuzzing import bounded


def words(text: str, *, windows: bool | None = False) -> list[str]:
    return [word.text for word in split_command(enumerate(text.splitlines(), 1), windows=windows)]


@given(st.lists(st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")), max_size=12), max_size=6))
@bounded(200)
def test_what_shlex_quotes_comes_back(parts: list[str]) -> None:
    assert words(f"x {shlex.join(parts)}") == ["x", *parts]


@given(st.lists(st.text("ab \\\"'&", max_size=8), max_size=4))
@bounded(200)
def test_what_is_quoted_for_windows_comes_back(parts: list[str]) -> None:
    quoted = " ".join('"' + part.replace('"', '\\"') + '"' for part in parts if not part.endswith("\\"))
    kept = [part for part in parts if not part.endswith("\\") and '\\"' not in part]
    if len(kept) == len([part for part in parts if not part.endswith("\\")]):
        assert words(f"x {quoted}", windows=True) == ["x", *kept]


@pytest.mark.parametrize(
    "text", ["a 'b c' d", 'a "b \\" c" d', "a\\ b c", "a'b'\"c\"", "''", '"$x `y` \\$z"', "a  \t b"]
)
def test_words_are_those_of_a_shell(text: str) -> None:
    quiet = text.replace("$x", "x").replace("`y`", "y")
    script = f'printf "%s\\0" {quiet}'
    printed = subprocess.run(["/bin/sh", "-c", script], check=True, capture_output=True, text=True).stdout
    assert words(quiet) == printed.split("\0")[:-1]


def test_lines_that_go_on_and_comments() -> None:
    lines = [(7, "a \\"), (8, "  # no"), (9, 'b "c'), (10, 'd" e')]
    found = split_command(lines)
    assert [(word.text, word.line) for word in found] == [("a", 7), ("b", 9), ("c\nd", 9), ("e", 10)]


def test_a_windows_path_is_recognised() -> None:
    assert words(r'C:\a\b.exe -m "D:\x y\z.gguf" --n it\'s', windows=None)[:3] == [
        r"C:\a\b.exe",
        "-m",
        r"D:\x y\z.gguf",
    ]


def test_a_quotation_mark_without_its_counterpart_is_an_error() -> None:
    with pytest.raises(UnclosedQuote, match="not closed"):
        words("a 'b")
