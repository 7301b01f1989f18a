"""Runs the program of a step: its output goes line by line to a log and to the step, and the user can stop it."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections import deque
from typing import IO, TYPE_CHECKING

from llama_runner.core.errors import Interrupted
from llama_runner.engine.errors import DiskFull, ProgramFailed
from llama_runner.system.processes import signal_group, start

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

GRACE_S = 5.0
"""How long a child may take to end after SIGTERM before it is killed."""

_OUT_OF_ROOM = ("No space left on device", "File too large", "File size limit exceeded", "Disk quota exceeded")

TAIL = 12
"""Lines of a failed program's output that go into the error."""


class Cancellation:
    """The user's wish to stop, and the children that must hear of it."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._children: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()

    def is_set(self) -> bool:
        """Whether somebody asked to stop."""
        return self._event.is_set()

    def check(self) -> None:
        """Raise ``Interrupted`` once somebody asked to stop."""
        if self._event.is_set():
            raise Interrupted

    def cancel(self) -> None:
        """Ask every child to end, and kill those that have not after the grace time."""
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
            finally:  # also those that a child has started and left behind, and when Ctrl-C comes again
                signal_group(child, signal.SIGKILL)

    def add(self, child: subprocess.Popen[bytes]) -> None:
        """Tell this child when the user wants to stop; at once if that has happened."""
        with self._lock:
            self._children.add(child)
        if self._event.is_set():
            signal_group(child, signal.SIGTERM)

    def remove(self, child: subprocess.Popen[bytes]) -> None:
        """Forget a child that has ended."""
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
    """Run a program to its end, its output into ``log`` and each line to ``on_line``.

    Carriage returns end lines too, so that a progress bar is heard. Raises ``ProgramFailed`` with the last
    lines, ``DiskFull`` when they say so, ``Interrupted`` when the user asked to stop.
    """
    cancellation.check()
    child = start(argv, env=env, cwd=cwd, bound=True)
    cancellation.add(child)
    tail: deque[str] = deque(maxlen=TAIL)
    assert child.stdout is not None
    try:
        for line in _lines(child.stdout, log):
            if line.strip():
                tail.append(line.rstrip())
                if on_line is not None:
                    on_line(line)
        status = child.wait()
    except BaseException:
        signal_group(child, signal.SIGKILL)
        child.wait()
        raise
    finally:
        child.stdout.close()
        cancellation.remove(child)
    cancellation.check()
    if status:
        out_of_room = any(said in line for line in tail for said in _OUT_OF_ROOM)
        if out_of_room or status == -getattr(signal, "SIGXFSZ", 0):
            raise DiskFull(cwd or "the store")
        raise ProgramFailed(os.path.basename(argv[0]), status, list(tail), log_name)  # noqa: PTH119


def _lines(stream: IO[bytes], log: IO[bytes]) -> Iterator[str]:
    """Yield the lines of a stream; every byte is written to the log as it comes."""
    rest = b""
    while block := os.read(stream.fileno(), 1 << 16):
        log.write(block)
        *lines, rest = (rest + block).replace(b"\r", b"\n").split(b"\n")
        for line in lines:
            yield line.decode("utf-8", "replace")
    if rest:
        yield rest.decode("utf-8", "replace")
