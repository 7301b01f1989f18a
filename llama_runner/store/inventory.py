"""Everything that lies under a root, as far as records and the file system tell.

One listing of each directory and one read of each state file; no payload is opened and nothing is written. A record
that this version cannot read is named with the reason, never guessed.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING

from llama_runner.core.events import Warned
from llama_runner.core.record import STATE_FILE, TREE, Damaged, Record, parse_state
from llama_runner.core.value import Value, field
from llama_runner.store import layout, staging
from llama_runner.store.artifacts import LARGEST_STATE
from llama_runner.store.last_use import last_uses, name_of
from llama_runner.system.files import read_bounded

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path


class Artifact(Value):
    """One artifact with its record."""

    directory: str
    """Below the root, with forward slashes."""
    name: str
    """The file in the directory; ``.`` where the artifact is the directory itself."""
    record: Record
    bytes: int | None
    """On disk; None where only the record is left. Of a directory it is what the record says."""
    last_used: float | None = None
    """When a server was last started with it, in seconds since the epoch."""

    @property
    def is_tree(self) -> bool:
        """Whether the artifact is the directory itself."""
        return self.name == TREE

    @property
    def path(self) -> str:
        """Its path below the root, with forward slashes."""
        return self.directory if self.is_tree else f"{self.directory}/{self.name}"

    @property
    def step(self) -> str:
        """The kind of the step that made it."""
        return str(self.record.recipe.get("step", ""))


class Directory(Value):
    """A directory with a state file."""

    path: str
    """Below the root, with forward slashes."""
    artifacts: tuple[Artifact, ...]
    problems: Mapping[str, str]
    """Why records cannot be read, by artifact name; ``.state.json`` where the whole file cannot."""
    unrecorded: tuple[str, ...] = ()
    """Names of what lies there and no record names."""


class Entry(Value):
    """A file or directory that is no artifact: a log, a lock file, unfinished work."""

    path: str
    """Below the root, with forward slashes."""
    bytes: int
    changed: float
    """Seconds since the epoch."""
    is_directory: bool = False

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition("/")[2]


class _Place(Value):
    """A directory that may hold a state file, or further ones that do."""

    path: str
    """The path to open."""
    below: str
    """The same below the root, with forward slashes; empty for the root."""
    depth: int
    """How many levels of directories below it are looked at."""
    above: frozenset[tuple[int, int]] = field(default_factory=frozenset)


class Inventory:
    """What a root holds. Each part is read when it is first asked for, and once."""

    def __init__(self, root: Path) -> None:
        self.root, self.private = root, root / layout.PRIVATE

    @cached_property
    def directories(self) -> list[Directory]:
        """Every directory with a state file."""
        return [*self.programs, *self.models]

    @cached_property
    def models(self) -> list[Directory]:
        """The directories of models."""
        return list(self._below(layout.MODELS, 3))

    @cached_property
    def programs(self) -> list[Directory]:
        """The directories of builds, and of what builds and conversions are made from."""
        return [*self._below(layout.SOURCES, 1), *self._below(layout.BUILDS, 2)]

    @property
    def artifacts(self) -> Iterator[Artifact]:
        """Every artifact that has a record."""
        return (artifact for directory in self.directories for artifact in directory.artifacts)

    def warnings(self, directories: Iterable[Directory]) -> Iterator[Warned]:
        """Yield a warning for each record that cannot be read."""
        for directory in directories:
            for name, why in directory.problems.items():
                path = self.root / directory.path / STATE_FILE
                what = str(path) if name == STATE_FILE else f"the record of {name} in {path}"
                yield Warned("damaged_state", f"{what} counts as absent: {why}")

    @cached_property
    def last_uses(self) -> Mapping[str, float]:
        """The stamps that starts of servers leave."""
        return last_uses(self.private)

    def entries(self, directory: Path) -> list[Entry]:
        """Return what lies in one directory below the root, sorted by name; a directory with the size of its files."""
        below = directory.relative_to(self.root).as_posix()
        found: list[Entry] = []
        with suppress(OSError), os.scandir(directory) as entries:
            for entry in entries:
                with suppress(OSError):
                    status = entry.stat(follow_symlinks=False)
                    # where models/ is on another file system, a link leads to the directory there
                    is_directory = entry.is_dir(follow_symlinks=staging.is_ours(entry.path))
                    size, changed = size_below(entry.path) if is_directory else (status.st_size, 0.0)
                    changed = max(changed, status.st_mtime)
                    found.append(Entry(f"{below}/{entry.name}", size, changed, is_directory))
        return sorted(found, key=lambda each: each.path)

    def _below(self, part: str, depth: int) -> Iterator[Directory]:
        yield from self._walk(_Place(os.path.join(self.root, part), part, depth))  # noqa: PTH118 - a thousand of them

    def _walk(self, place: _Place) -> Iterator[Directory]:
        """Yield the directories with a state file. One that a link leads to again is left out."""
        try:
            status = os.stat(place.path)  # noqa: PTH116 - as above
            with os.scandir(place.path) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError:
            return
        here = (status.st_dev, status.st_ino)
        if here in place.above:
            return
        is_tree = False
        if any(entry.name == STATE_FILE for entry in entries):
            directory = self._directory(place, entries)
            is_tree = any(artifact.is_tree for artifact in directory.artifacts) or TREE in directory.problems
            yield directory
        if is_tree or not place.depth:
            return
        for entry in entries:
            if entry.name.startswith((staging.PREFIX, layout.PRIVATE)) or not _is_directory(entry):
                continue
            above = place.above | {here}
            yield from self._walk(_Place(entry.path, f"{place.below}/{entry.name}", place.depth - 1, above))

    def _directory(self, place: _Place, entries: list[os.DirEntry[str]]) -> Directory:
        try:
            state = parse_state(read_bounded(os.path.join(place.path, STATE_FILE), LARGEST_STATE))  # noqa: PTH118
        except (OSError, Damaged, UnicodeDecodeError) as error:
            return Directory(place.below, (), {STATE_FILE: str(error)})
        by_name = {entry.name: entry for entry in entries if entry.name != STATE_FILE}
        artifacts = []
        for name, record in sorted(state.records.items()):
            if name == TREE:
                uses = [used for inside in by_name if (used := self._used(place, inside)) is not None]
                size = record.bytes if by_name else None
                artifacts.append(Artifact(place.below, name, record, size, max(uses, default=None)))
            elif _is_plain(name):
                size = _size(by_name[name]) if name in by_name else None
                artifacts.append(Artifact(place.below, name, record, size, self._used(place, name)))
        known = {*state.records, *state.problems}
        unrecorded: tuple[str, ...] = ()
        if TREE not in known:
            unrecorded = tuple(name for name in by_name if name not in known and _size(by_name[name]) is not None)
        return Directory(place.below, tuple(artifacts), state.problems, unrecorded)

    def _used(self, place: _Place, name: str) -> float | None:
        return self.last_uses.get(name_of(f"{place.below}/{name}")) if self.last_uses else None


def _is_plain(name: str) -> bool:
    """Whether a name in a state file, which anybody may have edited, is that of a file in its directory."""
    return name not in ("", "..") and "/" not in name and "\\" not in name and "\0" not in name


def _is_directory(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _size(entry: os.DirEntry[str]) -> int | None:
    """Return the size of a file, links followed; None for anything else."""
    try:
        status = entry.stat()
    except OSError:
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def size_below(path: str | Path) -> tuple[int, float]:
    """Return the bytes of all files below a directory and when one last changed; links inside are not followed."""
    total, latest = 0, 0.0
    for parent, _, names in os.walk(path):
        for name in names:
            with suppress(OSError):
                status = os.lstat(os.path.join(parent, name))  # noqa: PTH118 - many
                total, latest = total + status.st_size, max(latest, status.st_mtime)
    return total, latest
