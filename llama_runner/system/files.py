"""Files: bounded reads of foreign files, atomic writes, private logs, removal of large files."""

from __future__ import annotations

import errno
import json
import os
import stat
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING, Any

from llama_runner.system.platforms import IS_WINDOWS, rename_over

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import BufferedReader
    from pathlib import Path

LARGEST_JSON = 64 << 20
"""Default maximum bytes of a JSON file; the index of the largest models has ten million."""
LARGE = 64 << 20
"""Bytes from which a removed file is freed in a thread."""


def try_writing(directory: Path) -> None:
    """Make a directory, write a file into it and remove the file. Raises ``OSError`` if that is not possible."""
    directory.mkdir(parents=True, exist_ok=True)
    probe = directory / f"probe-{os.getpid()}-{os.urandom(4).hex()}"
    try:
        probe.write_bytes(b"probe")
    finally:
        probe.unlink(missing_ok=True)


class NotPrivate(OSError):
    """Others than its owner may use a file."""

    hint = ""


def read_bounded(path: str | Path, limit: int, *, private: bool = False) -> bytes:
    """Return the content of a regular file of at most ``limit`` bytes; symbolic links are followed.

    Raises ``OSError`` with a ``strerror`` for messages: if it is not a regular file (a FIFO would block, a device has
    no end), if it is larger, and for errors of the system; ``private``: ``NotPrivate`` if others may use it.
    """
    descriptor, size = _opened(path)
    try:
        mode = stat.S_IMODE(os.fstat(descriptor).st_mode) if private and not IS_WINDOWS else 0
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            error = NotPrivate(errno.EACCES, f"others may use it (mode {mode:o})", str(path))
            error.hint = f"chmod 600 {path}"
            raise error
        if size <= limit:
            content = _read_start(descriptor, size, limit + 1)  # the file may grow after it was opened
            if len(content) <= limit:
                return content
    finally:
        os.close(descriptor)
    raise OSError(errno.EFBIG, f"larger than the limit of {limit} bytes", str(path))


def read_json(path: str | Path, limit: int = LARGEST_JSON) -> Any:  # noqa: ANN401 - JSON is anything
    """Return the value of a JSON file. Raises ``OSError`` like ``read_bounded``, ``ValueError`` for invalid JSON."""
    try:
        return json.loads(read_bounded(path, limit))
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def read_head(path: str | Path, size: int) -> bytes:
    """Return the first ``size`` bytes of a regular file, or all of a smaller one. Raises ``OSError`` as above."""
    descriptor, there = _opened(path)
    try:
        return _read_start(descriptor, there, size)
    finally:
        os.close(descriptor)


def _read_start(descriptor: int, expected: int, size: int) -> bytes:
    """Return the first ``size`` bytes of a file, or all of a smaller one; allocates no more than it reads."""
    content = os.read(descriptor, min(size, expected + 1))
    if len(content) == expected:  # one more was asked for
        return content
    while len(content) < size and (more := os.read(descriptor, min(size - len(content), 1 << 16))):
        content += more  # it grew, or is in /proc
    return content


def open_regular(path: str | Path) -> BufferedReader:
    """Open a regular file for reading. Raises ``OSError`` as above for any other kind of file."""
    return os.fdopen(_opened(path)[0], "rb")


def _opened(path: str | Path) -> tuple[int, int]:
    """Return a descriptor of a regular file, opened for reading, and its size in bytes. Raises ``OSError`` as above."""
    # O_NONBLOCK: opening a FIFO would wait for a writer; no effect on regular files
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
    try:
        descriptor = os.open(path, flags)
    except ValueError as error:  # a NUL character, or a surrogate that encodes no byte
        raise OSError(errno.EINVAL, "no file can have this name", str(path)) from error
    except PermissionError:
        if IS_WINDOWS and os.path.isdir(path):  # noqa: PTH112 - faster
            raise _is_a_directory(path) from None
        raise
    try:
        status = os.fstat(descriptor)
        mode = status.st_mode
        if stat.S_ISDIR(mode):
            raise _is_a_directory(path)
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor, status.st_size


