"""What people see of a long transfer, on a terminal and elsewhere."""

from __future__ import annotations

import pytest

from llama_runner.cli import text_output
from llama_runner.core.events import Chosen, Drifted, Noticed, Resolved, StepProgress, StepStarted

GIB = 1 << 30


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("time.monotonic", clock)
    return clock


def test_a_line_comes_now_and_then_with_rate_and_time_left(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    printer = text_output.Printer()
    printer(StepStarted("download", (), "log"))
    for second in range(41):
        clock.now = 1000.0 + second
        printer(StepProgress("download", GIB + second * (GIB // 16), 8 * GIB, "bytes"))
    lines = capsys.readouterr().err.splitlines()[1:]
    assert len(lines) == 4, "every ten seconds"
    assert lines[-1] == "download   44%  3.5 GiB of 8.0 GiB  64.0 MiB/s, 1 min 12 s left"


def test_what_was_there_before_does_not_count_as_speed(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    printer = text_output.Printer()
    printer(StepProgress("download", 0, 8 * GIB, "bytes"))
    for second in (11, 12, 22):
        clock.now = 1000.0 + second
        printer(StepProgress("download", 7 * GIB, 8 * GIB, "bytes"))
    assert capsys.readouterr().err.splitlines()[-1] == "download   88%  7.0 GiB of 8.0 GiB", "nothing came lately"


def test_progress_that_goes_back_begins_a_new_rate(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    printer = text_output.Printer()
    for second, done in ((0, 0), (5, GIB), (10, 0), (12, GIB // 8), (20, GIB // 4)):
        clock.now = 1000.0 + second
        printer(StepProgress("download", done, GIB, "bytes"))
    assert capsys.readouterr().err.splitlines()[-1].endswith("25.6 MiB/s, 30.0 s left")


def test_what_is_told_of_the_hub_is_a_line_each() -> None:
    assert text_output.line(Noticed("x", "a clause")) == "note      a clause"
    assert text_output.line(Resolved("a/b", "main", "f" * 40)) == "resolve   a/b at main is commit ffffffffffff"
    assert text_output.line(Chosen("a/b", "f" * 40, ("x.gguf", "y.gguf"), GIB, "asked for")) == (
        "choose    x.gguf and 1 more, 1.0 GiB: asked for"
    )
    many = tuple(f"f{number}" for number in range(20))
    text = text_output.line(Drifted("a/b", "main", "1" * 40, "2" * 40, many, ("gone",), ()))
    assert text is not None
    assert text.splitlines()[0] == "update    a/b at main was 111111111111 and is 222222222222 now"
    assert text.splitlines()[-2:] == ["          new     and 8 more", "          gone    gone"]
