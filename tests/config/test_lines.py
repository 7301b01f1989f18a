"""The line that a message names is the one on which the statement begins that brings the key."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from llama_runner.config.toml import loads
from llama_runner.config.toml_statements import lines_of

WORDS = st.text("abc", min_size=1, max_size=3)
COMMENTS = st.sampled_from(["", "# [x]", "# a = '''", '# """', "\t"])
VALUES = st.sampled_from(
    [
        "1",
        "'#'",
        '"[\\"]"',
        '"""\n[x]\n a = 1 # "\n"" """',
        "'''\n]\n'' '''",
        "[ # ]\n 1, '''\n'''\n]",
        "[[1], [\n]]",
        "{}",
        "{ q = 1, r.s = [\n1] }",
        '"\u2028\u0085\\u000b"',
        '"""""x"""""',
        "''''x'''''",
    ]
)


@st.composite
def files(draw: Callable[..., object]) -> tuple[str, dict[tuple[str, ...], int]]:
    """Return a file and the line of each statement's key."""
    text, expected = "", dict[tuple[str, ...], int]()
    table: tuple[str, ...] = ()
    for number in range(draw(st.integers(0, 12))):  # type: ignore[call-overload]
        text += "".join(f"{draw(COMMENTS)}\n" for _ in range(draw(st.integers(0, 2))))  # type: ignore[call-overload]
        line = text.count("\n") + 1
        word = f"{draw(WORDS)}{number}"
        if draw(st.booleans()):
            quoted = draw(st.booleans())
            table = ("t", word, "x.y") if quoted else (word,)
            text += f'[t . {word}."x.y"] # c\n' if quoted else f"[[{word}]]\n"
            expected[table] = line
        else:
            keys = (*table, word, "k") if draw(st.booleans()) else (*table, word)
            text += f"{'.'.join(keys[len(table) :])} = {draw(VALUES)}\n"
            expected[keys] = line
    return text, expected


@settings(max_examples=300, deadline=None)
@given(files())
def test_the_line_holds_the_statement(made: tuple[str, dict[tuple[str, ...], int]]) -> None:
    text, expected = made
    loads(text)
    found = lines_of(text)
    assert {keys: found.get(keys) for keys in expected} == expected


def test_keys_of_inline_tables_have_the_line_of_their_statement() -> None:
    found = lines_of("[a]\nb = { c = { d = 1 }, e = [\n1] }\nf = 1\n")
    assert found == {
        ("a",): 1,
        ("a", "b"): 2,
        ("a", "b", "c"): 2,
        ("a", "b", "c", "d"): 2,
        ("a", "b", "e"): 2,
        ("a", "f"): 4,
    }
