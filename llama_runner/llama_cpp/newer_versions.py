"""Finds newer versions of llama.cpp than the pinned one: in the package index, and among the releases."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from packaging.version import InvalidVersion, Version

from llama_runner.core.errors import DownloadError, LlamaRunnerError
from llama_runner.core.immutable_values import Value
from llama_runner.llama_cpp.release_archives import choose_asset
from llama_runner.llama_cpp.releases_api import ReleasesApi
from llama_runner.store import layout
from llama_runner.system.network_settings import is_offline
from llama_runner.system.processes import capture, python_module
from llama_runner.system.secret_redaction import Redactor

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from llama_runner.llama_cpp.pinned_source import SourcePin

_TIMEOUT_S = 120


class IndexUnavailable(DownloadError):
    """The package index gave no list of versions."""

    def __init__(self, package: str, why: str) -> None:
        self.package, self.why = package, why
        super().__init__(
            f"the package index lists no versions of {package}: {why}",
            hint="check the network and pip's index, proxy and certificate settings (pip config list)",
        )


class IndexStatus(Value):
    """Versions of the pinned package in the user's package index."""

    newest: str | None
    """None: unknown."""
    behind: int | None
    """Number of newer versions than the pinned one; None: unknown."""
    why: str | None = None
    """Why it is unknown."""


class ReleaseStatus(Value):
    """Newest release of llama.cpp."""

    tag: str | None
    """None: unknown."""
    published: str | None
    behind: int | None
    """Difference of its build number to the pinned one; None: unknown."""
    archive: str | None
    """Its archive for this machine and the CPU; None: it has none, or unknown."""
    why: str | None = None
    """Why it is unknown."""
    notes: tuple[str, ...] = ()
    """Notices, such as the use of an old answer."""


class Updates(Value):
    """Available versions, compared with the pinned one."""

    pin: SourcePin
    index: IndexStatus
    releases: ReleaseStatus

    def to_json(self) -> dict[str, Any]:
        """Return the form of the ``--json`` document."""
        pin = {"build": self.pin.build, "package": self.pin.package, "version": self.pin.version}
        released = {**self.releases.__dict__, "notes": list(self.releases.notes)}
        return {"pin": pin, "index": dict(self.index.__dict__), "releases": released}


def find_updates(
    pin: SourcePin, private: Path, *, environment: Mapping[str, str], platform: str, offline: bool = False
) -> Updates:
    """Query index and releases; an unavailable one is unknown, with the reason. Raises only for invalid settings."""
    offline = offline or is_offline(environment)
    return Updates(pin, _indexed(pin, offline=offline), _released(pin, private, environment, platform, offline=offline))


def _indexed(pin: SourcePin, *, offline: bool) -> IndexStatus:
    if offline:
        return IndexStatus(None, None, "the network must not be used")
    try:
        listed = index_versions(pin.package, pre=Version(pin.version).is_prerelease)
    except IndexUnavailable as error:
        return IndexStatus(None, None, error.why)
    newer = [each for each in listed if Version(each) > Version(pin.version)]
    return IndexStatus(listed[0], len(newer))


def index_versions(package: str, *, pre: bool = False) -> tuple[str, ...]:
    """Return the versions of a package, newest first, with pre-releases if ``pre``; raises ``IndexUnavailable``.

    Uses pip, for its index, proxy and certificate settings.
    """
    command = [
        *(*python_module("pip"), "index", "versions", package, "--only-binary", ":all:"),
        *("--no-input", "--disable-pip-version-check", "--no-color", *(("--pre",) if pre else ())),
    ]
    try:
        done = capture(command, env={**os.environ, "PYTHONIOENCODING": "utf-8"}, timeout=_TIMEOUT_S)
    except TimeoutError:
        raise IndexUnavailable(package, f"no answer in {_TIMEOUT_S} s") from None
    said = done.out.decode("utf-8", "replace")
    listed = re.search(r"^Available versions: (.+)$", said, re.MULTILINE)
    if done.status == 0 and listed:
        if versions := sort_versions(listed[1].split(","), pre=pre):
            return versions
        raise IndexUnavailable(package, "it has pre-releases only")
    errors = [line for line in done.err.decode("utf-8", "replace").splitlines() if line.startswith("ERROR: ")]
    why = errors[-1].removeprefix("ERROR: ") if errors else f"pip ended with {done.status}"
    raise IndexUnavailable(package, Redactor(os.environ).text(why))


def sort_versions(versions: Iterable[str], *, pre: bool) -> tuple[str, ...]:
    """Return versions sorted by PEP 440, newest first; invalid ones are left out."""
    known = []
    for text in versions:
        with suppress(InvalidVersion):
            known.append(Version(text.strip()))
    return tuple(str(each) for each in sorted(known, reverse=True) if pre or not each.is_prerelease)


def _released(
    pin: SourcePin, private: Path, environment: Mapping[str, str], platform: str, *, offline: bool
) -> ReleaseStatus:
    notes: list[str] = []
    listing = ReleasesApi(
        layout.releases(private), environment, offline=offline, notice=lambda _what, text: notes.append(text)
    )
    try:
        latest = listing.latest()
    except DownloadError as error:
        why = f"{error}" if error.hint is None else f"{error} ({error.hint})"
        return ReleaseStatus(None, None, None, None, why, tuple(notes))
    try:
        archive = choose_asset(latest, platform, "cpu").name
    except LlamaRunnerError:
        archive = None
    behind = None if latest.build is None else max(0, latest.build - pin.build)
    return ReleaseStatus(latest.tag, latest.published, behind, archive, None, tuple(notes))
