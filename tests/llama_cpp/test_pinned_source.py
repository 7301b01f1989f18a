"""The pin: read quickly where it is simple, and always as TOML says."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_runner.core.errors import UsageError
from llama_runner.llama_cpp import pinned_source
from llama_runner.llama_cpp.pinned_source import load_pin
from llama_runner.store import layout

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from pathlib import Path

PIN = layout.pin_file().read_text(encoding="utf-8")
LINES = [
    *PIN.splitlines(),
    *("", " # text", "[a]", "[ a ]", "[a.b]", "[a] # text", "a = 1", "a = -1", "a = 01", "a = 1_0", "a=1", "a = 0x1"),
    *('a = "b" # text', 'a = "b # c"', "a = 'b'", 'a = "\\n"', 'a = """b"""', 'a = "b" "c"', 'a = "é"', "a = [1]"),
    *("a = true", "a = 1.5", "a.b = 1", "[[a]]", "b = 2", "# \x07", "a", "= 1", "a = 12345678901234567890", "\x85"),
    *("a = 1\x0bb = 2", "\ufeffa = 1", "a = 1\r", "\r", "# \t"),
]


def toml(text: str) -> dict[str, Any] | None:
    try:
        value: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return None
    return value


def test_the_pin_of_this_project_is_read_without_tomllib() -> None:
    assert pinned_source._simple_tables(PIN) == tomllib.loads(PIN)


@given(st.lists(st.sampled_from(LINES), max_size=12), st.sampled_from(["\n", "\r\n"]))
def test_a_pin_is_never_read_otherwise_than_as_toml(lines: list[str], newline: str) -> None:
    check(newline.join(lines))


@pytest.mark.parametrize("line", LINES)
def test_no_line_alone_is_read_otherwise_than_as_toml(line: str) -> None:
    check(f"x = 1\n{line}\ny = 1")


def check(text: str) -> None:
    found = pinned_source._simple_tables(text)
    assert found is None or found == toml(text)


def test_a_pin_with_other_toml_is_read_too(tmp_path: Path) -> None:
    path = tmp_path / "pin.toml"
    path.write_text(PIN.replace("size = 36425667", "size = 36_425_667"), encoding="utf-8")
    assert load_pin(path) == load_pin(layout.pin_file())


@pytest.mark.parametrize("text", ["", "[", "build = 1", PIN.replace("[tree]", "[three]"), PIN + "\n[tree]\n"])
def test_a_damaged_pin_is_an_error_that_names_it(tmp_path: Path, text: str) -> None:
    path = tmp_path / "pin.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=r"pin\.toml does not say which llama\.cpp to build"):
        load_pin(path)
