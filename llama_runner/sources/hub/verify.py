"""Whether bytes are those that a repository lists: the hashes of a file, taken while it is still being written.

The thread that hashes follows the file rather than the connection: what it says is true of the bytes on the disk,
nothing has to be handed over, and what an earlier run has left is hashed while the rest is on its way.
"""

from __future__ import annotations

import hashlib
import threading
from typing import TYPE_CHECKING

from llama_runner.core.digest import Digest, file_digest
from llama_runner.core.errors import Interrupted
from llama_runner.core.value import Value
from llama_runner.system.files import open_regular

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from typing_extensions import Self

    from llama_runner.sources.hub.pins import RemoteFile

BLOCK = 1 << 20
INCOMPLETE = ".incomplete"
"""What the name of a file ends with as long as it is not known to be whole and right."""


class Content(Value):
    """What the bytes of a file hash to."""

    sha256: Digest
    blob: str
    """The SHA-1 that git would give them, in hex; empty where nobody asked for it."""

    def difference(self, file: RemoteFile) -> tuple[str, str] | None:
        """Return what is listed and what was found, where they differ."""
        if file.sha256 is not None and self.sha256 != file.sha256:
            return file.sha256, self.sha256
        if file.blob and self.blob != file.blob:
            return f"git blob {file.blob}", f"git blob {self.blob}"
        return None


class Hashes:
    """The hashes of a file, fed in order."""

    def __init__(self, file: RemoteFile) -> None:
        self._sha256 = hashlib.sha256()
        self._blob = hashlib.sha1(b"blob %d\0" % file.size, usedforsecurity=False) if file.blob else None

    def update(self, data: memoryview) -> None:
        """Go on with these bytes."""
        self._sha256.update(data)
        if self._blob is not None:
            self._blob.update(data)

    def content(self) -> Content:
        """Return what they are up to here."""
        blob = "" if self._blob is None else self._blob.hexdigest()
        return Content(file_digest(self._sha256.hexdigest()), blob)


def content_of(path: Path, file: RemoteFile, cancelled: Callable[[], bool]) -> Content:
    """Return what a file that is there hashes to; ``Interrupted`` once ``cancelled`` says so."""
    hashes = Hashes(file)
    with open_regular(path) as opened:
        block = memoryview(bytearray(BLOCK))
        while count := opened.raw.readinto(block):
            if cancelled():
                raise Interrupted
            hashes.update(block[:count])
    return hashes.content()


class Following:
    """Hashes a file from its beginning while it grows, in a thread of its own.

    Use it as a context; ``grown`` says how far the file may be read, ``content`` waits until it was.
    """

    def __init__(self, path: Path, file: RemoteFile, cancelled: Callable[[], bool]) -> None:
        self._hashes, self._cancelled = Hashes(file), cancelled
        self._path, self._limit, self._told, self._last = path, 0, 0, False
        self._change = threading.Condition()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name=f"hash {file.name}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end(at=0)

    def grown(self, to: int) -> None:
        """Say that the file's first ``to`` bytes are written."""
        self._limit = to
        if to - self._told >= BLOCK:  # not for each piece: waking a thread costs more than a small piece takes
            with self._change:
                self._told = to
                self._change.notify()

    def content(self) -> Content:
        """Wait until the file is hashed as far as it was written; raise what reading it raised."""
        self._end(at=self._limit)
        if self._error is not None:
            raise self._error
        return self._hashes.content()

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
                        return  # somebody has cut it; then the hash tells
                    self._hashes.update(block[:count])
                    at += count
        except BaseException as error:  # noqa: BLE001 - raised where the content is asked for
            self._error = error

    def _wait(self, at: int) -> int:
        """Return how far the file may be read once that is worth while, and not beyond ``at`` when all was."""
        if self._limit - at < BLOCK:
            with self._change:
                self._change.wait_for(lambda: self._last or self._limit - at >= BLOCK)
        return self._limit
