"""What the server says is kept whole, and nothing that happens to it stops the server."""

from __future__ import annotations

import os
import stat
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from llama_runner.core.events import Warned
from llama_runner.serving import server_log
from llama_runner.serving.errors import ServerDied
from tests.serving.play import get

if TYPE_CHECKING:
    from tests.serving.play import Stage


def test_the_log_and_the_terminal_have_every_byte(stage: Stage) -> None:
    say = "\xff\xfe not UTF-8 \x00\r\n" + "".join(map(chr, range(256)))
    server = stage.ready(say=say, flood=1 << 20)
    get(server.url + "/exit/5")
    assert server.wait() == 5
    said = stage.log.read_bytes()
    expected = say.encode("latin-1") + b"x" * (1 << 20)
    assert said[: len(expected)] == expected
    assert said.endswith(
        f"load_model: loading model '{server.spec.model}'\nI srv  llama_server: model loaded\n".encode()
    )
    assert stage.terminal.getvalue() == said


def test_a_last_line_without_its_end_is_kept_in_log_and_error(stage: Stage) -> None:
    server = stage.start(die_loading=1)
    with pytest.raises(ServerDied, match="out of bounds\n"):
        server.wait_ready()
    assert stage.log.read_bytes().endswith(b"out of bounds")
    assert stage.terminal.getvalue() == stage.log.read_bytes()


def test_a_line_without_end_fills_neither_the_memory_nor_the_error(stage: Stage) -> None:
    server = stage.start(say="y" * 50_000 + "\n", flood=3 << 20, die_loading=1)
    with pytest.raises(ServerDied) as caught:
        server.wait_ready()
    assert len(str(caught.value)) < 5000
    assert stage.log.stat().st_size > 3 << 20


def test_after_a_burst_the_error_has_the_last_lines_and_only_these(stage: Stage) -> None:
    server = stage.start(say="".join(f"line {number}\n" for number in range(5000)) + "\n" * 70, die_loading=1)
    with pytest.raises(ServerDied) as caught:
        server.wait_ready()
    *before, _, _, _ = caught.value.tail
    assert before == [f"line {number}" for number in range(5000 - len(before), 5000)]
    assert not any("\n" in line for line in caught.value.tail)


def test_only_the_owner_may_read_the_log(stage: Stage) -> None:
    before = os.umask(0)
    try:
        stage.ready()
    finally:
        os.umask(before)
    assert stat.S_IMODE(stage.log.stat().st_mode) == 0o600


def test_a_log_that_is_there_is_continued(stage: Stage) -> None:
    stage.log.parent.mkdir()
    stage.log.write_bytes(b"before\n")
    stage.ready().stop()
    assert stage.log.read_bytes() == b"before\n" + stage.terminal.getvalue()


def test_a_log_that_cannot_be_written_is_said_and_the_server_goes_on(stage: Stage, tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("a file")
    server = stage.ready()
    assert stage.names() == ["server_started", "warned", "server_ready"]
    assert stage.events[1] == Warned("no_log", f"cannot write {stage.log}: File exists")
    server.stop()
    assert b"model loaded" in stage.terminal.getvalue()


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full is Linux")
def test_a_full_disk_does_not_stop_the_server(stage: Stage) -> None:
    server = stage.start(log=Path("/dev/full"), flood=1 << 18)
    server.wait_ready()
    server.stop()
    assert stage.terminal.getvalue().startswith(b"x" * (1 << 18))
    assert stage.names().count("warned") == 1, "said once"


@pytest.mark.parametrize("how", ["broken pipe", "closed"])
def test_a_terminal_that_is_gone_does_not_stop_the_server(stage: Stage, how: str) -> None:
    reading, writing = os.pipe()
    with os.fdopen(writing, "wb", buffering=0) as terminal:
        os.close(reading)
        if how == "closed":
            terminal.close()
        server = stage.start(terminal=terminal, flood=1 << 18)
        server.wait_ready()
        server.stop()
    assert stage.log.read_bytes().startswith(b"x" * (1 << 18))


def test_11_16_a_terminal_that_nobody_reads_stops_neither_log_nor_server(stage: Stage) -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb"), os.fdopen(writing, "wb") as terminal:
        server = stage.start(terminal=terminal, burst=64)  # 4 MiB
        server.wait_ready()
        get(server.url + "/say")
        stage.wait_said("still here")
        server.stop()
    assert stage.log.stat().st_size > 64 << 16


def whole(log: Path) -> bytes:
    """Return a log with what was set aside before it."""
    aside = sorted(log.parent.glob(f"{log.name}.*"), key=lambda path: -int(path.suffix[1:]))
    return b"".join(path.read_bytes() for path in [*aside, log])


def refuse(error: OSError) -> None:
    raise AssertionError(error)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_log, "LARGEST", 1000)