def _is_a_directory(path: str | Path) -> IsADirectoryError:
    return IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))


def open_private_log(path: str | Path) -> IO[bytes]:
    """Open a file to append to, unbuffered; created with mode 0600, as the output of programs may be private."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab", buffering=0)


def write_json(
    path: Path, value: object, *, durable: bool = False, mode: int = 0o666, indent: int | None = None
) -> None:
    """Replace a file by JSON, like ``write_atomically``."""
    separators = (",", ":") if indent is None else None
    write_atomically(
        path, f"{json.dumps(value, indent=indent, separators=separators)}\n".encode(), durable=durable, mode=mode
    )


def write_atomically(path: Path, content: bytes, *, durable: bool = False, mode: int = 0o666) -> None:
    """Replace a file atomically: readers see the old content or the new one. Its directory is made if necessary.

    ``durable``: the content is synced to the disk. Raises ``OSError``; then the file is unchanged and no temporary file
    is left.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{os.urandom(8).hex()}.tmp")
    try:
        with new_file(unfinished, mode) as file:
            file.write(content)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        rename_over(unfinished, path)
    except BaseException:
        with suppress(OSError):
            unfinished.unlink()
        raise
    if durable:
        sync_directory(path.parent)


def new_file(path: Path, mode: int = 0o600) -> IO[bytes]:
    """Create a file and open it for writing. Raises ``OSError``, also if there is one, or a link, of this name."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
    return os.fdopen(os.open(path, flags, mode), "wb")


def append_lines(path: Path, content: bytes, *, largest: int) -> None:
    """Append whole lines to a file, created with mode 0600, and sync them; lines of several processes do not mix.

    A line that a crash cut off is ended first. Raises ``OSError``, ``EFBIG`` if the file would have more than
    ``largest`` bytes; then nothing is appended.
    """
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
    is_new = not path.exists()
    descriptor = os.open(path, flags, 0o600)
    try:
        size = os.fstat(descriptor).st_size
        if size + len(content) > largest:
            raise OSError(errno.EFBIG, f"larger than the limit of {largest} bytes", str(path))
        if size:
            os.lseek(descriptor, -1, os.SEEK_END)
            content = content if os.read(descriptor, 1) == b"\n" else b"\n" + content
        if os.write(descriptor, content) != len(content):  # one write, so that lines of two writers do not mix
            os.ftruncate(descriptor, size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    if is_new:
        sync_directory(path.parent)


def sync_file(path: Path) -> None:
    """Sync a file to the disk (fsync)."""
    descriptor = os.open(path, os.O_RDWR if IS_WINDOWS and not path.is_dir() else os.O_RDONLY)  # Windows syncs no other
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_directory(path: Path) -> None:
    """Sync the entries of a directory to the disk, on systems that support it."""
    if not IS_WINDOWS:  # there a directory cannot be opened
        sync_file(path)


def sync_all(path: Path) -> None:
    """Sync a file, or a directory and every file in it, to the disk."""
    if not path.is_dir():
        sync_file(path)
        return
    for parent, _, names in os.walk(path):
        for name in names:
            file = path.joinpath(parent, name)
            if not file.is_symlink():
                sync_file(file)
        sync_directory(path / parent)


@contextmanager
def freed_in_background(path: Path) -> Iterator[None]:
    """Let the caller remove or replace a file: the blocks of a large one, which may take a second, a thread frees.

    The file stays open until then, so that its directory has another one or none at once. On Windows, where an open
    file cannot be replaced, nothing is different.
    """
    descriptor = -1
    with suppress(OSError):  # it is not there, or not to be read
        if not IS_WINDOWS and path.stat().st_size >= LARGE:
            descriptor, _ = _opened(path)
    try:
        yield
    finally:
        if descriptor >= 0:
            import threading  # noqa: PLC0415 - only to write

            try:
                threading.Thread(target=os.close, args=(descriptor,), name="free", daemon=True).start()
            except RuntimeError:  # no more threads, or the interpreter ends
                os.close(descriptor)
