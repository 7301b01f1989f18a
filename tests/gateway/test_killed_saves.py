"""A gateway or a llama-server that is killed at each phase of a save, and a disk that is full there.

A later request gets the answer that it had before. No plain text and no unfinished file is left.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from tests.gateway.conftest import Running, Start, _programs
from tests.gateway.session_chats import ONE, chat, states, stop
from tests.sessions import file_faults

AT_ONCE = ONE.replace("sessions = true", "sessions = { idle = 0 }")
BEFORE, TAKEN, RENAMED, RECORD, AFTER = (
    *(r"^read .*/states/.*\.json$", r"^os.rename .*\.part$", r"^os.rename .*\.kv$", r"^os.rename .*\.json$"),
    r"^os.remove .*/spool/.*\.kv$",
)
"""The operations of a save: look for a state, take over llama-server's file, name it, name its record, the end."""
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are looked up in /proc")

_WRITING = """#!/bin/sh
# The real llama-server, which has room for files of 102,400 bytes.
case "$*" in *"--alias one "*) ulimit -c 0; {end}; ulimit -f 200 ;; esac
exec "{program}" "$@"
"""
DIES, IS_FULL = ":", "trap '' XFSZ"


def encrypted(tmp_path: Path) -> str:
    key = tmp_path / "key"
    key.write_text(os.urandom(32).hex())
    key.chmod(0o600)
    return ONE.replace("sessions = true", f'sessions = {{ idle = 0, encryption_key = "{key}" }}')


def fault(tmp_path: Path, do: str, *at: str) -> dict[str, str]:
    """Return the environment of a gateway to which something is done at these operations."""
    (tmp_path / "sitecustomize.py").write_text("import tests.sessions.file_faults\n")
    below = str(tmp_path / "root" / ".llama_runner" / "sessions")
    paths = [str(tmp_path), str(Path(file_faults.__file__).parents[2])]
    return {"PYTHONPATH": os.pathsep.join(paths), "FILE_FAULT": json.dumps({"below": below, "at": at, "do": do})}


def spool_of(running: Running) -> Path:
    """Return the directory that llama-server writes to."""
    [child] = running.children()
    words = child.cmdline()
    return Path(words[words.index("--slot-save-path") + 1])


def check_as_before(running: Running, tmp_path: Path, text: str) -> None:
    """Check that the session answers as before, is saved at the end, and that there is nothing else on disk."""
    assert chat(running).text == text
    spool = spool_of(running)
    stop(running)
    [state] = states(tmp_path)
    files = [path for path in (tmp_path / "root" / ".llama_runner" / "sessions").rglob("*") if path.is_file()]
    [record] = [path for path in files if path != state]
    assert json.loads(record.read_text())["file"] == state.name
    assert not list(spool.iterdir())


@pytest.mark.parametrize(
    "phase", [BEFORE, TAKEN, RENAMED, RECORD, AFTER], ids=["before", "taken", "renamed", "record", "after"]
)
def test_a_gateway_that_is_killed_in_a_save_answers_as_before(gateway: Start, tmp_path: Path, phase: str) -> None:
    running = gateway(AT_ONCE, **fault(tmp_path, "kill", phase))
    first = chat(running)
    assert running.process.wait() == -9
    check_as_before(gateway(ONE), tmp_path, first.text)


def test_a_gateway_that_is_killed_while_it_encrypts_leaves_no_plain_text(gateway: Start, tmp_path: Path) -> None:
    text = encrypted(tmp_path)
    running = gateway(text, **fault(tmp_path, "limit and kill", r"^open .*\.part$"))
    first = chat(running)
    assert running.process.wait() < 0
    check_as_before(gateway(text), tmp_path, first.text)


@pytest.mark.parametrize("phase", [BEFORE, TAKEN, RECORD], ids=["before", "taken", "record"])
def test_a_llama_server_that_is_killed_in_a_save_answers_as_before(gateway: Start, tmp_path: Path, phase: str) -> None:
    running = gateway(AT_ONCE, **fault(tmp_path, "kill server", phase))
    first = chat(running)
    running.until("model_died")
    check_as_before(running, tmp_path, first.text)


def test_a_disk_that_is_full_at_any_phase_leaves_nothing_and_the_next_save_is_whole(
    gateway: Start, tmp_path: Path
) -> None:
    phases = (TAKEN, RENAMED, RECORD)
    running = gateway(AT_ONCE, **fault(tmp_path, "full", *phases))
    first = chat(running)
    for _ in phases:
        assert running.until("session_not_saved")["text"] == "No space left on device"
    chat(running)
    running.until("session_saved")
    check_as_before(running, tmp_path, first.text)


def test_a_disk_that_is_full_while_it_encrypts_leaves_no_plain_text(gateway: Start, tmp_path: Path) -> None:
    text = encrypted(tmp_path)
    running = gateway(text, **fault(tmp_path, "limit", r"^open .*\.part$"))
    first = chat(running)
    assert running.until("session_not_saved")["text"] == "File too large"
    assert not list(spool_of(running).iterdir())
    assert not states(tmp_path)
    running.process.kill()
    running.process.wait()
    check_as_before(gateway(text), tmp_path, first.text)


@pytest.mark.parametrize(
    ("end", "is_killed"), [(DIES, False), (DIES, True), (IS_FULL, False)], ids=["server", "both", "full"]
)
def test_a_file_that_llama_server_could_not_finish_is_deleted(
    gateway: Start, tmp_path: Path, binaries: Path, end: str, is_killed: bool
) -> None:
    programs = _programs(tmp_path / "programs", binaries, _WRITING.replace("{end}", end))
    more = fault(tmp_path, "kill", AFTER) if is_killed else {}
    running = gateway(AT_ONCE + f'binaries = "{programs}"\n', **more)
    first, spool = chat(running), tmp_path / "root" / ".llama_runner" / "sessions" / "spool" / "one"
    if is_killed:
        assert running.process.wait() == -9
        assert [path.stat().st_size for path in spool.iterdir()] == [102_400]
    else:
        running.until("session_not_saved" if end is IS_FULL else "model_died")
        running.process.kill()
        running.process.wait()
    assert not states(tmp_path)
    check_as_before(gateway(ONE), tmp_path, first.text)
