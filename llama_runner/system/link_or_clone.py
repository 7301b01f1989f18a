"""Gives a file a second name or a copy-on-write copy, so that its bytes are on the disk once.

A clone (reflink) is a separate file. A hard link is another name of the same file: it must never be opened for writing,
and its mode and times never be changed; it may be renamed or removed.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from llama_runner.system.platforms import IS_WINDOWS

if TYPE_CHECKING:
    from io import BufferedReader
    from pathlib import Path

_FICLONE = 0x40049409  # from linux/fs.h; the fcntl module has it from Python 3.12 on


def clone(source: BufferedReader, target: Path) -> bool:
    """Make a copy-on-write clone; return False if that is not possible."""
    if sys.platform == "linux":
        import fcntl  # noqa: PLC0415 - not on Windows

        with target.open("xb", buffering=0) as new:
            try:
                fcntl.ioctl(new.fileno(), _FICLONE, source.fileno())
            except OSError:  # another device, or a file system that cannot do it
                target.unlink()
            else:
                return True
    return False


def link(source: Path, target: Path, seen: os.stat_result) -> bool:
    """Make a hard link; return False if that is not possible, or if the file has changed since ``seen``."""
    try:
        os.link(source, target)  # not allowed for files of others, nor everywhere
    except OSError:
        return False
    now = target.stat()
    if (now.st_ino, now.st_size, now.st_mtime_ns) == (seen.st_ino, seen.st_size, seen.st_mtime_ns):
        return True
    target.unlink()
    return False


def link_or_copy(original: Path, target: Path) -> None:
    """Make a symbolic link. Raises ``OSError``.

    On Windows, which refuses these to most users, it is a hard link or a copy.
    """
    try:
        target.symlink_to(original)
    except OSError:
        if not IS_WINDOWS:
            raise
        with suppress(OSError):  # it is on another drive
            os.link(original, target)
            return
        import shutil  # noqa: PLC0415 - not on the warm path

        shutil.copy2(original, target)
