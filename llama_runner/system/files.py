"""Files: bounded reads of what somebody else wrote, atomic writes of ours, logs for their owner only."""

from __future__ import annotations

import errno
import json
import os
import stat
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from io import BufferedReader
    from pathlib import Path

LARGEST_JSON = 64 << 20
"""Bytes of a JSON file, where nothing else is said; the index of the largest models has ten million."""


def try_writing(directory: Path) -> None:
    """Write a file into a directory, which is made, and remove it; raises ``OSError`` where that is not possible."""
    directory.mkdir(parents=True, exist_ok=True)
    probe = directory / f"probe-{os.getpid()}-{os.urandom(4).hex()}"
    try:
        probe.write_bytes(b"probe")
    finally:
        probe.unlink(missing_ok=True)


def read_bounded(path: str | Path, limit: int) -> bytes:
    """Return the content of a regular file of at most ``limit`` bytes; symbolic links are followed.

    Raises ``OSError`` with a ``strerror`` that can be shown: for anything that is not a regular file (a FIFO would
    block, a device has no end), for a file that is larger, and for what the system itself refuses.
    """
    with open_regular(path) as file:
        if os.fstat(file.fileno()).st_size <= limit:
            content = _start(file, limit + 1)  # the file may grow after it was opened
            if len(content) <= limit:
                return content
    raise OSError(errno.EFBIG, f"larger than the limit of {limit} bytes", str(path))


def read_json(path: str | Path, limit: int = LARGEST_JSON) -> Any:  # noqa: ANN401 - JSON is anything
    """Return the value of a JSON file. Raises ``OSError`` as ``read_bounded``, ``ValueError`` for what is no JSON."""
    try:
        return json.loads(read_bounded(path, limit))
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def read_head(path: str | Path, size: int) -> bytes:
    """Return the first ``size`` bytes of a regular file, or all of a smaller one; raises ``OSError`` as above."""
    with open_regular(path) as file:
        return _start(file, size)


def _start(file: BufferedReader, size: int) -> bytes:
    """Return the first ``size`` bytes of a file, or all of a smaller one, in as much memory as there are bytes."""
    content = file.read(min(size, os.fstat(file.fileno()).st_size + 1))
    while len(content) < size and (more := file.read(min(size - len(content), 1 << 16))):  # it grew, or is of /proc
        content += more
    return content


def open_regular(path: str | Path) -> BufferedReader:
    """Open a regular file for reading; raises ``OSError`` as above for anything else."""
    # O_NONBLOCK: opening a FIFO would wait for a writer; regular files ignore it
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
    try:
        descriptor = os.open(path, flags)
    except ValueError as error:  # a NUL character, or a surrogate that stands for no byte
        raise OSError(errno.EINVAL, "no file can have this name", str(path)) from error
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def open_private_log(path: str | Path) -> IO[bytes]:
    """Return a file to append to, unbuffered; created for its owner only, as what programs print may be private."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab", buffering=0)


def write_json(
    path: Path, value: object, *, durable: bool = False, mode: int = 0o666, indent: int | None = None
) -> None:
    """Replace a file by JSON, as ``write_whole`` does."""
    separators = (",", ":") if indent is None else None
    write_whole(
        path, f"{json.dumps(value, indent=indent, separators=separators)}\n".encode(), durable=durable, mode=mode
    )


def write_whole(path: Path, content: bytes, *, durable: bool = False, mode: int = 0o666) -> None:
    """Replace a file atomically: readers find the old content or the new one. Its directory is made if need be.

    ``durable``: the content is on the disk when this returns, so a loss of power afterwards does not undo it.
    Raises ``OSError``; then the file is as it was, and nothing else is left.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{os.urandom(8).hex()}.tmp")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
    try:
        with os.fdopen(os.open(unfinished, flags, mode), "wb") as file:
            file.write(content)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        unfinished.replace(path)
    except BaseException:
        with suppress(OSError):
            unfinished.unlink()
        raise
    if durable:
        sync_directory(path.parent)


def sync_file(path: Path) -> None:
    """Bring the bytes of a file to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_directory(path: Path) -> None:
    """Bring the names in a directory to the disk, where the system can do that."""
    if os.name == "posix":  # elsewhere a directory cannot be opened
        sync_file(path)


def sync_all(path: Path) -> None:
    """Bring the bytes of a file, or of every file in a directory, to the disk."""
    if not path.is_dir():
        sync_file(path)
        return
    for parent, _, names in os.walk(path):
        for name in names:
            file = path.joinpath(parent, name)
            if not file.is_symlink():
                sync_file(file)
        sync_directory(path / parent)
