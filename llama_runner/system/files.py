"""Reading of small files that somebody else wrote, regular files only, up to a limit; logs for the owner only."""

from __future__ import annotations

import errno
import os
import stat
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def read_bounded(path: str | Path, limit: int) -> bytes:
    """Return the content of a regular file of at most ``limit`` bytes; symbolic links are followed.

    Raises ``OSError`` with a ``strerror`` that can be shown: for anything that is not a regular file (a FIFO would
    block, a device has no end), for a file that is larger, and for what the system itself refuses.
    """
    content = read_head(path, limit + 1)
    if len(content) > limit:
        raise OSError(errno.EFBIG, f"larger than the limit of {limit} bytes", str(path))
    return content


def read_head(path: str | Path, size: int) -> bytes:
    """Return the first ``size`` bytes of a regular file, or all of a smaller one; raises ``OSError`` as above."""
    # O_NONBLOCK: opening a FIFO would wait for a writer; regular files ignore it
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
    descriptor = os.open(path, flags)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        return file.read(size)  # the file may grow after fstat; this read has the last word


def open_private_log(path: str | Path) -> IO[bytes]:
    """Return a file to append to, unbuffered; created for its owner only, as what programs print may be private."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab", buffering=0)
