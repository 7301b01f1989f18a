"""Archives from elsewhere, zip and tar: read once from front to back, believed in nothing.

What an archive is, its first bytes say. A member is written only below the directory it is unpacked into, and never
through a link; of its mode only the executable bit is kept. What was written when something turns out to be wrong is
removed.
"""

from __future__ import annotations

import errno
import io
import stat
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, ClassVar, Literal, cast

from llama_runner.core.errors import StepError
from llama_runner.core.sizes import size_text
from llama_runner.core.value import Value
from llama_runner.system.files import open_regular, read_head

if TYPE_CHECKING:
    import tarfile
    import zipfile
    from collections.abc import Callable, Iterator
    from pathlib import Path

_BLOCK = 1 << 20
_ZIP = (b"PK\x03\x04", b"PK\x05\x06")
_HEADER = 512
_LONGEST_READ = 16 << 20
"""No header of an honest tar archive is longer; ``tarfile`` would read one of any length into memory."""
_LONGEST_PART, _LONGEST_NAME = 255, 1024
"""Bytes that a file's name, and a path, may have on the file systems that there are."""
_EXECUTABLE = 0o100


class Limits(Value):
    """What an archive may hold: members, bytes in all, and bytes for each of its own.

    The largest release, CUDA's, holds 60 members and 1.2 GB, and is a third of that; a source tree has 3000 members.
    """

    members: int = 100_000
    total: int = 16 << 30
    ratio: int = 200
    harmless: int = 64 << 20
    """Fewer bytes than these are not too many, however small the archive."""


class BadArchive(StepError):
    """An archive that cannot be unpacked, or must not be."""

    way_out: ClassVar[str] = "nothing was kept"

    def __init__(self, why: str) -> None:
        self.why = why
        super().__init__(f"unpack: {why}", hint=self.way_out)


class DamagedArchive(BadArchive):
    """It ends early, or bytes in it are not what they were."""

    way_out = "nothing was kept; get the archive again and compare its sha256"


def unsafe_member_error(member: str, why: str) -> BadArchive:
    """A member that would be written elsewhere, over another one, or as something that is neither file nor link."""
    return BadArchive(f"member {member!r} {why}")


class Member(Value):
    """What an archive says of one of its members; ``target`` is a link's, ``copy`` has another member's bytes."""

    name: str
    kind: Literal["file", "directory", "link", "copy"]
    size: int = 0
    executable: bool = False
    target: str = ""


def check_kind(path: Path) -> None:
    """Raise ``BadArchive`` unless a file begins as an archive does; no more of it is read."""
    head = read_head(path, _HEADER)
    if not head.startswith(_ZIP):
        with _decompressed(io.BytesIO(head), head):
            pass


