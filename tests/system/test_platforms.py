"""What differs by system: reads at a place, and requests of one process to another. Runs on Windows too."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from llama_runner.store import removal
from llama_runner.system.platforms import hang_up, read_at, rename_over, signal_process

LISTENER = """
import os, signal, sys, threading
from llama_runner.system.platforms import take_requests

ended = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: ended.set())
take_requests(lambda: os.write(1, b"hangs up\\n"))  # in a handler: it may interrupt print
print("listens", flush=True)
while not ended.wait(0.05):
    pass
print("ends", flush=True)
"""


@pytest.fixture
def listener() -> Iterator[subprocess.Popen[str]]:
    """Start a process that takes requests, and wait until it does."""
    with subprocess.Popen([sys.executable, "-c", LISTENER], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "listens\n"
        yield process
        process.kill()


def test_19_02_a_process_is_asked_to_reload_and_then_to_end(listener: subprocess.Popen[str]) -> None:
    assert listener.stdout is not None
    hang_up(listener.pid)
    assert listener.stdout.readline() == "hangs up\n"
    hang_up(listener.pid)
    assert listener.stdout.readline() == "hangs up\n"
    signal_process(listener.pid, signal.SIGTERM)
    assert listener.stdout.read() == "ends\n"
    assert listener.wait() == 0


def test_19_02_a_process_that_takes_no_requests_is_ended() -> None:
    words = [sys.executable, "-c", "import sys; print(flush=True); sys.stdin.read()"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        signal_process(process.pid, signal.SIGTERM)
        assert process.wait() != 0


def test_19_02_threads_share_a_descriptor(tmp_path: Path) -> None:
    path, size = tmp_path / "file", 1 << 12
    path.write_bytes(b"".join(bytes([number]) * size for number in range(256)))
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))

    def is_whole(number: int) -> bool:
        buffer = bytearray(size)
        return read_at(descriptor, memoryview(buffer), number * size) == size and buffer == bytes([number]) * size

    try:
        with ThreadPoolExecutor(4) as pool:
            assert all(pool.map(is_whole, list(range(256)) * 8))
    finally:
        os.close(descriptor)


def test_19_02_a_file_that_another_process_has_open_for_a_moment_is_replaced(tmp_path: Path) -> None:
    target, new = tmp_path / "state", tmp_path / "new"
    target.write_text("old")
    new.write_text("new")
    words = [sys.executable, "-c", "import sys; file = open(sys.argv[1]); print(flush=True); sys.stdin.read(1)"]
    with subprocess.Popen([*words, str(target)], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as reader:
        assert reader.stdout is not None
        assert reader.stdin is not None
        reader.stdout.readline()
        with ThreadPoolExecutor(1) as pool:
            replacing = pool.submit(rename_over, new, target)
            reader.stdin.close()
            replacing.result()
    assert target.read_text() == "new"


def test_19_02_a_lock_file_that_nobody_holds_is_deleted(tmp_path: Path) -> None:
    lock = tmp_path / "key.lock"
    lock.touch()
    assert removal.unlink_lock(lock)
    assert not lock.exists()
