"""Reads the log of a server: its last lines, and what is added while the server runs."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import IO, TYPE_CHECKING

from llama_runner.system.files import open_regular

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from typing_extensions import Self

_POLL_S = 0.2
_BLOCK = 1 << 16


class ServerLog:
    """The log of one server. ``runs`` returns whether the server is running."""

    def __init__(self, path: Path, runs: Callable[[], bool]) -> None:
        self.path, self.runs = path, runs

    def read(self, *, lines: int = 100, follow: bool = False) -> Iterator[bytes]:
        """Yield the last lines and, with ``follow``, what is added until the server ends."""
        with FollowedLog(self.path) as log:
            yield b"".join(last_lines(log.file, lines))
            while follow:
                alive = self.runs()  # looked at first: what it said before its end is still to be read
                while block := log.added():
                    yield block
                if not alive:
                    return
                time.sleep(_POLL_S)


class FollowedLog:
    """A log that is read while it is written, also when it is set aside and begun anew. Raises ``OSError``."""

    def __init__(self, path: Path) -> None:
        self._path, self._is_closed = path, False
        self.file: IO[bytes] = open_regular(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def added(self) -> bytes:
        """Return a block of what was added since the last call; empty where nothing was."""
        block = self.file.read(_BLOCK)
        if block:
            return block
        with suppress(OSError):
            if self._path.stat().st_ino == os.fstat(self.file.fileno()).st_ino:
                return b""
            if block := self.file.read(_BLOCK):  # written before it was set aside
                return block
            newer = open_regular(self._path)
            self.file.close()
            self.file = newer
            if self._is_closed:  # by another thread, meanwhile
                newer.close()
                return b""
        return self.file.read(_BLOCK)

    def close(self) -> None:
        """End reading."""
        self._is_closed = True
        self.file.close()


def last_lines(file: IO[bytes], count: int) -> list[bytes]:
    """Return the last lines of a file; it is read from its end."""
    end = at = file.seek(0, os.SEEK_END)
    ends = 0
    while at > 0 and ends <= count:
        at = max(0, at - _BLOCK)
        file.seek(at)
        ends += file.read(min(_BLOCK, end - at)).count(b"\n")
    file.seek(at)
    lines = file.read(end - at).splitlines(keepends=True)
    return lines[-count:] if count else []
