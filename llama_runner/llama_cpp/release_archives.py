"""Parses llama.cpp's releases and selects the archive for a machine.

The data has the shape of GitHub's releases API. Names are matched, never composed: a selected archive is always one
that the release lists. ``releases_api`` makes the requests.
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from llama_runner.core.digest import Digest, file_digest
from llama_runner.core.errors import DownloadError, ToolError
from llama_runner.core.immutable_values import Value
from llama_runner.llama_cpp import backend_build_options
from llama_runner.system.files import write_json

if TYPE_CHECKING:
    from pathlib import Path

_LARGEST_ASSET = 1 << 40
_SHOWN = 30
_LINK = re.compile(r"https?://[^\s/@]+/\S*")
_ARCHIVE = re.compile(
    r"llama-(?P<tag>[^-]+)-bin-(?P<system>[a-z]+)-(?:(?P<backend>[a-z0-9.-]+)-)?(?P<arch>[a-z0-9_]+)"
    r"\.(?:zip|tar\.gz|tar\.xz)"
)
_SYSTEMS = {"linux": "ubuntu", "macos": "macos", "windows": "win"}
_ARCHITECTURES = {"x86_64": "x64", "x64": "x64", "amd64": "x64", "aarch64": "arm64", "arm64": "arm64"}
_WORDS = {"cpu": ("", "cpu"), "cpu-portable": ("", "cpu"), "hip": ("rocm", "hip"), "metal": ("",)}
"""Names of backends in archive names, if they differ from ours. On macOS the one archive for Apple's processors has
Metal; every archive has RPC, and its CPU backend is the portable one."""


class BadListing(DownloadError):
    """The answer is not one of the releases API."""

    def __init__(self, where: str, what: str) -> None:
        self.where, self.what = where, what
        super().__init__(
            f"{where} does not answer as a listing of releases does: {what}",
            hint="check LLAMA_RUNNER_RELEASES; a login page of the network or a proxy may be in the way",
        )


class NoAsset(ToolError):
    """The release has no archive for this machine and backend."""

    def __init__(self, tag: str, platform: str, backend: str, there: tuple[str, ...]) -> None:
        self.tag, self.platform, self.backend, self.there = tag, platform, backend, there
        lines = "".join(f"\n  {name}" for name in there[:_SHOWN]) or "\n  nothing"
        super().__init__(
            f"release {tag} has no programs for {platform} with {backend}; it has{lines}",
            hint="build them (--binaries build), or choose another --device; a new release may still get files",
        )


class NoDigest(ToolError):
    """The release lists an archive without its sha256."""

    def __init__(self, tag: str, name: str) -> None:
        self.tag, self.name = tag, name
        super().__init__(
            f"release {tag} lists {name} without a sha256, so it cannot be checked",
            hint="give it with --sha256, from a source that you trust, or choose another release",
        )


class Asset(Value):
    """File of a release."""

    name: str
    url: str
    size: int
    digest: Digest | None


class Release(Value):
    """Release of llama.cpp."""

    tag: str
    published: str | None
    """ISO 8601."""
    assets: tuple[Asset, ...]
    draft: bool = False
    """Draft or preview; not chosen automatically."""

    @property
    def build(self) -> int | None:
        """Build number of its tag, None if the tag has none."""
        match = re.fullmatch(r"b(\d{1,9})", self.tag)
        return int(match[1]) if match else None


class ReleaseArchive(Value):
    """Selected archive, with the expected digest and size."""

    url: str
    digest: Digest
    size: int
    build: int | None
    tag: str
    name: str
    beside: tuple[Asset, ...] = ()
    """Archives of additional libraries: CUDA's, on Windows."""


def parse_releases(answer: object, where: str) -> tuple[Release, ...]:
    """Parse one release, or a list of them; raises ``BadListing``."""
    if isinstance(answer, list):
        return tuple(_release(each, where) for each in answer)
    return (_release(answer, where),)


