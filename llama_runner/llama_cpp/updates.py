"""Whether there is a newer llama.cpp than the pinned one: what the package index has, and what was released."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from packaging.version import InvalidVersion, Version

from llama_runner.core.errors import DownloadError, LlamaRunnerError
from llama_runner.core.value import Value
from llama_runner.llama_cpp import releases
from llama_runner.llama_cpp.release_index import Listing
from llama_runner.store import layout
from llama_runner.system.network import is_offline
from llama_runner.system.processes import capture, python_module
from llama_runner.system.redaction import Redactor

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from llama_runner.llama_cpp.pinned_source import Pin

_PATIENCE_S = 120


class IndexUnknown(DownloadError):
    """The package index does not say which versions it has."""

    def __init__(self, package: str, why: str) -> None:
        self.package, self.why = package, why
        super().__init__(
            f"the package index does not say which versions of {package} it has: {why}",
            hint="check the network and pip's index, proxy and certificate settings (pip config list)",
        )


class Indexed(Value):
    """What the user's package index has of the pinned package."""

    newest: str | None
    """None: unknown."""
    behind: int | None
    """How many versions the pinned one is behind; 0: none; None: unknown."""
    why: str | None = None
    """Why it is unknown."""


class Released(Value):
    """What the listing of releases has."""

    tag: str | None
    """None: unknown."""
    published: str | None
    behind: int | None
    """How many builds the pinned one is behind: the difference of the numbers. None: unknown."""
    archive: str | None
    """The newest release's archive of programs for this machine, on the CPU; None: it has none, or unknown."""
    why: str | None = None
    """Why it is unknown."""
    notes: tuple[str, ...] = ()
    """What is not as fresh as it could be."""


class News(Value):
    """What there is to take."""

    pin: Pin
    index: Indexed
    releases: Released

    def to_json(self) -> dict[str, Any]:
        """Return it for programs."""
        pin = {"build": self.pin.build, "package": self.pin.package, "version": self.pin.version}
        released = {**self.releases.__dict__, "notes": list(self.releases.notes)}
        return {"pin": pin, "index": dict(self.index.__dict__), "releases": released}


def look(pin: Pin, private: Path, *, environment: Mapping[str, str], platform: str, offline: bool = False) -> News:
    """Return what there is; what cannot be learned is unknown, and why is said. Raises for a wrong setting only."""
    offline = offline or is_offline(environment)
    return News(pin, _indexed(pin, offline=offline), _released(pin, private, environment, platform, offline=offline))


def _indexed(pin: Pin, *, offline: bool) -> Indexed:
    if offline:
        return Indexed(None, None, "nobody must be asked")
    try:
        listed = index_versions(pin.package, pre=Version(pin.version).is_prerelease)
    except IndexUnknown as error:
        return Indexed(None, None, error.why)
    newer = [each for each in listed if Version(each) > Version(pin.version)]
    return Indexed(listed[0], len(newer))


def index_versions(package: str, *, pre: bool = False) -> tuple[str, ...]:
    """Return the versions of a package, the newest first, pre-releases only with ``pre``; ``IndexUnknown``.

    By pip, which knows the user's index, proxy and certificates.
    """
    command = [
        *(*python_module("pip"), "index", "versions", package, "--only-binary", ":all:"),
        *("--no-input", "--disable-pip-version-check", "--no-color", *(("--pre",) if pre else ())),
    ]
    try:
        done = capture(command, env={**os.environ, "PYTHONIOENCODING": "utf-8"}, timeout=_PATIENCE_S)
    except TimeoutError:
        raise IndexUnknown(package, f"no answer in {_PATIENCE_S} s") from None
    said = done.out.decode("utf-8", "replace")
    listed = re.search(r"^Available versions: (.+)$", said, re.MULTILINE)
    if done.status == 0 and listed:
        if versions := ordered(listed[1].split(","), pre=pre):
            return versions
        raise IndexUnknown(package, "it has pre-releases only")
    errors = [line for line in done.err.decode("utf-8", "replace").splitlines() if line.startswith("ERROR: ")]
    why = errors[-1].removeprefix("ERROR: ") if errors else f"pip ended with {done.status}"
    raise IndexUnknown(package, Redactor(os.environ).text(why))


def ordered(versions: Iterable[str], *, pre: bool) -> tuple[str, ...]:
    """Return versions, the newest first, as PEP 440 orders them; others than those of PEP 440 are left out."""
    known = []
    for text in versions:
        with suppress(InvalidVersion):
            known.append(Version(text.strip()))
    return tuple(str(each) for each in sorted(known, reverse=True) if pre or not each.is_prerelease)


def _released(pin: Pin, private: Path, environment: Mapping[str, str], platform: str, *, offline: bool) -> Released:
    notes: list[str] = []
    listing = Listing(
        layout.releases(private), environment, offline=offline, notice=lambda _what, text: notes.append(text)
    )
    try:
        latest = listing.latest()
    except DownloadError as error:
        why = f"{error}" if error.hint is None else f"{error} ({error.hint})"
        return Released(None, None, None, None, why, tuple(notes))
    try:
        archive = releases.choose_asset(latest, platform, "cpu").name
    except LlamaRunnerError:
        archive = None
    behind = None if latest.build is None else max(0, latest.build - pin.build)
    return Released(latest.tag, latest.published, behind, archive, None, tuple(notes))
