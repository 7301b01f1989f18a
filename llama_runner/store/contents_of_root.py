"""Everything that lies under a root, as far as records and the file system tell.

One listing of each directory and one read of each state file, or none where a cache has its summaries; no payload is
opened and nothing is written. A record that this version cannot read is named with the reason, never guessed.
"""

from __future__ import annotations

import os
from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from llama_runner.core.artifact_record import STATE_FILE, TREE, InvalidRecord, parse_state
from llama_runner.core.events import Warned
from llama_runner.core.immutable_values import Value
from llama_runner.core.step import Place
from llama_runner.store import layout, staging
from llama_runner.store.artifacts import LARGEST_STATE
from llama_runner.store.errors import changed_record_error
from llama_runner.store.last_use import last_uses, name_of
from llama_runner.store.record_summaries import stamp_of, summary_of
from llama_runner.system.files import read_bounded

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from llama_runner.core.artifact_record import Record
    from llama_runner.store.record_summaries import Summary, SummaryCache


class Records:
    """The records of one state file. Where only their summaries are known it is read when one is asked for."""

    def __init__(self, path: str, parsed: Mapping[str, Record] | None) -> None:
        self._path, self._parsed, self._is_read_again = path, parsed, parsed is None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Records) and other._path == self._path  # summaries tell the rest

    def __hash__(self) -> int:
        return hash(self._path)

    def get(self, name: str, summary: Summary) -> Record:
        """Return the record of an artifact; ``StoreError`` if it is no longer the one that was summarised."""
        if self._parsed is None:
            try:
                self._parsed = parse_state(read_bounded(self._path, LARGEST_STATE)).records
            except (OSError, InvalidRecord, UnicodeDecodeError):
                self._parsed = {}
        record = self._parsed.get(name)
        if record is None or (self._is_read_again and summary_of(record) != summary):
            raise changed_record_error(self._path, name)
        return record


class Artifact(NamedTuple):
    """One artifact with its record. A tuple, as this and ``Directory`` are made for thousands of files."""

    directory: str
    """Below the root, with forward slashes."""
    name: str
    """The file in the directory; ``.`` where the artifact is the directory itself."""
    summary: Summary
    """What lists and ``gc`` need of the record."""
    records: Records
    bytes: int | None
    """On disk, as the record has it; None where only the record is left."""
    last_used: float | None = None
    """When a server was last started with it, in seconds since the epoch."""
    stamps: tuple[str, ...] = ()
    """Names of the files that say so."""

    @property
    def record(self) -> Record:
        """The whole record. Raises ``StoreError`` if another process has changed it since the inventory was read."""
        return self.records.get(self.name, self.summary)

    def with_record(self, record: Record) -> Artifact:
        """Return the artifact with another record."""
        return self._replace(summary=summary_of(record), records=Records("", {self.name: record}))

    @property
    def is_tree(self) -> bool:
        """Whether the artifact is the directory itself."""
        return self.name == TREE

    @property
    def place(self) -> Place:
        """Its place, as steps have it."""
        return Place(self.directory, "" if self.is_tree else self.name)

    @property
    def path(self) -> str:
        """Its path below the root, with forward slashes."""
        return self.directory if self.is_tree else f"{self.directory}/{self.name}"

    @property
    def step(self) -> str:
        """The kind of the step that made it."""
        return self.summary.step


class Directory(NamedTuple):
    """A directory with a state file."""

    path: str
    """Below the root, with forward slashes."""
    artifacts: tuple[Artifact, ...]
    problems: Mapping[str, str]
    """Why records cannot be read, by artifact name; ``.state.json`` where the whole file cannot."""
    unrecorded: tuple[str, ...] = ()
    """Names of what lies there and no record names."""

    def record_path(self, name: str) -> str:
        """Return the path below the root that stands for a record that cannot be read."""
        return f"{self.path}/{STATE_FILE if name in (STATE_FILE, TREE) else name}"


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


