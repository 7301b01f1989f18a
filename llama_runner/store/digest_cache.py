"""Digests and stamps of files and directories, and a cache of digests by stamp.

A stamp consists of file system attributes; while all of them are equal, the bytes are taken to be the same. Records
have the stamps of all published artifacts, so a warm start hashes nothing. For sources without a record there is a
small SQLite table, which may be deleted at any time.

The stamp of a source includes its ctime: ``tar``, ``cp -p`` and ``rsync -t`` restore the mtime of a file, and may
reuse its inode. The stamp of a payload does not: publishing links and renames payloads, which changes their ctime.
"""

from __future__ import annotations

import json
import os
import stat
import time
from contextlib import closing, suppress
from typing import TYPE_CHECKING

from llama_runner.core.artifact_record import STATE_FILE, Stamp
from llama_runner.core.digest import Digest, is_tree_digest, scheme_of, tree_digest
from llama_runner.core.errors import Interrupted
from llama_runner.core.short_sha256 import sha256
from llama_runner.system.files import open_regular
from llama_runner.system.platforms import advise_read_ahead, change_time_ns, forget_cached

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Generator, Iterator, Mapping
    from io import BufferedReader
    from pathlib import Path

    from llama_runner.core.digest import Scheme

RACY_NS = 2_000_000_000
"""A file that changed less than this many nanoseconds ago may change again without a new stamp (as in git)."""

BLOCK = 4 << 20
_BLOCK_AHEAD = 2 << 20
"""Of a file that one thread reads while others hash it: two blocks are in the cache of the processor then."""
_READ_AHEAD = 1 << 20


def file_stamp(path: Path) -> Stamp:
    """Return the stamp of a payload that is a file, links followed."""
    return _stamp(path.stat())


def source_stamp(path: Path) -> Stamp:
    """Return the stamp of a file of a source, links followed."""
    found = path.stat()
    return {**_stamp(found), "ctime_ns": change_time_ns(path, found)}


def _stamp(found: os.stat_result) -> Stamp:
    return {
        "size": found.st_size,
        "mtime_ns": found.st_mtime_ns,
        "inode": found.st_ino,
        "device": found.st_dev,
        "mode": stat.S_IMODE(found.st_mode),
    }


def is_settled(stamp: Stamp) -> bool:
    """Whether the last change of a source is old enough for its stamp to be trusted.

    A time in the future counts as settled: a change made now gets another ctime.
    """
    now = time.time_ns()
    return all(abs(now - int(stamp[name])) > RACY_NS for name in ("mtime_ns", "ctime_ns") if name in stamp)


def is_same_tool(recorded: Stamp, now: Stamp) -> bool:
    """Whether a program has a recorded stamp; older records have no ctime."""
    return recorded in (now, {name: value for name, value in now.items() if name != "ctime_ns"})


def tree_stamp(root: Path) -> Stamp:
    """Return the stamp of a directory: a hash over the attributes of its files, without its state file."""
    lines = []
    for relative, path in tree_files(root):
        found = path.lstat()
        lines.append([relative, found.st_size, found.st_mtime_ns, found.st_ino, found.st_mode])
    return {"tree": sha256(json.dumps(lines).encode()).hexdigest()}


def payload_stamp(path: Path) -> Stamp:
    """Return the stamp of a file or a directory."""
    return tree_stamp(path) if path.is_dir() else file_stamp(path)


def hash_file(
    path: Path,
    cancelled: Callable[[], bool] | None = None,
    on_progress: Callable[[int], object] | None = None,
    *,
    scheme: Scheme = "sha256",
    threads: int = 1,
    from_disk: bool = False,
) -> Digest:
    """Return the digest of a file. Raises ``Interrupted`` when ``cancelled`` returns True.

    ``on_progress`` gets the number of bytes read so far, after each block. ``from_disk``: what the system has cached of
    the file is not used. ``threads`` is for BLAKE3. Raises ``NoBlake3`` for a scheme that cannot be computed here.
    """
    from llama_runner.system.hashing import new_hasher  # noqa: PLC0415 - not on the warm path

    hasher, done = new_hasher(scheme, threads=threads), 0
    with open_regular(path) as file:
        if from_disk:
            forget_cached(file.fileno())
        with closing(_blocks(file, ahead=scheme == "b3" and threads > 1)) as blocks:
            for block in blocks:
                if cancelled is not None and cancelled():
                    raise Interrupted
                done += len(block)
                _read_ahead(file.fileno(), done)
                hasher.update(block)
                if on_progress is not None:
                    on_progress(done)
    return hasher.digest()


def _blocks(file: BufferedReader, *, ahead: bool) -> Generator[memoryview, None, None]:
    """Yield the blocks of a file, each valid until the next. ``ahead``: a thread reads the next one meanwhile.

    The generator must be closed before the file.
    """
    size = min(_BLOCK_AHEAD if ahead else BLOCK, max(1, os.fstat(file.fileno()).st_size))
    block = memoryview(bytearray(size))
    if not ahead:
        while count := file.raw.readinto(block):
            yield block[:count]
        return
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 - not on the warm path

    other, count = memoryview(bytearray(size)), file.raw.readinto(block)
    with ThreadPoolExecutor(1, thread_name_prefix="read") as reader:
        while count:
            later = reader.submit(file.raw.readinto, other)
            yield block[:count]
            count = later.result()
            block, other = other, block


