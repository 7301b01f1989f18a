"""Hashes downloaded files, also while they are still being written.

The hashing thread reads the file, not the connection: its result describes the bytes on the disk, and what an earlier
run has left is hashed while the rest arrives.
"""

from __future__ import annotations

import hashlib
import threading
from typing import TYPE_CHECKING

from llama_runner.core.digest import Digest, file_digest
from llama_runner.core.errors import Interrupted
from llama_runner.core.immutable_values import Value
from llama_runner.system.files import open_regular

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from typing_extensions import Self

    from llama_runner.sources.hub.pins import RemoteFile

BLOCK = 1 << 20
INCOMPLETE = ".incomplete"
"""Suffix of a file that is not yet complete and verified."""


class FileHashes(Value):
    """Hashes of a file."""

    sha256: Digest
    blob: str
    """The SHA-1 of the git blob in hex; empty if it is not needed."""

    def difference(self, file: RemoteFile) -> tuple[str, str] | None:
        """Return the listed and the actual hash if they differ, else None."""
        if file.sha256 is not None and self.sha256 != file.sha256:
            return file.sha256, self.sha256
        if file.blob and self.blob != file.blob:
            return f"git blob {file.blob}", f"git blob {self.blob}"
        return None


class FileHasher:
    """Incremental hashes of a file."""

    def __init__(self, file: RemoteFile) -> None:
        self._sha256 = hashlib.sha256()
        self._blob = hashlib.sha1(b"blob %d\0" % file.size, usedforsecurity=False) if file.blob else None

    def update(self, data: memoryview) -> None:
        """Hash the next bytes."""
        self._sha256.update(data)
        if self._blob is not None:
            self._blob.update(data)

    def result(self) -> FileHashes:
        """Return the hashes of all bytes so far."""
        blob = "" if self._blob is None else self._blob.hexdigest()
        return FileHashes(file_digest(self._sha256.hexdigest()), blob)


def hash_file(path: Path, file: RemoteFile, cancelled: Callable[[], bool]) -> FileHashes:
    """Return the hashes of a file; raises ``Interrupted`` once ``cancelled`` returns true."""
    hashes = FileHasher(file)
    with open_regular(path) as opened:
        block = memoryview(bytearray(BLOCK))
        while count := opened.raw.readinto(block):
            if cancelled():
                raise Interrupted
            hashes.update(block[:count])
    return hashes.result()


class TailHasher:
    """Hashes a growing file from its beginning, in a thread of its own.

    A context manager. ``extend`` sets how far the file may be read; ``result`` waits until it is hashed.
    """

    def __init__(self, path: Path, file: RemoteFile, cancelled: Callable[[], bool]) -> None:
        self._hashes, self._cancelled = FileHasher(file), cancelled
        self._path, self._limit, self._told, self._last = path, 0, 0, False
        self._change = threading.Condition()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name=f"hash {file.name}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end(at=0)

    def extend(self, to: int) -> None:
        """Set the number of bytes that are written."""
        self._limit = to
        if to - self._told >= BLOCK:  # not for each chunk: waking a thread costs more than hashing a small one
            with self._change:
                self._told = to
                self._change.notify()

    def result(self) -> FileHashes:
        """Wait until all written bytes are hashed; raise what the thread raised."""
        self._end(at=self._limit)
        if self._error is not None:
            raise self._error
        return self._hashes.result()

    def _end(self, at: int) -> None:
        with self._change:
            self._limit, self._last = at, True
            self._change.notify()
        self._thread.join()

    def _work(self) -> None:
        try:
            at = 0
            block = memoryview(bytearray(BLOCK))
            with open_regular(self._path) as opened:
                while (limit := self._wait(at)) > at:
                    if self._cancelled():
                        raise Interrupted
                    count = opened.raw.readinto(block[: min(BLOCK, limit - at)])
                    if not count:
                        return  # truncated by another process; the hash will differ
                    self._hashes.update(block[:count])
                    at += count
        except BaseException as error:  # noqa: BLE001 - raised by result()
            self._error = error

    def _wait(self, at: int) -> int:
        """Wait for a full block beyond ``at``, or for the end; return how far the file may be read."""
        if self._limit - at < BLOCK:
            with self._change:
                self._change.wait_for(lambda: self._last or self._limit - at >= BLOCK)
        return self._limit