def members(path: Path, *, limits: Limits | None = None) -> list[Member]:
    """Return what an archive holds, as it says itself; ``BadArchive`` when it cannot be read."""
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
    """Write an archive's members below ``into``, an empty directory that is there.

    ``pick`` gives the name that a member is written under, None for one that is not wanted. ``on_progress`` gets how
    many bytes of the archive are read, and how many there are. Raises ``BadArchive``, and ``OSError`` when writing
    fails; in both cases, and when ``on_progress`` raises, ``into`` is empty again.
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
        _empty(into)
        raise


class _Writer:
    """Writes members below a directory, each name once."""

    def __init__(self, root: Path, progressed: Callable[[], None]) -> None:
        self._root, self._progressed = root, progressed
        self._leaves: dict[tuple[str, ...], Path] = {}
        """Files and links, under what a file system that ignores case would take for their names."""
        self._directories: set[tuple[str, ...]] = set()

    def write(self, member: Member, name: str, opened: Callable[[], IO[bytes]]) -> None:
        parts = _parts(name, member.name)
        if not parts:
            if member.kind != "directory":
                raise unsafe_member_error(member.name, "has no name")
            return
        key = _folded(parts)
        above = [key[:length] for length in range(1, len(key))]
        if member.kind == "directory":
            above.append(key)
        if key in self._leaves or (member.kind != "directory" and key in self._directories):
            raise unsafe_member_error(member.name, "is there twice")
        if any(directory in self._leaves for directory in above):
            raise unsafe_member_error(member.name, "lies below a file or a link")
        self._directories.update(above)
        path = self._root.joinpath(*parts)
        (path if member.kind == "directory" else path.parent).mkdir(parents=True, exist_ok=True)
        if member.kind == "link":
            path.symlink_to(_target(member, parts))
        elif member.kind == "copy":
            self._copy(member, path)
        elif member.kind == "file":
            self._write_file(member, path, opened)
        if member.kind != "directory":
            self._leaves[key] = path

    def _copy(self, member: Member, path: Path) -> None:
        import shutil  # noqa: PLC0415 - not on the warm path

        original = self._leaves.get(_folded(_parts(member.target, member.name)))
        if original is None or original.is_symlink():
            raise unsafe_member_error(member.name, f"is a link to {member.target!r}, which is no file before it")
        shutil.copy(original, path)

    def _write_file(self, member: Member, path: Path, opened: Callable[[], IO[bytes]]) -> None:
        written = 0
        with _reading():
            source = opened()
        with source, path.open("xb") as target:
            while True:
                with _reading():
                    block = source.read(_BLOCK)
                if not block:
                    break
                written += len(block)
                target.write(block)
                self._progressed()
        if written != member.size:
            raise DamagedArchive(f"{member.name!r} has {written} bytes, and the archive says {member.size}")
        path.chmod(0o755 if member.executable else 0o644)


def _parts(name: str, member: str) -> tuple[str, ...]:
    """Return the parts of a name that stays inside, on every system; ``BadArchive`` otherwise."""
    parts = name.split("/")
    if name.startswith("/") or "\\" in name or ":" in name or ".." in parts:
        raise unsafe_member_error(member, "would leave the directory")
    try:
        encoded = name.encode()
    except UnicodeEncodeError:
        raise unsafe_member_error(member, "has a name that is no text") from None
    if not name.isprintable():
        raise unsafe_member_error(member, "has a name that cannot be printed")
    if len(encoded) > _LONGEST_NAME or any(len(part.encode()) > _LONGEST_PART for part in parts):
        raise unsafe_member_error(member, "has a name that is too long")
    return tuple(part for part in parts if part not in ("", "."))


def _folded(parts: tuple[str, ...]) -> tuple[str, ...]:
    """Return what macOS and Windows would take for the same name."""
    import unicodedata  # noqa: PLC0415 - not on the warm path

    return tuple(unicodedata.normalize("NFC", part.casefold()) for part in parts)


def _target(member: Member, parts: tuple[str, ...]) -> str:
    """Return a link's target if it stays inside wherever it leads.

    Up first and then down: after a step down into what may be a link itself, ``..`` would be above that link's target.
    """
    steps = [step for step in member.target.split("/") if step != "."]
    ups = next((index for index, step in enumerate(steps) if step != ".."), len(steps))
    is_inside = (
        member.target
        and not member.target.startswith("/")
        and not any(letter in member.target for letter in "\\:\0")
        and ".." not in steps[ups:]
        and ups < len(parts)
    )
    if not is_inside:
        raise unsafe_member_error(member.name, f"is a link to {member.target!r}, which would leave the directory")
    return member.target


def _entries(file: IO[bytes], limits: Limits) -> Iterator[tuple[Member, Callable[[], IO[bytes]]]]:
    """Yield every member and how to open it, which must be done before the next one is asked for."""
    head = file.read(_HEADER)
    file.seek(0)
    if head.startswith(_ZIP):
        yield from _of_zip(file, limits)
        return
    with _decompressed(file, head) as plain:
        yield from _of_tar(_Stream(plain, file, limits), limits)


def _of_zip(file: IO[bytes], limits: Limits) -> Iterator[tuple[Member, Callable[[], IO[bytes]]]]:
    import zipfile  # noqa: PLC0415 - not on the warm path

    with _reading():
        archive = zipfile.ZipFile(file)
    with archive:
        _check(limits, len(archive.infolist()), sum(info.file_size for info in archive.infolist()), file)
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
        if info.file_size > _LONGEST_NAME:
            raise unsafe_member_error(info.filename, f"is a link whose target has {info.file_size} bytes")
        with _reading():
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


class _Stream:
    """The bytes of a tar archive for ``tarfile``: read forward only, counted, and never many of them at once."""

    def __init__(self, plain: IO[bytes], file: IO[bytes], limits: Limits) -> None:
        self._plain, self._file, self._limits = plain, file, limits
        self._at = 0
        self.last = b""
        """What was read last: at the end of the archive, what ``tarfile`` takes for the end."""

    def tell(self) -> int:
        return self._at

    def seek(self, to: int) -> int:
        assert to >= self._at, "tarfile looks back"
        while self._at < to and self.read(min(_BLOCK, to - self._at)):
            pass
        return self._at

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _LONGEST_READ:
            raise BadArchive(f"the archive has a header of {size_text(size)}")
        self.last = self._plain.read(size)
        self._at += len(self.last)
        _check(self._limits, 0, self._at, self._file)
        return self.last


def _of_tar(stream: _Stream, limits: Limits) -> Iterator[tuple[Member, Callable[[], IO[bytes]]]]:
    import tarfile  # noqa: PLC0415 - not on the warm path

    with _reading():
        archive = tarfile.TarFile(fileobj=cast("IO[bytes]", stream))
    count = 0
    while True:
        with _reading():
            info = archive.next()
        if info is None:
            break
        archive.members = []  # type: ignore[attr-defined]  # it would keep them all
        count += 1
        if count > limits.members:
            raise BadArchive(f"the archive has more than {limits.members} members")
        yield _tar_member(info), lambda info=info: archive.extractfile(info)  # type: ignore[misc]
    if stream.last != bytes(_HEADER):  # tarfile takes a damaged header, and no header at all, for the end
        raise DamagedArchive("the archive ends early, or one of its headers is damaged")
    with _reading():  # to the checksum of what is compressed
        while stream.read(_BLOCK):
            pass


def _tar_member(info: tarfile.TarInfo) -> Member:
    if info.isdir():
        return Member(info.name, "directory")
    if info.issym():
        return Member(info.name, "link", target=info.linkname)
    if info.islnk():
        return Member(info.name, "copy", target=info.linkname)
    if not info.isreg() or info.issparse():
        raise unsafe_member_error(info.name, "is neither a file nor a link")
    return Member(info.name, "file", info.size, bool(info.mode & _EXECUTABLE))


def _check(limits: Limits, count: int, total: int, file: IO[bytes]) -> None:
    """Raise ``BadArchive`` when there are too many members, or too many bytes in them."""
    if count > limits.members:
        raise BadArchive(f"the archive has {count} members, more than {limits.members}")
    if total <= limits.harmless:
        return
    import os  # noqa: PLC0415 - only for what is large

    size = os.fstat(file.fileno()).st_size
    if total > min(limits.total, limits.ratio * size):
        raise BadArchive(f"the archive of {size_text(size)} holds {size_text(total)} or more")


@contextmanager
def _reading() -> Iterator[None]:
    """Turn what the libraries raise over damaged bytes into ``DamagedArchive``; what the disk says stays as it is."""
    import lzma  # noqa: PLC0415 - not on the warm path
    import struct  # noqa: PLC0415
    import tarfile  # noqa: PLC0415
    import zipfile  # noqa: PLC0415
    import zlib  # noqa: PLC0415

    damage = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, struct.error, EOFError)
    try:
        yield
    except damage as error:
        raise DamagedArchive(f"the archive is damaged: {error}") from error
    except NotImplementedError as error:  # a compression method of its own; a later version of zip
        raise BadArchive(f"the archive cannot be read: {error}") from error
    except (ValueError, OverflowError, IndexError, RuntimeError) as error:  # of numbers that make no sense
        raise DamagedArchive(f"the archive is damaged: {error}") from error
    except OSError as error:
        if error.errno not in (None, errno.EINVAL):
            raise
        raise DamagedArchive(f"the archive is damaged: {error}") from error


def _empty(directory: Path) -> None:
    import shutil  # noqa: PLC0415 - not on the warm path

    for path in list(directory.iterdir()):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
