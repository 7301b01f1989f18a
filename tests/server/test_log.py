"""What the server says is kept whole, and nothing that happens to it stops the server."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from llama_runner.core.events import Warned
from llama_runner.server.errors import ServerDied
from tests.server.play import get

if TYPE_CHECKING:
    from tests.server.play import Stage


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
