"""Reads untrusted tar archives forward only, also from a pipe, with checks of names, kinds and sizes."""

from __future__ import annotations

import errno
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, cast

from llama_runner.core.immutable_values import Value
from llama_runner.core.sizes import size_text
from llama_runner.system.archive_member_paths import BadArchive, Member, unsafe_member_error

if TYPE_CHECKING:
    import tarfile
    from collections.abc import Callable, Iterator

BLOCK = 1 << 20
HEADER = 512
_MAX_HEADER = 16 << 20
"""Maximum bytes of a tar header; ``tarfile`` reads one of any length into memory."""
_EXECUTABLE = 0o100


class Limits(Value):
    """Limits of an archive: members, extracted bytes, and the ratio of extracted bytes to the archive's size.

    The largest release (CUDA) has 60 members, 1.2 GB and a ratio of 3; a source tree has 3000 members.
    """

    members: int = 100_000
    total: int = 16 << 30
    ratio: int = 200
    harmless: int = 64 << 20
    """Extracted bytes up to which the ratio is not checked."""


class DamagedArchive(BadArchive):
    """The archive is truncated or corrupt."""

    resolution = "nothing was kept; get the archive again and compare its sha256"


class TarStream:
    """The uncompressed bytes of a tar archive for ``tarfile``, read forward only.

    ``check`` is called with the number of bytes that were read so far, and raises if that is too many.
    """

    def __init__(self, plain: IO[bytes], check: Callable[[int], None]) -> None:
        self._plain, self._check = plain, check
        self._at = 0
        self.last = b""
        """The block that was read last; at the end of an intact archive, zeros."""

    def tell(self) -> int:
        """Return how many bytes were read."""
        return self._at

    def seek(self, to: int) -> int:
        """Read up to a position."""
        assert to >= self._at, "tarfile looks back"
        while self._at < to and self.read(min(BLOCK, to - self._at)):
            pass
        return self._at

    def read(self, size: int) -> bytes:
        """Read bytes; raises ``BadArchive``, also for more than a header has."""
        if not 0 <= size <= _MAX_HEADER:
            raise BadArchive(f"the archive has a header of {size_text(size)}")
        self.last = self._plain.read(size)
        self._at += len(self.last)
        self._check(self._at)
        return self.last


def tar_entries(stream: TarStream, limits: Limits) -> Iterator[tuple[Member, Callable[[], IO[bytes]]]]:
    """Yield every member with a function that opens it, to be called before the next member is requested."""
    import tarfile  # noqa: PLC0415 - not on the warm path

    with library_errors():
        archive = tarfile.TarFile(fileobj=cast("IO[bytes]", stream))
    count = 0
    while True:
        with library_errors():
            info = archive.next()
        if info is None:
            break
        archive.members = []  # type: ignore[attr-defined]  # tarfile would keep them all
        count += 1
        if count > limits.members:
            raise BadArchive(f"the archive has more than {limits.members} members")
        yield _tar_member(info), lambda info=info: archive.extractfile(info)  # type: ignore[misc]
    if stream.last != bytes(HEADER):  # tarfile takes a damaged or missing header for the end
        raise DamagedArchive("the archive ends early, or one of its headers is damaged")
    with library_errors():  # reads up to the checksum of the compressed stream
        while stream.read(BLOCK):
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


@contextmanager
def library_errors() -> Iterator[None]:
    """Turn the libraries' exceptions for invalid data into ``BadArchive``; errors of the disk are not changed."""
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
    except NotImplementedError as error:  # an unsupported compression method or zip version
        raise BadArchive(f"the archive cannot be read: {error}") from error
    except (ValueError, OverflowError, IndexError, RuntimeError) as error:  # invalid numbers in headers
        raise DamagedArchive(f"the archive is damaged: {error}") from error
    except OSError as error:
        if error.errno not in (None, errno.EINVAL):
            raise
        raise DamagedArchive(f"the archive is damaged: {error}") from error
