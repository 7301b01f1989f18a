"""What a name on the Hub resolved to, and where that is remembered.

A pin is the commit with every file's name, size and digest. It is asked for once and kept under the store's private
directory; a rerun reads it from there and makes no request. Only ``--update`` asks again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_runner.core.digest import Digest
from llama_runner.core.value import Value
from llama_runner.store.layout import safe_name
from llama_runner.system.files import read_json, write_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

SCHEMA = 1


class RemoteFile(Value):
    """One file of a repository at one commit.

    ``sha256`` is what the Hub publishes for files in LFS. Small ones have only the SHA-1 of their git blob, which is
    checked when they are read; from then on their SHA-256 is known too.
    """

    name: str
    """Relative to the repository, with forward slashes."""
    size: int
    sha256: Digest | None = None
    blob: str = ""
    """The git blob's SHA-1 in hex; empty for a file in LFS, whose blob is a pointer and says nothing of the bytes."""


class Pin(Value):
    """A repository at one commit."""

    repo: str
    commit: str
    files: tuple[RemoteFile, ...]
    """Sorted by name."""
    gguf: dict[str, object] | None = None
    """What the Hub says of the GGUF files: ``architecture``, ``context_length``, …; None where it says nothing."""
    described: bool = False
    """Whether the small files that conversion reads were read here and found to be usable."""

    def file(self, name: str) -> RemoteFile | None:
        """Return the file of exactly this name."""
        return next((file for file in self.files if file.name == name), None)

    @property
    def bucket(self) -> str:
        """The name of the directory of what is made from it; two repositories never share one."""
        return bucket(self.repo, self.commit)

    @property
    def siblings(self) -> str:
        """The pattern of the directories of all revisions of the repository."""
        return bucket(self.repo, "*")

    def knowing(self, digests: Mapping[str, Digest]) -> Pin:
        """Return the pin once its small files were read: with their SHA-256."""
        files = (file if file.name not in digests else file.replace(sha256=digests[file.name]) for file in self.files)
        return self.replace(files=tuple(files), described=True)


def bucket(repo: str, commit: str) -> str:
    """Return ``<org>__<model>__<rev12>``; ``commit`` may be a pattern."""
    safe = safe_name(repo.replace("/", "__"))
    if "__" in repo or "/" not in repo:  # a/b__c and a__b/c
        from hashlib import sha256  # noqa: PLC0415 - for few names

        safe = f"{safe}-{sha256(repo.encode()).hexdigest()[:4]}"
    return f"{safe}__{commit[:12]}"


class Known(Value):
    """What is remembered of one repository."""

    pins: dict[str, Pin]
    """By commit."""
    names: dict[str, str]
    """Branches, tags and abbreviated commits: what each of them meant when it was asked for."""
    quantizations: tuple[str, ...] = ()
    """What stood after a colon and was no revision."""

    def pin(self, revision: str) -> Pin | None:
        """Return the pin of a branch, a tag or a commit."""
        return self.pins.get(self.names.get(revision, revision))


class PinStore:
    """Pins on disk, one JSON file for each repository. Reading never writes."""

    def __init__(self, directory: Path, warn: Callable[[str], None]) -> None:
        self._directory, self._warn = directory, warn

    def known(self, repo: str) -> Known:
        """Return what is remembered of a repository; nothing, with a warning, when the file is damaged."""
        path = self._path(repo)
        try:
            return _parse(read_json(path), repo)
        except FileNotFoundError:
            return Known({}, {})
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            self._warn(f"{path} counts as absent: {error}")
            return Known({}, {})

    def add(
        self, repo: str, pin: Pin | None = None, *, names: Iterable[str] = (), quantizations: Iterable[str] = ()
    ) -> None:
        """Remember a pin, under these names too, and what stood after a colon and was a quantization.

        A ``StoreError`` when it cannot be written.
        """
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
            known = self.known(repo)
            pins, found = dict(known.pins), dict(known.names)
            if pin is not None:
                pins[pin.commit] = pin
                found |= dict.fromkeys(names, pin.commit)
            tags = tuple(sorted({*known.quantizations, *quantizations}))
            write_json(path, _spell(repo, Known(pins, found, tags)), durable=True)

    def _path(self, repo: str) -> Path:
        return self._directory / f"{bucket(repo, '').removesuffix('__')}.json"


def _spell(repo: str, known: Known) -> dict[str, Any]:
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


def _parse(value: dict[str, Any], repo: str) -> Known:
    if value["schema"] != SCHEMA:
        raise ValueError(f"schema {value['schema']}, this program knows {SCHEMA}")
    if value["repo"] != repo:
        raise ValueError(f"it is about {value['repo']}")
    pins = {}
    for commit, pin in value["pins"].items():
        files = tuple(
            RemoteFile(str(name), int(size), None if digest is None else Digest(str(digest)), str(blob))
            for name, size, digest, blob in pin["files"]
        )
        pins[commit] = Pin(repo, commit, files, pin["gguf"], bool(pin["described"]))
    return Known(pins, dict(value["names"]), tuple(value["quantizations"]))
