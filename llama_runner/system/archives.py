"""Extracts untrusted zip and tar archives as streams, with checks of paths, links, sizes and counts.

The format is recognised by the first bytes. A member is written only below the target directory, and never through a
link; of its mode only the executable bit is kept. After an error the members written so far are removed.
"""

from __future__ import annotations

import io
import stat
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, cast

from llama_runner.core.sizes import size_text
from llama_runner.system.archive_member_paths import (
    MAX_PATH,
    BadArchive,
    Member,
    MemberNames,
    case_folded,
    checked_target,
    path_parts,
    unsafe_member_error,
)
from llama_runner.system.files import open_regular, read_head
from llama_runner.system.tar_stream import BLOCK, HEADER, DamagedArchive, Limits, TarStream, library_errors, tar_entries

if TYPE_CHECKING:
    import zipfile
    from collections.abc import Callable, Iterator
    from pathlib import Path

_ZIP = (b"PK\x03\x04", b"PK\x05\x06")
_EXECUTABLE = 0o100


def check_is_archive(path: Path) -> None:
    """Raise ``BadArchive`` unless a file begins like an archive; reads only its first bytes."""
    head = read_head(path, HEADER)
    if not head.startswith(_ZIP):
        with _decompressed(io.BytesIO(head), head):
            pass


def members(path: Path, *, limits: Limits | None = None) -> list[Member]:
    """Return the members of an archive. Raises ``BadArchive`` if it cannot be read."""
    with open_regular(path) as file:
        return [member for member, _ in _entries(file, limits or Limits())]


def extract(
    path: Path,
    into: Path,
    *,
    pick: Callable[[str], str | None] = lambda name: name,
    on_progress: Callable[[int, int], None] = lambda _done, _total: None,
    limits: Limits | None = None,
) -> None:
    """Extract an archive's members into ``into``, an existing empty directory.

    ``pick`` returns the name that a member is written under, None to leave it out. ``on_progress`` gets the bytes read
    and the size of the archive. Raises ``BadArchive``, and ``OSError`` if writing fails. After an exception, also one
    of ``on_progress``, ``into`` is empty.
    """
    try:
        with open_regular(path) as file:
            size = path.stat().st_size
            writer = _Writer(into, lambda: on_progress(min(file.tell(), size), size))
            for member, opened in _entries(file, limits or Limits()):
                if (name := pick(member.name)) is not None:
                    writer.write(member, name, opened)
            on_progress(size, size)
    except BaseException:
        _remove_contents(into)
        raise


class _Writer:
    """Writes members below a directory."""

    def __init__(self, root: Path, progressed: Callable[[], None]) -> None:
        self._root, self._progressed, self._names = root, progressed, MemberNames()
        self._written: dict[tuple[str, ...], Path] = {}
        """Files and links by their case-folded path."""

    def write(self, member: Member, name: str, opened: Callable[[], IO[bytes]]) -> None:
        parts = self._names.add(member, name)
        if not parts:
            return
        path = self._root.joinpath(*parts)
        (path if member.kind == "directory" else path.parent).mkdir(parents=True, exist_ok=True)
        if member.kind == "link":
            path.symlink_to(checked_target(member, parts))
        elif member.kind == "copy":
            self._copy(member, path)
        elif member.kind == "file":
            self._write_file(member, path, opened)
        if member.kind != "directory":
            self._written[case_folded(parts)] = path

    def _copy(self, member: Member, path: Path) -> None:
        import shutil  # noqa: PLC0415 - not on the warm path

        original = self._written.get(case_folded(path_parts(member.target, member.name)))
        if original is None or original.is_symlink():
            raise unsafe_member_error(member.name, f"is a link to {member.target!r}, which is no file before it")
        shutil.copy(original, path)

    def _write_file(self, member: Member, path: Path, opened: Callable[[], IO[bytes]]) -> None:
        written = 0
        with library_errors():
            source = opened()
        with source, path.open("xb") as target:
            while True:
                with library_errors():
                    block = source.read(BLOCK)
                if not block:
                    break
                written += len(block)
                target.write(block)
                self._progressed()
        if written != member.size:
            raise DamagedArchive(f"{member.name!r} has {written} bytes, and the archive says {member.size}")
        path.chmod(0o755 if member.executable else 0o644)


def _entries(file: IO[bytes], limits: Limits) -> Iterator[tuple[Member, Callable[[], IO[bytes]]]]:
    """Yield every member with a function that opens it, to be called before the next member is requested."""
    head = file.read(HEADER)
    file.seek(0)
    if head.startswith(_ZIP):
        yield from _zip_entries(file, limits)
        return
    with _decompressed(file, head) as plain:
        yield from tar_entries(TarStream(plain, lambda total: _check_limits(limits, 0, total, file)), limits)


def _zip_entries(file: IO[bytes], limits: Limits) -> Iterator[tuple[Member, Callable[[], IO[bytes]]]]:
    import zipfile  # noqa: PLC0415 - not on the warm path

    with library_errors():
        archive = zipfile.ZipFile(file)
    with archive:
        _check_limits(limits, len(archive.infolist()), sum(info.file_size for info in archive.infolist()), file)
        for info in archive.infolist():
            yield _zip_member(archive, info), lambda info=info: archive.open(info)  # type: ignore[misc]


def _zip_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Member:
    if info.flag_bits & 1:
        raise BadArchive(f"{info.filename!r} is encrypted")
    if not info.filename:
        raise unsafe_member_error(info.filename, "has no name")
    mode = info.external_attr >> 16
    kind = stat.S_IFMT(mode)
    if info.is_dir():
        return Member(info.filename, "directory")
    if kind == stat.S_IFLNK:
        if info.file_size > MAX_PATH:
            raise unsafe_member_error(info.filename, f"is a link whose target has {info.file_size} bytes")
        with library_errors():
            return Member(info.filename, "link", target=archive.read(info).decode())
    if kind not in (0, stat.S_IFREG):
        raise unsafe_member_error(info.filename, "is neither a file nor a link")
    return Member(info.filename, "file", info.file_size, bool(mode & _EXECUTABLE))


@contextmanager
def _decompressed(file: IO[bytes], head: bytes) -> Iterator[IO[bytes]]:
    if head.startswith(b"\x1f\x8b"):
        import gzip  # noqa: PLC0415 - not on the warm path

        with gzip.GzipFile(fileobj=file) as plain:
            yield cast("IO[bytes]", plain)
    elif head.startswith(b"\xfd7zXZ\0"):
        import lzma  # noqa: PLC0415 - as above

        with lzma.LZMAFile(file) as plain_xz:
            yield plain_xz
    elif head[257:262] == b"ustar":
        yield file
    elif not head:
        raise DamagedArchive("the archive is empty")
    else:
        raise BadArchive(f"this is neither zip nor tar.gz nor tar.xz: it begins with {head[:8]!r}")


def _check_limits(limits: Limits, count: int, total: int, file: IO[bytes]) -> None:
    """Raise ``BadArchive`` if there are too many members, or too many extracted bytes."""
    if count > limits.members:
        raise BadArchive(f"the archive has {count} members, more than {limits.members}")
    if total <= limits.harmless:
        return
    import os  # noqa: PLC0415 - only for what is large

    size = os.fstat(file.fileno()).st_size
    if total > min(limits.total, limits.ratio * size):
        raise BadArchive(f"the archive of {size_text(size)} holds {size_text(total)} or more")


def _remove_contents(directory: Path) -> None:
    import shutil  # noqa: PLC0415 - not on the warm path

    for path in list(directory.iterdir()):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