def _read_ahead(descriptor: int, offset: int) -> None:
    """Let the system read the next block of a file while this one is hashed."""
    for at in range(offset, offset + BLOCK, _READ_AHEAD):  # one call reads no more than the device takes at once
        advise_read_ahead(descriptor, at, _READ_AHEAD)


def hash_tree(
    root: Path, known: Mapping[str, Digest] | None = None, scheme: Scheme | None = None, *, threads: int = 1
) -> tuple[Digest, int]:
    """Return the digest and the number of bytes of a directory, without its state file.

    ``known`` has the digests of files that were hashed while they were written; they count as not executable.
    ``scheme``: None for the best one of this machine. ``threads`` is for BLAKE3.
    """
    from llama_runner.system.hashing import scheme_for  # noqa: PLC0415 - not on the warm path

    known = known or {}
    entries: list[tuple[str, str, str]] = []
    total = 0
    for relative, path in tree_files(root):
        if path.is_symlink():
            entries.append((relative, "l", str(path.readlink())))
        else:
            mode = path.stat()
            total += mode.st_size
            kind = "x" if mode.st_mode & stat.S_IXUSR and relative not in known else "f"
            how, found = scheme_for(mode.st_size, scheme), known.get(relative)
            if found is None or (scheme is not None and scheme_of(found) != how):
                found = hash_file(path, scheme=how, threads=threads)
            entries.append((relative, kind, found))
    return tree_digest(entries), total


def hash_payload(path: Path) -> tuple[Digest, int]:
    """Return the digest and size of a file or a directory that was made here."""
    from llama_runner.system.hashing import scheme_for  # noqa: PLC0415 - not on the warm path

    if path.is_dir():
        return hash_tree(path)
    size = path.stat().st_size
    return hash_file(path, scheme=scheme_for(size)), size


def hash_like(path: Path, digest: Digest) -> Digest:
    """Return the digest of a file or a directory in the scheme of another digest, to compare them."""
    if path.is_dir():
        return hash_tree(path, scheme=scheme_of(digest))[0]
    return hash_file(path, scheme="sha256" if is_tree_digest(digest) else scheme_of(digest))


def tree_files(root: Path) -> Iterator[tuple[str, Path]]:
    """Yield every file and link below ``root`` in a fixed order, as relative name and path; not the state file."""
    for path in sorted(root.iterdir()):
        name = path.name
        if path.is_dir() and not path.is_symlink():
            for below, file in tree_files(path):
                yield f"{name}/{below}", file
        elif name != STATE_FILE:
            yield name, path


class StampCache:
    """Digests of local files by path and stamp in an SQLite table. An unusable database counts as empty."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def get(self, path: Path, stamp: Stamp) -> Digest | None:
        """Return the digest stored for a path with exactly this stamp; None without one."""
        row = self._query(
            "SELECT digest FROM stamps WHERE path = ? AND stamp = ?", (_path_text(path), _stamp_text(stamp))
        )
        return Digest(row) if row is not None else None

    def put(self, path: Path, stamp: Stamp, digest: Digest) -> None:
        """Store a digest, unless the stamp is too recent to be trusted later."""
        if is_settled(stamp):
            self._query(
                "INSERT OR REPLACE INTO stamps VALUES (?, ?, ?) RETURNING digest",
                (_path_text(path), _stamp_text(stamp), digest),
                create=True,
            )

    def _query(self, statement: str, values: tuple[str | bytes, ...], *, create: bool = False) -> str | None:
        import sqlite3  # noqa: PLC0415 - the warm path needs no database

        if not create and not self._path.exists():
            return None
        try:
            if create:
                self._path.parent.mkdir(parents=True, exist_ok=True)
            return self._execute(sqlite3.connect(self._path, timeout=5), statement, values)
        except (sqlite3.Error, OSError):
            if create:  # damaged: the next run creates a new one
                with suppress(OSError):
                    self._path.unlink()
            return None

    @staticmethod
    def _execute(connection: sqlite3.Connection, statement: str, values: tuple[str | bytes, ...]) -> str | None:
        try:
            with connection:
                connection.execute("CREATE TABLE IF NOT EXISTS stamps (path TEXT PRIMARY KEY, stamp TEXT, digest TEXT)")
                row = connection.execute(statement, values).fetchone()
                return None if row is None else str(row[0])
        finally:
            connection.close()


def _path_text(path: Path) -> str | bytes:
    """Return a path as text, or as bytes if it is not UTF-8, which SQLite requires for text."""
    try:
        return os.fsencode(path).decode("utf-8")
    except UnicodeDecodeError:
        return os.fsencode(path)


def _stamp_text(stamp: Stamp) -> str:
    return json.dumps(stamp, sort_keys=True)
