"""Errors of the store: no room, no permission, something in the way, a lock that is held."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from llama_runner.core.errors import StoreError
from llama_runner.core.sizes import size_text

if TYPE_CHECKING:
    from pathlib import Path

NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class DiskFull(StoreError):
    """There is no room, found beforehand or on the way."""

    def __init__(self, where: Path | str, *, need: int | None = None, free: int | None = None) -> None:
        self.where, self.need, self.free = where, need, free
        figures = "" if need is None or free is None else f": {size_text(need)} needed, {size_text(free)} free"
        super().__init__(
            f"no room left in {where}{figures}",
            hint="free some space or choose another --root, and run again: a download or a build goes on from there",
        )


class StoreNotWritable(StoreError):
    """The store cannot be written."""

    def __init__(self, where: Path | str, why: str) -> None:
        self.where, self.why = where, why
        super().__init__(
            f"cannot write to {where}: {why}",
            hint="make it writable or choose another --root (LLAMA_RUNNER_ROOT)",
        )


class InTheWay(StoreError):
    """Something that is not ours is where an artifact belongs."""

    def __init__(self, path: Path | str) -> None:
        self.path = path
        super().__init__(f"something else is in the way: {path}", hint="move it elsewhere and run again")


class LockTimeout(StoreError):
    """Another process makes the same thing for longer than we were told to wait."""

    def __init__(self, step: str, holder: str, seconds: float) -> None:
        self.step, self.holder, self.seconds = step, holder, seconds
        super().__init__(
            f"{step}: waited {seconds:.0f} s for {holder}",
            hint="wait for it, end it, or raise --lock-timeout",
        )


def as_store_error(error: OSError, where: Path) -> StoreError:
    """Return what an operating system error while a step runs means for the store."""
    if error.errno in NO_ROOM:
        return DiskFull(where)
    path = error.filename2 or error.filename or where
    if error.errno in (errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENOTEMPTY):
        return InTheWay(path)
    return StoreNotWritable(path, error.strerror or str(error))
