"""Writing a file where the user wants it: it is there as a whole, or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from llama_runner.system.files import sync_directory

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_LONGEST = 255
"""Bytes of a file's name."""


@contextmanager
def new_file(target: Path) -> Iterator[Path]:
    """Yield the path of an empty file beside ``target``; it becomes ``target`` at the end and goes away on an error.

    Its name follows from that of ``target``, so what a killed process leaves is taken over by the next one. Where files
    cannot be locked, the name is a new one each time. Raises ``OSError``: ``FileExistsError`` if ``target`` exists by
    then, ``EBUSY`` while another process writes the same file.
    """
    unfinished, descriptor = _take(unfinished_name(target))
    try:
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
            with suppress(OSError):  # the error that matters is the one that led here
                unfinished.unlink(missing_ok=True)
            raise
    finally:
        if descriptor >= 0:
            os.close(descriptor)
    with suppress(OSError):  # the file is there and whole
        sync_directory(target.parent)


def unfinished_name(target: Path) -> Path:
    """Return where the content of ``target`` is written first."""
    name = f".{target.name}.unfinished"
    if len(os.fsencode(name)) > _LONGEST:
        name = f".{hashlib.sha256(os.fsencode(target.name)).hexdigest()[:16]}.unfinished"
    return target.with_name(name)


def _take(path: Path) -> tuple[Path, int]:
    """Return an empty file and its descriptor: the one at ``path``, locked until it is closed, or one of a new name."""
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
    while True:
        descriptor = os.open(path, flags, 0o666)
        try:
            if not _lock(descriptor, path):
                break
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                os.ftruncate(descriptor, 0)
                return path, descriptor
        except FileNotFoundError:  # its writer has finished, or given up, since it was opened
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
    """Lock a file and return True; False where files cannot be locked, ``EBUSY`` if another process has locked it."""
    if os.name == "nt":
        return False
    import fcntl  # noqa: PLC0415 - not on Windows

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise OSError(errno.EBUSY, "another process is writing it", str(path)) from None
    except OSError:  # a file system without locks
        return False
    return True
