"""Locks between processes; for each key, one process at a time makes the artifact.

The lock is the operating system's (flock), so it is released when its holder dies. A small file beside it describes the
holder for messages. A process that holds the lock of a key does not wait for another one.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from llama_runner.core.errors import StoreError
from llama_runner.core.events import LockWaiting, Sink
from llama_runner.system.files import read_json, write_json
from llama_runner.system.platforms import IS_WINDOWS, is_alive, is_locked
from llama_runner.system.utc_time import utc_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_POLL_S = 0.2


@contextmanager
def hold(
    path: Path,
    step: str,
    sink: Sink = lambda _event: None,
    *,
    timeout: float,
    check_cancelled: Callable[[], None] = lambda: None,
) -> Iterator[None]:
    """Hold the lock at ``path``; ``sink`` gets one ``LockWaiting`` if another process holds it.

    Raises ``StoreError`` after ``timeout`` seconds, and the exceptions of ``check_cancelled``.
    """
    from filelock import FileLock, Timeout  # noqa: PLC0415 - the warm path takes no lock

    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    began, waiting = time.monotonic(), False
    while True:
        try:
            lock.acquire(timeout=0 if not waiting else _POLL_S, poll_interval=_POLL_S / 4)
            break
        except Timeout:
            check_cancelled()
            holder = describe_holder(path)
            if not waiting:
                waiting = True
                sink(LockWaiting(step, holder))
            if time.monotonic() - began > timeout:
                hint = "wait for it, end it, or raise --lock-timeout"
                raise StoreError(f"{step}: waited {timeout:.0f} s for {holder}", hint=hint) from None
    try:
        with suppress(OSError):  # it is only for messages, and gc must work on a full disk
            write_json(holder_file(path), _holder_of_this_process())
        yield
    finally:
        with suppress(OSError):
            holder_file(path).unlink()
        lock.release()


@contextmanager
def try_hold(path: Path) -> Iterator[bool]:
    """Acquire the lock without waiting; yields whether it was acquired."""
    from filelock import FileLock, Timeout  # noqa: PLC0415 - as above

    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def is_held(path: Path) -> bool:
    """Whether a process holds the lock; raises ``OSError`` where it cannot be opened. For thousands of locks."""
    if IS_WINDOWS:
        with try_hold(path) as held:
            return not held
    return is_locked(path)


def describe_holder(path: Path) -> str:
    """Return a description of the holder of the lock at ``path``: process, host, command and start time."""
    try:
        holder = read_json(holder_file(path))
        text = f"process {holder['pid']} on {holder['host']} ({holder['command']}), since {holder['since']}"
        if holder["host"] == socket.gethostname() and not is_alive(int(holder["pid"])):
            return f"a child process of {text}; that process has ended"
    except (OSError, ValueError, KeyError, TypeError):
        return "an unknown process"
    return text


def _holder_of_this_process() -> dict[str, object]:
    return {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "command": " ".join(os.path.basename(word) for word in sys.argv[:2]) or "python",  # noqa: PTH119
        "since": utc_text(),
    }


def holder_file(path: Path) -> Path:
    """Return the file that describes the holder of a lock."""
    return path.with_suffix(".holder.json")
