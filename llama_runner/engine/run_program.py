"""Runs a program with its output in a log and, line by line, in a callback; the user can cancel it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
import time
from collections import deque
from typing import IO, TYPE_CHECKING

from llama_runner.core.errors import Interrupted
from llama_runner.engine.errors import ProgramFailed
from llama_runner.store.errors import disk_full_error
from llama_runner.system.platforms import KILL
from llama_runner.system.processes import signal_group, start

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from llama_runner.system.secret_redaction import Redactor

GRACE_S = 5.0
"""Seconds between SIGTERM and SIGKILL."""

_DISK_FULL_MESSAGES = ("No space left on device", "File too large", "File size limit exceeded", "Disk quota exceeded")

_LONGEST_LINE = 1 << 20
"""Maximum bytes of a line; a longer one is split."""

TAIL = 12
"""How many of the last lines of a failed program's output are part of the error."""


class Cancellation:
    """Cancels a run: sets a flag and ends the child processes. Thread-safe."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._children: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()

    def is_set(self) -> bool:
        """Whether ``cancel`` was called."""
        return self._event.is_set()

    def check(self) -> None:
        """Raise ``Interrupted`` if ``cancel`` was called."""
        if self._event.is_set():
            raise Interrupted

    def cancel(self) -> None:
        """Send SIGTERM to the process group of every child, and SIGKILL after ``GRACE_S``."""
        self._event.set()
        with self._lock:
            children = list(self._children)
        for child in children:
            signal_group(child, signal.SIGTERM)
        deadline = time.monotonic() + GRACE_S
        for child in children:
            try:
                child.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                pass
            finally:  # also for processes that outlive the child, and after a second Ctrl-C
                signal_group(child, KILL)

    def add(self, child: subprocess.Popen[bytes]) -> None:
        """Add a child to end on ``cancel``; it gets SIGTERM at once if that was called already."""
        with self._lock:
            self._children.add(child)
        if self._event.is_set():
            signal_group(child, signal.SIGTERM)

    def remove(self, child: subprocess.Popen[bytes]) -> None:
        """Remove a child that has ended."""
        with self._lock:
            self._children.discard(child)


def run(
    argv: Sequence[str | Path],
    *,
    env: Mapping[str, str],
    cwd: Path | None,
    log: IO[bytes],
    log_name: str,
    on_line: Callable[[str], None] | None,
    cancellation: Cancellation,
) -> None:
    """Run a program to its end; write its argv and output to ``log`` and pass each line to ``on_line``.

    Secrets in ``env`` and credentials in URLs are removed from both. A carriage return ends a line too, so that the
    updates of a progress bar are passed on. Raises ``ProgramFailed`` with the last lines, ``StoreError`` for a full
    disk, ``Interrupted`` after a cancellation.
    """
    from llama_runner.system.secret_redaction import Redactor  # noqa: PLC0415 - not on the warm path

    redactor = Redactor(env)
    log.write(f"$ {redactor.text(' '.join(map(str, argv)))}\n".encode("utf-8", "surrogateescape"))
    cancellation.check()
    child = start(argv, env=env, cwd=cwd, bound=True)
    cancellation.add(child)
    tail: deque[str] = deque(maxlen=TAIL)
    assert child.stdout is not None
    try:
        for line in _lines(child.stdout, log, redactor):
            if line.strip():
                tail.append(line.rstrip())
                if on_line is not None:
                    on_line(line)
        status = child.wait()
    except BaseException:
        signal_group(child, KILL)
        child.wait()
        raise
    finally:
        child.stdout.close()
        cancellation.remove(child)
    cancellation.check()
    if status:
        disk_full = any(message in line for line in tail for message in _DISK_FULL_MESSAGES)
        if disk_full or status == -getattr(signal, "SIGXFSZ", 0):
            raise disk_full_error(cwd or "the store")
        raise ProgramFailed(os.path.basename(argv[0]), status, list(tail), log_name)  # noqa: PTH119


def _lines(stream: IO[bytes], log: IO[bytes], redactor: Redactor) -> Iterator[str]:
    """Yield the lines of a stream as they arrive, redacted; the log gets them with their original line ends."""
    rest = b""
    while block := os.read(stream.fileno(), 1 << 16):
        pieces = re.split(rb"([\r\n])", rest + block)
        rest = pieces.pop()
        if len(rest) > _LONGEST_LINE:
            pieces, rest = [*pieces, rest, b""], b""
        lines = [redactor.text(line.decode("utf-8", "surrogateescape")) for line in pieces[::2]]
        ends = pieces[1::2]
        log.write(b"".join(_encoded(line) + end for line, end in zip(lines, ends, strict=True)))
        for line in lines:
            yield _encoded(line).decode("utf-8", "replace")
    if rest:
        line = redactor.text(rest.decode("utf-8", "surrogateescape"))
        log.write(_encoded(line))
        yield _encoded(line).decode("utf-8", "replace")


def _encoded(line: str) -> bytes:
    return line.encode("utf-8", "surrogateescape")
