"""Runs the program of a step: its output goes line by line to a log and to the step, and the user can stop it."""

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
from llama_runner.system.processes import signal_group, start

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from llama_runner.system.redaction import Redactor

GRACE_S = 5.0
"""How long a child may take to end after SIGTERM before it is killed."""

_OUT_OF_ROOM = ("No space left on device", "File too large", "File size limit exceeded", "Disk quota exceeded")

_LONGEST_LINE = 1 << 20
"""Bytes after which a line that does not end is taken for a line."""

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
    """Run a program to its end, its argv and its output into ``log`` and each line to ``on_line``.

    Neither shows a secret of ``env`` or a credential of a URL. Carriage returns end lines too, so that a progress bar
    is heard. Raises ``ProgramFailed`` with the last lines, ``StoreError`` for a full disk, ``Interrupted`` when
    asked to stop.
    """
    from llama_runner.system.redaction import Redactor  # noqa: PLC0415 - not on the warm path

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
            raise disk_full_error(cwd or "the store")
        raise ProgramFailed(os.path.basename(argv[0]), status, list(tail), log_name)  # noqa: PTH119


def _lines(stream: IO[bytes], log: IO[bytes], redactor: Redactor) -> Iterator[str]:
    """Yield the lines of a stream as they come, redacted; they are written to the log with their own line ends."""
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