def _release(about: object, where: str) -> Release:
    if not isinstance(about, dict):
        raise BadListing(where, f"a release is {type(about).__name__}, not an object")
    tag, assets = about.get("tag_name"), about.get("assets")
    if not isinstance(tag, str) or not tag or not tag.isprintable():
        raise BadListing(where, f"the tag of a release is {tag!r}")
    if not isinstance(assets, list):
        raise BadListing(where, f"release {tag} comes without a list of files")
    published = about.get("published_at")
    found = tuple(_asset(each, tag, where) for each in assets)
    if len({each.name for each in found}) < len(found):
        raise BadListing(where, f"release {tag} lists a file twice")
    draft = about.get("draft") is True or about.get("prerelease") is True
    return Release(tag, published if isinstance(published, str) else None, found, draft)


def _asset(about: object, tag: str, where: str) -> Asset:
    if not isinstance(about, dict):
        raise BadListing(where, f"a file of {tag} is {type(about).__name__}, not an object")
    name, url, size, digest = (about.get(key) for key in ("name", "browser_download_url", "size", "digest"))
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9._+-]{1,200}", name):
        raise BadListing(where, f"a file of {tag} is called {name!r}")
    if not isinstance(url, str) or not _LINK.fullmatch(url):
        raise BadListing(where, f"the address of {name} is {url!r}")
    if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size < _LARGEST_ASSET:
        raise BadListing(where, f"the size of {name} is {size!r}")
    if digest is not None and not (isinstance(digest, str) and re.fullmatch(r"sha256:[0-9a-f]{64}", digest)):
        raise BadListing(where, f"the digest of {name} is {digest!r}")
    return Asset(name, url, size, None if digest is None else Digest(digest))


def to_json(release: Release) -> dict[str, Any]:
    """Return the needed members of a release, in the shape that ``parse_releases`` reads."""
    assets = [
        {"name": each.name, "browser_download_url": each.url, "size": each.size, "digest": each.digest}
        for each in release.assets
    ]
    return {"tag_name": release.tag, "published_at": release.published, "draft": release.draft, "assets": assets}


def choose_asset(release: Release, platform: str, backend: str) -> Asset:
    """Return the archive of a release for ``platform`` (as ``hardware.platform_tag``) and ``backend``.

    Of several for one backend (CUDA 12 and 13) it is the one for the oldest driver, which newer drivers run too.
    Raises ``NoAsset``.
    """
    system, _, arch = platform.partition("-")
    bare, _ = backend_build_options.split_rpc(backend)
    words = _WORDS.get(bare, (bare,))
    if bare == "metal" and system != "macos":
        words = ()
    found = []
    for asset in release.assets:
        match = _ARCHIVE.fullmatch(asset.name)
        if match is None or match["system"] != _SYSTEMS.get(system):
            continue
        word, _, version = (match["backend"] or "").partition("-")
        if match["arch"] == _ARCHITECTURES.get(arch.lower(), arch) and word in words:
            found.append(([int(number) for number in re.findall(r"\d+", version)], asset.name, asset))
    if not found:
        raise NoAsset(release.tag, platform, backend, tuple(sorted(each.name for each in release.assets)))
    return min(found)[2]


def companions(release: Release, asset: Asset) -> tuple[Asset, ...]:
    """Return the archives of additional libraries: ``cudart-llama-bin-win-cuda-12.4-x64.zip``."""
    name = "cudart-" + asset.name.replace(f"llama-{release.tag}-", "llama-")
    return tuple(each for each in release.assets if each.name == name)


def archive_of(release: Release, platform: str, backend: str, sha256: str | None = None) -> ReleaseArchive:
    """Return the archive to fetch; raises ``NoAsset`` or ``NoDigest``."""
    asset = choose_asset(release, platform, backend)
    beside = companions(release, asset)
    digest = file_digest(sha256) if sha256 else asset.digest
    if digest is None:
        raise NoDigest(release.tag, asset.name)
    for each in beside:
        if each.digest is None:
            raise NoDigest(release.tag, each.name)
    return ReleaseArchive(asset.url, digest, asset.size, release.build, release.tag, asset.name, beside)


def write_cache(path: Path, value: object) -> None:
    """Write a small JSON file; ignore a failure."""
    with suppress(OSError):
        write_json(path, value)
