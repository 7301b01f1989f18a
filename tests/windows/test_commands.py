"""The commands with the real Windows programs: prepare, run, infer, ps, logs, restart, stop. See docs/platforms.md."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from llama_runner.demo import ANSWER, QUESTION
from llama_runner.system.platforms import IS_WINDOWS
from tests.windows.commands import Foreground, call, sentence, servers

pytestmark = pytest.mark.skipif(not IS_WINDOWS, reason="scripts/test_windows.sh runs it with Windows' Python")


@pytest.fixture
def detached(root: Path) -> Iterator[dict[str, Any]]:
    """Start a server in the background."""
    call("run", "--demo", "--detach", "--port", 0, "--root", root)
    [server] = servers(root)
    yield server
    if servers(root):
        call("stop", "--all", "--root", root)


def test_19_02_prepare_again_runs_nothing(root: Path) -> None:
    assert "done in" not in call("prepare", "--demo", "--root", root).stderr
    steps = json.loads(call("plan", "--demo", "--json", "--root", root).stdout)["steps"]
    assert {step["action"] for step in steps} == {"skip"}


def test_19_02_infer_says_the_sentence(root: Path) -> None:
    assert ANSWER in call("infer", "--demo", QUESTION, "--temperature", 0, "--root", root).stdout


def test_19_02_a_detached_server_answers_is_restarted_and_stopped(root: Path, detached: dict[str, Any]) -> None:
    assert sentence(detached["url"]) == ANSWER
    log = call("logs", detached["alias"], "--root", root).stdout
    assert "model loaded" in log
    assert not any(line.endswith("\\r") for line in log.splitlines())
    call("restart", detached["alias"], "--root", root)
    [again] = servers(root)
    assert again["url"] == detached["url"]
    assert again["pid"] != detached["pid"]
    assert sentence(again["url"]) == ANSWER
    call("stop", again["alias"], "--root", root)
    assert servers(root) == []
    assert not psutil.pid_exists(again["pid"])


@pytest.fixture
def foreground(root: Path) -> Iterator[Foreground]:
    """Start a server in the foreground."""
    started = Foreground(["llama_runner.run_server", "--demo", "--port", "0"], root)
    yield started
    started.close()


def test_19_02_llama_server_does_not_outlive_us(foreground: Foreground) -> None:
    assert sentence(foreground.server["url"]) == ANSWER
    llama_server = psutil.Process(foreground.server["pid"])
    foreground.process.kill()
    assert psutil.wait_procs([llama_server], 60)[1] == []


def test_19_02_a_taken_port_is_told(root: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert str(port) in call("run", "--demo", "--port", port, "--root", root, code=8).stderr
