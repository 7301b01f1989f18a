"""Errors of the store: no room, no permission, something in the way, a lock that is held."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from llama_runner.core.errors import StoreError
from llama_runner.core.sizes import size_text

if TYPE_CHECKING:
    from pathlib import Path

NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def disk_full_error(where: Path | str, *, need: int | None = None, free: int | None = None) -> StoreError:
    """There is no room, found beforehand or on the way."""
    figures = "" if need is None or free is None else f": {size_text(need)} needed, {size_text(free)} free"
    return StoreError(
        f"no room left in {where}{figures}",
        hint="free some space or choose another --root, and run again: a download or a build goes on from there",
    )


def store_not_writable_error(where: Path | str, why: str) -> StoreError:
    """The store cannot be written."""
    return StoreError(
        f"cannot write to {where}: {why}",
        hint="make it writable or choose another --root (LLAMA_RUNNER_ROOT)",
    )


def in_the_way_error(path: Path | str) -> StoreError:
    """Something that is not ours is where an artifact belongs."""
    return StoreError(f"something else is in the way: {path}", hint="move it elsewhere and run again")


def lock_timeout_error(step: str, holder: str, seconds: float) -> StoreError:
    """Another process makes the same thing for longer than we were told to wait."""
    return StoreError(
        f"{step}: waited {seconds:.0f} s for {holder}",
        hint="wait for it, end it, or raise --lock-timeout",
    )


def as_store_error(error: OSError, where: Path) -> StoreError:
    """Return what an operating system error while a step runs means for the store."""
    if error.errno in NO_ROOM:
        return disk_full_error(where)
    path = error.filename2 or error.filename or where
    if error.errno in (errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENOTEMPTY):
        return in_the_way_error(path)
    return store_not_writable_error(path, error.strerror or str(error))