class Inventory:
    """What a root holds. Each part is read when it is first asked for, and once.

    State files of models whose summaries are in ``cache`` are not parsed.
    """

    def __init__(self, root: Path, cache: SummaryCache | None = None) -> None:
        self.root, self.private, self._cache = root, root / layout.PRIVATE, cache
        self._empty: list[str] = []

    @cached_property
    def directories(self) -> list[Directory]:
        """Every directory with a state file."""
        return [*self.programs, *self.models, *self._below(layout.ADAPTERS, 2)]

    @cached_property
    def models(self) -> list[Directory]:
        """The directories of models."""
        return list(self._below(layout.MODELS, 3))

    @property
    def empty(self) -> list[Entry]:
        """Directories of models in which nothing is."""
        found = []
        for below in self._empty if self.models is not None else ():  # they are found on the way
            with suppress(OSError):
                found.append(Entry(below, 0, os.lstat(self.root / below).st_mtime, is_directory=True))
        return [entry for entry in found if entry.path.startswith(f"{layout.MODELS}/")]

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
        path = os.path.join(self.root, part)  # noqa: PTH118 - a thousand of them
        yield from self._walk(path, part, depth, os.path.realpath(path))

    def _walk(self, path: str, below: str, depth: int, top: str) -> Iterator[Directory]:
        """Yield the directories with a state file, at most ``depth`` levels down.

        ``below`` is the path below the root with forward slashes. ``top`` is where the walk began: a link that leads
        into it, or to what holds it, is left out, as that is found without it.
        """
        try:
            with os.scandir(path) as found:
                entries = {entry.name: entry for entry in found}
        except OSError:
            return
        is_tree = False
        if not entries:
            self._empty.append(below)
        if STATE_FILE in entries:
            directory = self._directory(below, entries.pop(STATE_FILE), entries)
            is_tree = TREE in directory.problems or any(artifact.name == TREE for artifact in directory.artifacts)
            yield directory
        if is_tree or not depth:
            return
        for name in sorted(name for name in entries if _is_directory(entries[name], top)):
            if not name.startswith((staging.PREFIX, layout.PRIVATE)):
                yield from self._walk(entries[name].path, f"{below}/{name}", depth - 1, top)

    def _directory(self, below: str, file: os.DirEntry[str], by_name: Mapping[str, os.DirEntry[str]]) -> Directory:
        stamp, summaries = None, None
        if self._cache is not None and below.startswith(f"{layout.MODELS}/"):
            with suppress(OSError):
                stamp = stamp_of(file.stat())
                summaries = self._cache.get(below, stamp)
        problems: Mapping[str, str] = {}
        records = Records(file.path, None)
        if summaries is None:
            try:
                state = parse_state(read_bounded(file.path, LARGEST_STATE))
            except (OSError, InvalidRecord, UnicodeDecodeError) as error:
                return Directory(below, (), {STATE_FILE: str(error)})
            records, problems = Records(file.path, state.records), state.problems
            summaries = {name: summary_of(record) for name, record in sorted(state.records.items())}
            if self._cache is not None and stamp is not None and not problems:
                self._cache.put(below, stamp, summaries)
        artifacts = []
        for name, summary in summaries.items():
            if name == TREE:
                is_there, files = bool(by_name), (*by_name,)
            elif _is_plain(name):
                is_there, files = name in by_name and _is_file(by_name[name]), (name,)
            else:
                continue
            size = summary.bytes if is_there else None
            artifacts.append(Artifact(below, name, summary, records, size, *self._used(below, files)))
        known = {*summaries, *problems}
        unrecorded: tuple[str, ...] = ()
        if TREE not in known:
            unrecorded = tuple(name for name in by_name if name not in known and _is_file(by_name[name]))
        return Directory(below, tuple(artifacts), problems, unrecorded)

    def _used(self, below: str, names: Iterable[str]) -> tuple[float | None, tuple[str, ...]]:
        """Return when one of these files was last used, and the names of the stamps that say so."""
        if not self.last_uses:
            return None, ()
        stamps = tuple(stamp for name in names if (stamp := name_of(f"{below}/{name}")) in self.last_uses)
        return max((self.last_uses[stamp] for stamp in stamps), default=None), stamps


def _is_plain(name: str) -> bool:
    """Whether a name in a state file, which anybody may have edited, is that of a file in its directory."""
    return name not in ("", "..") and "/" not in name and "\\" not in name and "\0" not in name


def _is_directory(entry: os.DirEntry[str], top: str) -> bool:
    try:
        if not entry.is_dir():
            return False
    except OSError:  # a link to itself
        return False
    if not entry.is_symlink():
        return True
    target, inside = os.path.realpath(entry.path) + os.sep, top + os.sep
    return not target.startswith(inside) and not inside.startswith(target)


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:  # as above
        return False


def size_below(path: str | Path) -> tuple[int, float]:
    """Return the bytes of all files below a directory and when one last changed; links inside are not followed."""
    total, latest = 0, 0.0
    for parent, _, names in os.walk(path):
        for name in names:
            with suppress(OSError):
                status = os.lstat(os.path.join(parent, name))  # noqa: PTH118 - many
                total, latest = total + status.st_size, max(latest, status.st_mtime)
    return total, latest
