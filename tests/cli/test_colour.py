"""Help and errors are in colour on a terminal only; NO_COLOR, TERM=dumb and FORCE_COLOR are obeyed."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from tests.cli.terminal import Session
from tests.conftest import MODULE, Command

SGR = re.compile(r"\x1b\[[0-9;]*m")
WORDS = {
    "help": (("run", "--help"), "\x1b[1mCommon options\x1b[0m:", 0),
    "commands": (("--help",), "\x1b[36mrun\x1b[0m", 0),
    "group": (("bins",), "\x1b[1mUsage:\x1b[0m", 2),
    "error": (("plan", "no/such/model/x"), "\x1b[31m\x1b[1merror:\x1b[0m ", 3),
    "usage": (("plan", "--prot"), "\x1b[31m\x1b[1mError:\x1b[0m ", 2),
}
EVIL = "\x1b[31mx\x1b[0m"


@pytest.mark.parametrize("name", WORDS)
def test_help_and_errors_are_in_colour_on_a_terminal_only(
    session: Callable[..., Session], llama_runner: Command, name: str
) -> None:
    words, expected, code = WORDS[name]
    piped = llama_runner(*words)
    assert not SGR.search(piped.out + piped.err)
    for env, colour in (({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)):
        shown = session(*MODULE, *words, env=env, columns=80)
        text = shown.read_until(lambda _text: False).replace("\r\n", "\n")
        assert bool(SGR.search(text)) is colour, (env, text)
        assert (expected in text) is colour, text
        assert SGR.sub("", text) == piped.out + piped.err
        assert shown.child.wait(10) == piped.code == code
    forced = llama_runner(*words, env={"FORCE_COLOR": "1"})
    assert expected in forced.out + forced.err
    assert SGR.sub("", forced.out) == piped.out
    both = llama_runner(*words, env={"FORCE_COLOR": "1", "NO_COLOR": "1"})
    assert (both.out, both.err) == (piped.out, piped.err)


@pytest.mark.parametrize("words", [("plan", EVIL), ("plan", f"--{EVIL}"), ("stop", EVIL), (EVIL,)])
def test_colours_of_others_are_escapes_in_messages_that_have_colours(
    llama_runner: Command, words: tuple[str, ...]
) -> None:
    said = llama_runner(*words, env={"FORCE_COLOR": "1"})
    assert "\\x1b[31mx" in said.err
    assert "\x1b[31mx" not in said.err
