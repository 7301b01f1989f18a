"""One process at a time makes the artifact of a key, and those who wait see who that is.

The lock itself is the operating system's (flock), so a holder that dies lets go whatever happens; a small file
beside it names the holder for people. A process holds one key lock at a time and asks for no other meanwhile.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from llama_runner.store.errors import lock_timeout_error
from llama_runner.system.files import read_json, write_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_POLL_S = 0.2


@contextmanager
def hold(
    path: Path,
    step: str,
    *,
    timeout: float,
    on_wait: Callable[[str], None] = lambda _holder: None,
    check_cancelled: Callable[[], None] = lambda: None,
) -> Iterator[None]:
    """Hold the lock at ``path``; call ``on_wait`` once with the holder's description if it is taken.

    Raises ``StoreError`` after ``timeout`` seconds, and whatever ``check_cancelled`` raises.
    """
    from filelock import FileLock, Timeout  # noqa: PLC0415 - the warm path takes no lock

    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    began, told = time.monotonic(), False
    while True:
        try:
            lock.acquire(timeout=0 if not told else _POLL_S, poll_interval=_POLL_S / 4)
            break
        except Timeout:
            check_cancelled()
            holder = describe_holder(path)
            if not told:
                told = True
                on_wait(holder)
            if time.monotonic() - began > timeout:
                raise lock_timeout_error(step, holder, timeout) from None
    try:
        write_json(_holder_file(path), _myself())
        yield
    finally:
        with suppress(OSError):
            _holder_file(path).unlink()
        lock.release()


@contextmanager
def try_hold(path: Path) -> Iterator[bool]:
    """Hold the lock if nobody does; say whether it is held."""
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


def describe_holder(path: Path) -> str:
    """Say who holds the lock at ``path``: process, host, command and since when."""
    try:
        holder = read_json(_holder_file(path))
        text = f"process {holder['pid']} on {holder['host']} ({holder['command']}), since {holder['since']}"
        if holder["host"] == socket.gethostname() and not _is_alive(int(holder["pid"])):
            return f"a program left behind by {text}; it is no longer running"
    except (OSError, ValueError, KeyError, TypeError):
        return "a process that did not say who it is"
    return text


def _myself() -> dict[str, object]:
    return {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "command": " ".join(os.path.basename(word) for word in sys.argv[:2]) or "python",  # noqa: PTH119
        "since": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _holder_file(path: Path) -> Path:
    return path.with_suffix(".holder.json")


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