@pytest.mark.usefixtures("small")
def test_a_large_log_is_set_aside_at_the_end_of_a_line_and_nothing_is_lost(stage: Stage) -> None:
    say = "".join(f"line {number:04}\n" for number in range(400))
    stage.ready(say=say).stop()
    assert whole(stage.log) == stage.terminal.getvalue()
    files = list(stage.log.parent.iterdir())
    assert 2 <= len(files) <= server_log.KEPT + 1
    assert all(file.read_bytes().endswith(b"\n") for file in files)
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


@pytest.mark.usefixtures("small")
def test_only_so_many_logs_are_kept(tmp_path: Path) -> None:
    file = server_log.Log(tmp_path / "x.log", refuse)
    for number in range(20):
        file.write(b"%03d" % number + b"x" * 1000 + b"\n")
    file.close()
    kept = sorted(path.name for path in tmp_path.iterdir())
    assert kept == ["x.log", *(f"x.log.{number}" for number in range(1, server_log.KEPT + 1))]
    assert (tmp_path / "x.log").read_bytes().startswith(b"019")
    assert (tmp_path / f"x.log.{server_log.KEPT}").read_bytes().startswith(b"014")


def test_logs_of_servers_that_ended_long_ago_go_away(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_log, "SPARED", 2)
    stage.log.parent.mkdir()
    names = ["run-server-1.log", "run-server-1.log.1", "run-server-2.log", "run-server-3.log", "convert-1.log"]
    for age, name in enumerate(names):
        (stage.log.parent / name).touch()
        written = float(age) if age < 3 or name.startswith("convert") else time.time()
        os.utime(stage.log.parent / name, (written, written))
    stage.ready().stop()
    assert {path.name for path in stage.log.parent.iterdir()} == {*names[2:], stage.log.name}


def test_no_more_logs_of_ended_servers_are_kept_than_the_maximum(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_log, "SPARED", 1)
    monkeypatch.setattr(server_log, "MOST", 3)
    stage.log.parent.mkdir()
    for number in range(6):
        path = stage.log.parent / f"run-server-{number}.log"
        path.touch()
        os.utime(path, (time.time() - 100 + number,) * 2)
    stage.ready().stop()
    assert {path.name for path in stage.log.parent.iterdir()} == {
        stage.log.name,
        *(f"run-server-{number}.log" for number in (3, 4, 5)),
    }


def test_11_17_the_quiet_log_of_a_server_that_runs_is_not_removed(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_log, "SPARED", 1)
    quiet = stage.start(log=stage.root / "logs" / "run-server-1.log", log_name="logs/run-server-1.log")
    quiet.wait_ready()
    aside = quiet.log.with_name("run-server-1.log.1")
    aside.touch()
    ended = quiet.log.with_name("run-server-2.log")
    ended.touch()
    quiet.log.with_name("run-server-3.log").touch()
    for path in (quiet.log, aside, ended):
        os.utime(path, (0, 0))
    stage.ready().stop()
    assert quiet.log.exists(), "it has said nothing for long, and runs"
    assert aside.exists()
    assert not ended.exists()
    quiet.stop()
    os.utime(quiet.log, (0, 0))
    stage.ready().stop()
    assert not quiet.log.exists()


def test_11_17_the_end_of_a_server_of_another_registry_removes_no_log(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_log, "SPARED", 1)
    old = stage.log.with_name("run-server-1.log")
    old.parent.mkdir()
    old.touch()
    old.with_name("run-server-2.log").touch()
    os.utime(old, (0, 0))
    stage.start(log=stage.root / "logs" / "compile-1.log").stop()
    assert old.exists(), "its registry does not name the servers that use these logs"


@pytest.mark.usefixtures("small")
def test_a_line_is_cut_only_when_it_is_longer_than_a_log_may_be(tmp_path: Path) -> None:
    file = server_log.Log(tmp_path / "x.log", refuse)
    for _ in range(30):
        file.write(b"x" * 100)
    file.close()
    assert whole(tmp_path / "x.log") == b"x" * 3000
    assert (tmp_path / "x.log.1").stat().st_size == 2000


def test_an_old_log_is_set_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(server_log, "time", SimpleNamespace(monotonic=lambda: now[0]))
    file = server_log.Log(tmp_path / "x.log", refuse)
    file.write(b"old\nol")
    now[0] += server_log.OLDEST_S
    file.write(b"d\nnew\n")
    file.close()
    assert (tmp_path / "x.log.1").read_bytes() == b"old\nold\n"
    assert (tmp_path / "x.log").read_bytes() == b"new\n"


@pytest.mark.usefixtures("small")
def test_a_log_that_cannot_be_set_aside_goes_on_and_that_is_said_once(tmp_path: Path) -> None:
    said: list[OSError] = []
    for number in range(1, server_log.KEPT + 1):
        (tmp_path / f"x.log.{number}" / "full").mkdir(parents=True)
    file = server_log.Log(tmp_path / "x.log", said.append)
    for _ in range(20):
        file.write(b"x" * 999 + b"\n")
    file.close()
    assert len(said) == 1
    assert (tmp_path / "x.log").stat().st_size == 20_000
