"""Pins of repositories, and the store that keeps them.

A pin is a commit with the name, size and digest of every file. It is fetched once and stored; a later run reads it and
makes no request. Only ``--update`` fetches it again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_runner.core.digest import Digest
from llama_runner.core.events import Warned
from llama_runner.core.immutable_values import Value
from llama_runner.store import layout
from llama_runner.store.layout import safe_name
from llama_runner.system.files import read_json, write_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from llama_runner.core.events import Sink

SCHEMA = 1


class RemoteFile(Value):
    """File of a repository at one commit.

    ``sha256`` is published by the Hub for files in LFS. Other files have only the SHA-1 of their git blob, which is
    checked when they are read; after that their SHA-256 is stored too.
    """

    name: str
    """Relative to the repository, with forward slashes."""
    size: int
    sha256: Digest | None = None
    blob: str = ""
    """SHA-1 of the git blob in hex; empty for a file in LFS, whose blob is only a pointer."""


class Pin(Value):
    """Repository at one commit."""

    repo: str
    commit: str
    files: tuple[RemoteFile, ...]
    """Sorted by name."""
    gguf: dict[str, object] | None = None
    """The Hub's metadata of the GGUF files: ``architecture``, ``context_length``, …; None if it has none."""
    described: bool = False
    """Whether the small files that conversion reads have been downloaded and checked."""

    def file(self, name: str) -> RemoteFile | None:
        """Return the file with this name."""
        return next((file for file in self.files if file.name == name), None)

    @property
    def artifact_directory(self) -> str:
        """Name of the directory of its artifacts; unique for each repository and commit."""
        return artifact_directory(self.repo, self.commit)

    @property
    def revisions_pattern(self) -> str:
        """Glob pattern of the artifact directories of all revisions."""
        return artifact_directory(self.repo, "*")

    def with_digests(self, digests: Mapping[str, Digest]) -> Pin:
        """Return the pin with the SHA-256 of the small files that were read."""
        files = (file if file.name not in digests else file.replace(sha256=digests[file.name]) for file in self.files)
        return self.replace(files=tuple(files), described=True)


def artifact_directory(repo: str, commit: str) -> str:
    """Return ``<org>__<model>__<rev12>``; ``commit`` may be a glob pattern."""
    safe = safe_name(repo.replace("/", "__"))
    if "__" in repo or "/" not in repo:  # a/b__c and a__b/c
        from hashlib import sha256  # noqa: PLC0415 - for few names

        safe = f"{safe}-{sha256(repo.encode()).hexdigest()[:4]}"
    return f"{safe}__{commit[:12]}"


class PinRecord(Value):
    """Stored pins and names of one repository."""

    pins: dict[str, Pin]
    """By commit."""
    names: dict[str, str]
    """Commits by branch, tag or abbreviated commit, as of the last request."""
    quantizations: tuple[str, ...] = ()
    """Tags that turned out to be quantizations, not revisions."""

    def pin(self, revision: str) -> Pin | None:
        """Return the pin of a branch, a tag or a commit."""
        return self.pins.get(self.names.get(revision, revision))


class PinStore:
    """Pins on disk, one JSON file per repository. Reading never writes."""

    def __init__(self, directory: Path, warn: Callable[[str], None]) -> None:
        self._directory, self._warn = directory, warn

    def read(self, repo: str) -> PinRecord:
        """Return the stored pins of a repository; an empty record, with a warning, if the file is damaged."""
        path = self._path(repo)
        try:
            return pins_from_json(read_json(path), repo)
        except FileNotFoundError:
            return PinRecord({}, {})
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            self._warn(f"{path} counts as absent: {error}")
            return PinRecord({}, {})

    def add(
        self, repo: str, pin: Pin | None = None, *, names: Iterable[str] = (), quantizations: Iterable[str] = ()
    ) -> None:
        """Store a pin with the names that resolve to it, and tags that are quantizations; raises ``StoreError``."""
        from llama_runner.store.errors import as_store_error  # noqa: PLC0415 - the warm path writes nothing

        try:
            self._add(repo, pin, tuple(names), tuple(quantizations))
        except OSError as error:
            raise as_store_error(error, self._directory) from error

    def _add(self, repo: str, pin: Pin | None, names: tuple[str, ...], quantizations: tuple[str, ...]) -> None:
        from filelock import FileLock  # noqa: PLC0415 - the warm path writes nothing

        path = self._path(repo)
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            known = self.read(repo)
            pins, found = dict(known.pins), dict(known.names)
            if pin is not None:
                pins[pin.commit] = pin
                found |= dict.fromkeys(names, pin.commit)
            tags = tuple(sorted({*known.quantizations, *quantizations}))
            write_json(path, pins_to_json(repo, PinRecord(pins, found, tags)), durable=True)

    def _path(self, repo: str) -> Path:
        return self._directory / f"{artifact_directory(repo, '').removesuffix('__')}.json"


def open_pins(private: Path, sink: Sink) -> PinStore:
    """Return the pins under a root; ``sink`` gets a warning for each damaged file."""
    return PinStore(layout.pins(private), lambda text: sink(Warned("damaged_pin", text)))


def pins_to_json(repo: str, known: PinRecord) -> dict[str, Any]:
    """Return the content of the file of a repository's pins."""
    pins = {
        commit: {
            "files": [[file.name, file.size, file.sha256, file.blob] for file in pin.files],
            "gguf": pin.gguf,
            "described": pin.described,
        }
        for commit, pin in known.pins.items()
    }
    return {
        "schema": SCHEMA,
        "repo": repo,
        "names": known.names,
        "quantizations": list(known.quantizations),
        "pins": pins,
    }


def pins_from_json(value: dict[str, Any], repo: str) -> PinRecord:
    """Parse the content of such a file. Raises ``ValueError``, ``KeyError``, ``TypeError`` or ``AttributeError``."""
    if value["schema"] != SCHEMA:
        raise ValueError(f"schema {value['schema']}, this program reads {SCHEMA}")
    if value["repo"] != repo:
        raise ValueError(f"it is about {value['repo']}")
    pins = {}
    for commit, pin in value["pins"].items():
        files = tuple(
            RemoteFile(str(name), int(size), None if digest is None else Digest(str(digest)), str(blob))
            for name, size, digest, blob in pin["files"]
        )
        pins[commit] = Pin(repo, commit, files, pin["gguf"], bool(pin["described"]))
    return PinRecord(pins, dict(value["names"]), tuple(value["quantizations"]))
