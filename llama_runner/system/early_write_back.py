"""Brings what another program writes to the disk while it runs, so that the fsync after it has little to wait for."""

from __future__ import annotations

import os
import sys
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from llama_runner.system.platforms import start_write_back

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LEAST = 32 << 20
"""Bytes by which a file has grown before the system is told to write them."""
_EVERY_S = 0.1


class GrowingFiles:
    """The files of a directory that are being written, and how much of each the system was told to write."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._begun: dict[int, int] = {}

    def begin(self) -> list[tuple[str, int, int]]:
        """Let the system begin to write what is new; return name, offset and size of each part.

        Files below the directory's own directories, links and what is no file are left out.
        """
        parts = []
        with suppress(OSError), os.scandir(self._directory) as entries:
            for entry in entries:
                with suppress(OSError):
                    if entry.is_file(follow_symlinks=False):
                        parts += self._begin(entry.path, entry.name)
        return parts

    def _begin(self, path: str, name: str) -> list[tuple[str, int, int]]:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
        try:
            status = os.fstat(descriptor)
            begun = self._begun.get(status.st_ino, 0)
            size = status.st_size - begun
            if size < LEAST:
                return []
            self._begun[status.st_ino] = status.st_size
            start_write_back(descriptor, begun, size)
        finally:
            os.close(descriptor)
        return [(name, begun, size)]


@contextmanager
def written_back_early(directory: Path) -> Iterator[None]:
    """Within the context, let Linux begin to write files that grow in a directory; elsewhere do nothing."""
    if sys.platform == "linux":
        with _watched(GrowingFiles(directory)):
            yield
    else:
        yield


@contextmanager
def _watched(files: GrowingFiles) -> Iterator[None]:
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(_EVERY_S):
            files.begin()

    thread = threading.Thread(target=watch, name="write-back", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
