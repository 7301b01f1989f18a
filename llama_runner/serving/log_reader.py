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

_POLL_S = 0.2
_BLOCK = 1 << 16


class ServerLog:
    """The log of one server. ``runs`` returns whether the server is running."""

    def __init__(self, path: Path, runs: Callable[[], bool]) -> None:
        self.path, self.runs = path, runs

    def read(self, *, lines: int = 100, follow: bool = False) -> Iterator[bytes]:
        """Yield the last lines and, with ``follow``, what is added until the server ends."""
        with open_regular(self.path) as file:
            yield b"".join(last_lines(file, lines))
            if follow:
                yield from _added(self.path, file, self.runs)


def last_lines(file: IO[bytes], count: int) -> list[bytes]:
    """Return the last lines of a file; it is read from its end."""
    end = at = file.seek(0, os.SEEK_END)
    ends = 0
    while at > 0 and ends <= count:
        at = max(0, at - _BLOCK)
        file.seek(at)
        ends += file.read(min(_BLOCK, end - at)).count(b"\n")
    file.seek(at)
    return file.read(end - at).splitlines(keepends=True)[-count:] if count else []


def _added(path: Path, file: IO[bytes], runs: Callable[[], bool]) -> Iterator[bytes]:
    """Yield what is added, also when the log is set aside and begun anew."""
    try:
        while True:
            alive = runs()  # looked at first: what it said before its end is still to be read
            yield from _rest(file)
            with suppress(FileNotFoundError):
                if path.stat().st_ino != os.fstat(file.fileno()).st_ino:
                    yield from _rest(file)
                    file.close()
                    file = open_regular(path)
                    continue
            if not alive:
                return
            time.sleep(_POLL_S)
    finally:
        file.close()


def _rest(file: IO[bytes]) -> Iterator[bytes]:
    while block := file.read(_BLOCK):
        yield block
