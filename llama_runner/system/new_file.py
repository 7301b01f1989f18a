"""Writing a file where the user wants it: it is there as a whole, or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_LONGEST = 255
"""Bytes of a file's name."""


@contextmanager
def new_file(target: Path) -> Iterator[Path]:
    """Yield the path of an empty file beside ``target``; it becomes ``target`` at the end and goes away on an error.

    Its name follows from that of ``target``, so what a killed process leaves is taken over by the next one. Raises
    ``OSError``: ``FileExistsError`` if ``target`` exists by then, ``EBUSY`` while another process writes the same file.
    """
    unfinished = unfinished_name(target)
    descriptor = _take(unfinished)
    try:
        yield unfinished
        os.fsync(descriptor)
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
        if os.name == "nt":  # a file that is open cannot be renamed there
            os.close(descriptor)
            descriptor = -1
        unfinished.replace(target)
    except BaseException:
        if descriptor >= 0:
            unfinished.unlink(missing_ok=True)
        raise
    finally:
        if descriptor >= 0:
            os.close(descriptor)
    _sync(target.parent)


def unfinished_name(target: Path) -> Path:
    """Return where the content of ``target`` is written first."""
    name = f".{target.name}.unfinished"
    if len(os.fsencode(name)) > _LONGEST:
        name = f".{hashlib.sha256(os.fsencode(target.name)).hexdigest()[:16]}.unfinished"
    return target.with_name(name)


def _take(path: Path) -> int:
    """Return a descriptor of the file at ``path``, emptied and locked until it is closed."""
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
    while True:
        descriptor = os.open(path, flags, 0o666)
        try:
            _lock(descriptor, path)
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                os.ftruncate(descriptor, 0)
                return descriptor
        except FileNotFoundError:  # its writer has finished, or given up, since it was opened
            pass
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _lock(descriptor: int, path: Path) -> None:
    if os.name == "nt":
        return
    import fcntl  # noqa: PLC0415 - not on Windows

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise OSError(errno.EBUSY, "another process is writing it", str(path)) from None
    except OSError:  # a file system without locks
        pass


def _sync(directory: Path) -> None:
    if os.name == "nt":  # a directory cannot be opened there
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
