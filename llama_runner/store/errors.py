"""Errors of the store: disk full, no permission, path occupied, lock held."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from llama_runner.core.errors import StoreError
from llama_runner.core.sizes import size_text

if TYPE_CHECKING:
    from pathlib import Path

NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def disk_full_error(where: Path | str, *, need: int | None = None, free: int | None = None) -> StoreError:
    """Return the error for a full disk; with ``need`` and ``free`` in bytes if found before writing."""
    figures = "" if need is None or free is None else f": {size_text(need)} needed, {size_text(free)} free"
    error = StoreError(
        f"no space left in {where}{figures}",
        hint="free some space or choose another --root, and run again: downloads and builds are resumed",
    )
    error.no_room = True
    return error


def bad_root_error(root: Path) -> StoreError:
    """Return the error for a root that is there and is not a directory."""
    why = "is a link to nothing" if root.is_symlink() and not root.exists() else "is not a directory"
    return StoreError(f"the root {root} {why}", hint="choose another --root (LLAMA_RUNNER_ROOT)")


def changed_record_error(state_file: str, name: str) -> StoreError:
    """Return the error for a record that another process changed after it was listed."""
    return StoreError(f"another process has changed the record of {name} in {state_file}", hint="run the command again")


def as_store_error(error: OSError, where: Path) -> StoreError:
    """Return the ``StoreError`` for an operating system error while the store is written."""
    if error.errno in NO_ROOM:
        return disk_full_error(where)
    path = error.filename2 or error.filename or where
    if error.errno in (errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENOTEMPTY):
        return StoreError(f"something else is in the way: {path}", hint="move it elsewhere and run again")
    why = error.strerror or str(error)
    hint = "make it writable or choose another --root (LLAMA_RUNNER_ROOT)"
    return StoreError(f"cannot write to {path}: {why}", hint=hint)
