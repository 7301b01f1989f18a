"""Writes a new file of the user's atomically: it appears complete or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from llama_runner.system.files import sync_directory
from llama_runner.system.platforms import IS_WINDOWS, lock_file, rename_over

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_LONGEST = 255
"""Maximum bytes of a file name."""


@contextmanager
def new_file(target: Path) -> Iterator[Path]:
    """Yield the path of an empty file beside ``target``; at the end it is renamed to ``target``, on an error removed.

    Its name is derived from ``target``, so the file of a killed process is reused by the next one. On file systems
    without locks the name is random. Raises ``OSError``: ``FileExistsError`` if ``target`` exists at the end, ``EBUSY``
    while another process writes the same file.
    """
    unfinished, descriptor = _open_locked(unfinished_name(target))
    try:
        try:
            yield unfinished
            os.fsync(descriptor)
            if os.path.lexists(target):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
            if IS_WINDOWS:  # a file that is open cannot be renamed there
                os.close(descriptor)
                descriptor = -1
            rename_over(unfinished, target)
        except BaseException:
            with suppress(OSError):  # the original exception is raised
                unfinished.unlink(missing_ok=True)
            raise
    finally:
        if descriptor >= 0:
            os.close(descriptor)
    with suppress(OSError):  # the file is complete
        sync_directory(target.parent)


def unfinished_name(target: Path) -> Path:
    """Return the path of the temporary file for ``target``."""
    name = f".{target.name}.unfinished"
    if len(os.fsencode(name)) > _LONGEST:
        name = f".{hashlib.sha256(os.fsencode(target.name)).hexdigest()[:16]}.unfinished"
    return target.with_name(name)


def _open_locked(path: Path) -> tuple[Path, int]:
    """Open an empty file: the one at ``path``, locked until it is closed, or one with a random name without locks."""
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
    while True:
        descriptor = os.open(path, flags, 0o666)
        try:
            if not _lock(descriptor, path):
                break
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                os.ftruncate(descriptor, 0)
                return path, descriptor
        except FileNotFoundError:  # its writer has renamed or removed it since it was opened
            pass
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
    os.close(descriptor)
    with suppress(OSError):
        path.unlink()
    path = path.with_name(f".{os.urandom(8).hex()}.unfinished")
    return path, os.open(path, flags | os.O_EXCL, 0o666)


def _lock(descriptor: int, path: Path) -> bool:
    """Lock a file; return False if locks are not supported. Raises ``EBUSY`` if another process holds the lock."""
    try:
        lock_file(descriptor)
    except BlockingIOError:
        raise OSError(errno.EBUSY, "another process is writing it", str(path)) from None
    except OSError:  # a file system without locks, or Windows
        return False
    return True
