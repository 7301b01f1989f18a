"""Reads the members of a bundle in the order of its manifest; everything else in the archive is refused."""

from __future__ import annotations

from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, cast

from llama_runner.core.digest import scheme_of
from llama_runner.core.sizes import size_text
from llama_runner.library.bundle_format import (
    LARGEST_MANIFEST,
    MANIFEST,
    BadBundle,
    parse_manifest,
)
from llama_runner.system.archive_member_paths import BadArchive
from llama_runner.system.hashing import new_hasher
from llama_runner.system.tar_stream import HEADER, Limits, TarStream, library_errors, tar_entries

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from llama_runner.library.bundle_format import BundledArtifact, BundledFile, Manifest
    from llama_runner.system.archive_member_paths import Member

    Target = Callable[[str, BundledFile, BundledArtifact | None], Path | None]

ZSTD = b"\x28\xb5\x2f\xfd"
_BLOCK = 1 << 18
_OVERHEAD, _OF_MEMBER = 1 << 20, 4096
"""Bytes of headers and padding at most, of an archive and of each member."""
_LARGEST_WINDOW = 1 << 27
_LIMITS = Limits(members=200_000)


def is_bundle(head: bytes) -> bool:
    """Whether a file with these first bytes may be a bundle."""
    return head.startswith(ZSTD) or head[257:262] == b"ustar"


class BundleReader:
    """One bundle, read once from its beginning to its end."""

    def __init__(self, file: IO[bytes]) -> None:
        self._raw = _Counted(file)
        self._allowed = LARGEST_MANIFEST + _OVERHEAD
        head = self._raw.peek(HEADER)
        if not head:
            raise BadBundle("it is empty")
        if not is_bundle(head):
            raise BadBundle("it is neither a tar archive nor one that zstd compressed")
        plain = cast("IO[bytes]", _Unpacked(self._raw) if head.startswith(ZSTD) else self._raw)
        self._entries = tar_entries(TarStream(plain, self._check), _LIMITS)

    def _check(self, total: int) -> None:
        """Raise ``BadBundle`` for more bytes than the manifest lists, or far more than were compressed."""
        if total > self._allowed or (total > _LIMITS.harmless and total > _LIMITS.ratio * self._raw.at):
            raise BadBundle(f"{size_text(self._raw.at)} of it hold {size_text(total)} or more")

    def manifest(self) -> Manifest:
        """Read the first member. Raises ``BadBundle``."""
        with _bad_archives():
            member, opened = next(self._entries, (None, None))
            if member is None or opened is None or (member.name, member.kind) != (MANIFEST, "file"):
                raise BadBundle(f"it does not begin with {MANIFEST}")
            if member.size > LARGEST_MANIFEST:
                raise BadBundle(f"its {MANIFEST} has {size_text(member.size)}")
            with library_errors():
                content = opened().read(member.size)
        manifest = parse_manifest(content)
        members = manifest.members()
        self._allowed += sum(file.size for _, file, _ in members) + _OF_MEMBER * len(members)
        return manifest

    def receive(self, manifest: Manifest, target: Target, progressed: Callable[[int], None]) -> None:
        """Write every member to the path that ``target`` returns for it; one for which it returns None is passed over.

        Raises ``BadBundle`` where the archive differs from the manifest, ``OSError`` if writing fails.
        """
        with _bad_archives():
            for name, file, artifact in manifest.members():
                member, opened = next(self._entries, (None, None))
                if member is None or opened is None:
                    raise BadBundle(f"{name!r} is missing")
                _check_member(member, name, file)
                if (path := target(name, file, artifact)) is not None:
                    _write(opened, path, file, progressed)
            extra, _ = next(self._entries, (None, None))
            if extra is not None:
                raise BadBundle(f"{extra.name!r} is not in its {MANIFEST}")


def _check_member(member: Member, name: str, file: BundledFile) -> None:
    if member.name != name:
        raise BadBundle(f"{member.name!r} is where {name!r} belongs")
    if member.kind != "file":
        raise BadBundle(f"{name!r} is no file")
    if member.size != file.size:
        raise BadBundle(f"{name!r} has {member.size} bytes, and its {MANIFEST} says {file.size}")


def _write(opened: Callable[[], IO[bytes]], path: Path, file: BundledFile, progressed: Callable[[int], None]) -> None:
    """Write one member, and compare its digest."""
    path.parent.mkdir(parents=True, exist_ok=True)
    hasher, size = new_hasher(scheme_of(file.content)), 0
    with library_errors():
        source = opened()
    with source, path.open("xb") as target:
        while True:
            with library_errors():
                block = source.read(_BLOCK)
            if not block:
                break
            hasher.update(block)
            target.write(block)
            size += len(block)
            progressed(len(block))
    if size != file.size or hasher.digest() != file.content:
        raise BadBundle(f"{file.path!r} has other bytes than its digest says")
    path.chmod(0o755 if file.kind == "x" else 0o644)


@contextmanager
def _bad_archives() -> Iterator[None]:
    try:
        yield
    except BadArchive as error:
        raise BadBundle(error.why) from error


class _Counted:
    """A stream that is read forward only and counts the bytes read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._head, self.at = file, b"", 0

    def peek(self, size: int) -> bytes:
        self._head = self.read(size)
        self.at = 0
        return self._head

    def read(self, size: int) -> bytes:
        """Return exactly so many bytes, fewer at the end; a pipe may give them in parts."""
        found, self._head = self._head[:size], self._head[size:]
        while len(found) < size and (block := self._file.read(size - len(found))):
            found += block
        self.at += len(found)
        return found


class _Unpacked:
    """What zstd compressed."""

    def __init__(self, packed: _Counted) -> None:
        import zstandard  # noqa: PLC0415 - only where it is compressed

        self._error = zstandard.ZstdError
        unpacker = zstandard.ZstdDecompressor(max_window_size=_LARGEST_WINDOW)
        self._reader = unpacker.stream_reader(cast("IO[bytes]", packed), read_size=_BLOCK, closefd=False)

    def read(self, size: int) -> bytes:
        try:
            return self._reader.read(size)
        except self._error as error:
            raise BadBundle(f"it is damaged: {error}") from None
