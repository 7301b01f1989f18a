"""The log file of a server: complete, readable by its owner only, rotated by size and age."""

from __future__ import annotations

import os
import re
import time
from contextlib import suppress
from typing import IO, TYPE_CHECKING

from llama_runner.serving.server_registry import logs_in_use
from llama_runner.store.layout import log_place

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LARGEST = 256 << 20
"""Bytes after which a log is rotated at the end of a line; after twice as many also within a line."""

OLDEST_S = 7 * 86400.0
"""Seconds after which the log of a running server is rotated."""

KEPT = 5
"""Number of rotated files; ``x.log.1`` is the newest."""


LONGEST_S = 30 * 86400.0
"""Seconds after which the log of a server that has ended is removed, unless it is one of the last ``SPARED``."""

SPARED = 50

MOST = 500
"""Number of logs of ended servers that are kept at most, however young: a gateway starts a server for each load."""

_SERVERS = "run-server"
_ASIDE = re.compile(r"\.log\.\d+$")


def new_name() -> str:
    """Return the name of a new log, below the root; unique across the containers that share the root."""
    at = time.strftime("%Y-%m-%dT%H-%M-%S", time.gmtime())
    return log_place(f"{_SERVERS}-{at}-{os.getpid()}-{os.urandom(2).hex()}")


def prune(log: Path, registry: Path) -> None:
    """Remove the logs of servers that ended long ago beside ``log``, the log of a server of the same registry.

    The time of the last write does not tell whether a server has ended, as a server may have nothing to say: the logs
    that the registry names stay, with what was set aside of them.
    """
    if not log.name.startswith(_SERVERS):
        return
    used = {log.name} | logs_in_use(registry)
    with suppress(OSError), os.scandir(log.parent) as entries:
        ages = sorted(
            (entry.stat().st_mtime, entry.path)
            for entry in entries
            if entry.name.startswith(f"{_SERVERS}-") and ".log" in entry.name
            if _ASIDE.sub(".log", entry.name) not in used
        )
        for number, (written, path) in enumerate(ages[:-SPARED]):
            if time.time() - written > LONGEST_S or len(ages) - number > MOST:
                with suppress(FileNotFoundError):  # another process removed it
                    os.unlink(path)  # noqa: PTH108 - text


class Log:
    """A log that is appended to. What cannot be written is said once, to ``on_trouble``, and nothing is raised."""

    def __init__(self, path: Path, on_trouble: Callable[[OSError], None]) -> None:
        self.path = path
        self._on_trouble: Callable[[OSError], None] | None = on_trouble
        self._file: IO[bytes] | None = None
        self._size, self._began = 0, time.monotonic()
        self._at_line_end = True
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._open()
        except OSError as error:
            self._tell(error)

    def write(self, block: bytes) -> None:
        """Append every byte."""
        if self._size and (self._size >= LARGEST or time.monotonic() - self._began >= OLDEST_S):
            end = 0 if self._at_line_end else block.find(b"\n") + 1
            if end or self._at_line_end or self._size >= 2 * LARGEST:
                self._append(block[:end])
                self._set_aside()
                block = block[end:]
        self._append(block)

    def flush(self) -> None:
        """Do nothing: what is written is in the file."""

    def close(self) -> None:
        """Stop writing."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open(self) -> None:
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._file = os.fdopen(descriptor, "ab", buffering=0)
        self._size, self._began = os.fstat(descriptor).st_size, time.monotonic()

    def _append(self, block: bytes) -> None:
        if self._file is None or not block:
            return
        self._at_line_end = block.endswith(b"\n")
        rest = memoryview(block)
        try:
            while rest:  # a disk that is nearly full takes a part
                count = self._file.write(rest) or 0
                self._size += count
                rest = rest[count:]
        except OSError as error:
            self._tell(error)

    def _set_aside(self) -> None:
        """Rotate the log; after an error the old file is continued."""
        before = self._file
        try:
            for number in range(KEPT - 1, 0, -1):
                with suppress(FileNotFoundError):
                    self._aside(number).replace(self._aside(number + 1))
            self.path.replace(self._aside(1))
            self._open()
        except OSError as error:
            self._size, self._began = 1, time.monotonic()  # not before as much again was said
            self._tell(error)
        else:
            if before is not None:
                before.close()

    def _aside(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}")

    def _tell(self, error: OSError) -> None:
        tell, self._on_trouble = self._on_trouble, None
        if tell is not None:
            tell(error)
