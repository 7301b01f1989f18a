"""Sources that are local files: their digests, origins and errors.

``LocalSource`` is the base class of these sources. A digest is taken from a record with the same stamps, else from the
stamp cache, else computed by reading the files.
"""

from __future__ import annotations

import json
import os
import threading
import time
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from llama_runner.core.digest import Digest, short_hash
from llama_runner.core.errors import LlamaRunnerError, SourceError, StepError
from llama_runner.core.files_of_model_directory import is_read_by_native_converter, native_converter_inputs
from llama_runner.core.immutable_values import Value
from llama_runner.core.short_sha256 import sha256
from llama_runner.core.source import Source
from llama_runner.store import layout
from llama_runner.store.digest_cache import StampCache, hash_file, is_settled, source_stamp
from llama_runner.store.model_digest import (
    directory_digest,
    equivalent_digest,
    indexed_shards,
    part_digest,
    part_digests,
    recorded_file_digests,
)
from llama_runner.store.recorded_sources import recorded_origin, source_records, unchanged_digests

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from llama_runner.core.artifact_record import Stamp
    from llama_runner.store.artifacts import Store


PROGRESS_EVERY_S = 0.1
_THREADS = 4
"""Files that are hashed at the same time."""


def missing_source_error(path: Path) -> SourceError:
    """Return the error for a path that does not exist."""
    return SourceError(f"{path} does not exist", hint="check the path; relative ones start at the current directory")


def unreadable_source_error(path: Path | str, why: str) -> SourceError:
    """Return the error for a file that cannot be read; ``why`` is the system's message."""
    hint = "make it readable for this user"
    if why == "not a regular file":
        hint = "put a file in its place, or remove it"
    elif os.path.islink(path) and not os.path.exists(path):  # noqa: PTH110, PTH114 - text too
        hint = "it is a link to a file that does not exist; fetch the model again"
    return SourceError(f"cannot read {path}: {why}", hint=hint)


class SourceChanged(StepError):
    """A file of a source changed while it was being read; the output of the step is discarded."""

    def __init__(self, path: Path, name: str) -> None:
        self.path, self.name = path, name
        where = path if path.name == name else f"{name} in {path}"
        super().__init__(
            f"{where} changed while it was being read",
            hint="wait until no program writes there and run again; nothing was kept",
        )


class StoredSource(Source):
    """A source in the store, with the digest from its record."""

    path: Path
    digest: Digest

    def origin(self) -> dict[str, object]:
        """Return the origin of the source, for the records of artifacts that are made from it."""
        raise NotImplementedError

    def verify(self) -> None:
        """Raise a ``StoreError`` if the bytes no longer have the digest."""
        raise NotImplementedError


class MissingSource(Source):
    """What cannot be had on this machine: the error is raised once something is made with it."""

    error: LlamaRunnerError


class LocalSource(Source):
    """A source outside the store: a file, or a directory of files."""

    path: Path

    is_small: ClassVar[bool] = False
    """Whether hashing it is faster than using the stamp cache."""
    is_inspected: ClassVar[bool] = False
    """Whether it is inspected before it is hashed."""
    is_directory: ClassVar[bool] = False
    """Whether its digest is that of a directory, even with a single file."""

    if TYPE_CHECKING:  # a field or a property of the subclasses

        @property
        def name(self) -> str:
            """Its name; by default the last part of its path."""

    @property
    def is_converted_natively(self) -> bool:
        """Whether only the native converter reads it, so that files that it does not read do not count."""
        return False

    def files(self) -> dict[str, Path]:
        """Return the files that the digest covers by name relative to the source, sorted."""
        return {self.path.name: self.path}


class DirectorySource(LocalSource):
    """A directory with one stamp over all of its files, such as a source tree.

    Its origin does not list the files, as there are thousands.
    """

    record_parents: ClassVar[tuple[str, ...]]
    """Parents, relative to the root, of the directories with records of artifacts made from it."""

    @property
    def name(self) -> str:
        """The directory's name."""
        return printable_file_name(self.path.name)

    def hash(self, files: Mapping[str, Path]) -> Digest:
        """Return the digest of these files."""
        raise NotImplementedError


class _HashedFile(Value):
    """The stamp and digest of a file; ``settled``: the stamp can be trusted later."""

    stamp: Stamp
    digest: Digest
    settled: bool


def printable_file_name(name: str) -> str:
    """Return a file name as valid Unicode; bytes that are not UTF-8 become replacement characters."""
    return os.fsencode(name).decode("utf-8", "replace")


class LocalSources:
    """Implementation of ``Sources`` for local files and for artifacts in the store."""

    def __init__(
        self,
        store: Store,
        *,
        remember: bool,
        inspect: Callable[[Any], object],
        on_progress: Callable[[int, int], None] = lambda _done, _total: None,
    ) -> None:
        """Use the records of ``store``; ``remember``: write the stamp cache; ``inspect`` a model before hashing it."""
        self._store, self._remember, self._inspect, self._on_progress = store, remember, inspect, on_progress
        self._cache = StampCache(layout.stamps(store.private))
        self._seen: dict[Source, dict[str, _HashedFile]] = {}
        self._unrecorded: set[Source] = set()
        self._native: dict[Source, tuple[Digest, dict[str, str]]] = {}
        """Digest of a model for the native converter, and the digests of the relevant parts of its files."""

    def digest(self, source: Source) -> Digest:
        """See ``Sources``. The digest of a single file is its own, that of a directory covers its relevant files."""
        if isinstance(source, StoredSource):
            return source.digest
        if isinstance(source, MissingSource):
            raise source.error
        assert isinstance(source, LocalSource)
        files = source.files()
        stamps = {name: _stamp(path) for name, path in files.items()}
        if isinstance(source, DirectorySource):
            return self._digest_directory(source, files, stamps)
        is_named = source.is_converted_natively
        records = source_records(self._store, source.name)
        origin = recorded_origin(source.path, stamps, records, with_parts=is_named)
        if origin is not None:
            known = {name: Digest(entry["digest"]) for name, entry in origin["files"].items()}
        elif source.is_small:
            with source_read_errors(source.path):
                known = {name: hash_file(path) for name, path in files.items()}
        else:
            self._unrecorded.add(source)
            if source.is_inspected:
                self._inspect(source)  # reports errors before gigabytes are read
            known = self._hash(
                files, stamps, unchanged_digests(source.path, stamps, records) | self._digests_at(source, stamps)
            )
        self._seen[source] = {name: _HashedFile(stamps[name], known[name], is_settled(stamps[name])) for name in files}
        if is_named and origin is None:
            with source_read_errors(source.path):
                parts = part_digests(files, known)
            self._native[source] = equivalent_digest(source.path, known, parts, indexed_shards(files), records), parts
        elif is_named and origin is not None:
            self._native[source] = Digest(origin["digest"]), origin["parts"]
        return self._combine(source)

    def _digests_at(self, source: Source, stamps: Mapping[str, Stamp]) -> dict[str, Digest]:
        """Return the digests of files that were hashed for another source at the same path."""
        same = [seen for other, seen in self._seen.items() if getattr(other, "path", None) == self.path(source)]
        return {name: one.digest for seen in same for name, one in seen.items() if one.stamp == stamps.get(name)}

    def _digest_directory(self, source: DirectorySource, files: dict[str, Path], stamps: dict[str, Stamp]) -> Digest:
        whole = _combined_stamp(stamps)
        settled = all(map(is_settled, stamps.values()))
        known = self._recorded_directory_digest(source, whole)
        if known is None:
            self._unrecorded.add(source)
            known = self._cache.get(source.path, whole) if settled else None
        if known is None:
            with source_read_errors(source.path):
                known = source.hash(files)
            if self._remember and settled:
                self._cache.put(source.path, whole, known)
        self._seen[source] = {name: _HashedFile(stamp, known, settled) for name, stamp in stamps.items()}
        return known

    def _recorded_directory_digest(self, source: DirectorySource, stamp: Stamp) -> Digest | None:
        for parent in source.record_parents:
            for _, records in self._store.directories(parent, "*"):
                for record in records.values():
                    origin = record.source
                    if origin.get("ref") == str(source.path) and origin.get("stamp") == stamp:
                        return Digest(str(origin.get("digest")))
        return None

    def _combine(self, source: LocalSource) -> Digest:
        seen = self._seen[source]
        if source in self._native:
            return self._native[source][0]
        if isinstance(source, DirectorySource) or (len(seen) == 1 and not source.is_directory):
            return next(iter(seen.values())).digest
        return directory_digest({name: file.digest for name, file in seen.items()})

    def _hash(self, files: dict[str, Path], stamps: dict[str, Stamp], known: Mapping[str, Digest]) -> dict[str, Digest]:
        from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 - not on the warm path

        stopped = threading.Event()
        read, total = dict.fromkeys(files, 0), sum(int(stamp["size"]) for stamp in stamps.values())
        reported = time.monotonic()

        def progress(name: str, count: int) -> None:
            nonlocal reported
            read[name], now = count, time.monotonic()
            if now - reported >= PROGRESS_EVERY_S:
                reported = now
                self._on_progress(sum(read.values()), total)

        def one(name: str) -> Digest:
            found = known.get(name)
            if found is None and is_settled(stamps[name]):
                found = self._cache.get(files[name], stamps[name])
            if found is None:
                with source_read_errors(files[name]):
                    found = hash_file(files[name], stopped.is_set, partial(progress, name))
                if self._remember:
                    self._cache.put(files[name], stamps[name], found)
            read[name] = int(stamps[name]["size"])
            self._on_progress(sum(read.values()), total)
            return found

        largest_first = sorted(files, key=lambda name: -int(stamps[name]["size"]))  # so that no thread ends alone
        with ThreadPoolExecutor(max_workers=_THREADS) as pool:
            try:
                found = dict(zip(largest_first, pool.map(one, largest_first), strict=True))
                return {name: found[name] for name in files}
            except BaseException:
                stopped.set()  # also on Ctrl-C
                raise

    def path(self, source: Source) -> Path:
        """See ``Sources``."""
        assert isinstance(source, (LocalSource, StoredSource))
        return source.path

    def origin(self, source: Source) -> dict[str, Any]:
        """See ``Sources``. Stamps that are too recent to be trusted later are left out."""
        if isinstance(source, StoredSource):
            return source.origin()
        assert isinstance(source, LocalSource)
        digest = self._combine(source)
        about = {"kind": source.kind, "ref": str(source.path), "revision": short_hash(digest, 12)}
        if isinstance(source, DirectorySource):
            seen = self._seen[source]
            stamp = _combined_stamp({name: file.stamp for name, file in seen.items()})
            return {**about, "digest": digest, "stamp": stamp if all(file.settled for file in seen.values()) else None}
        files: dict[str, dict[str, Any]] = {
            name: {"digest": file.digest, "stamp": file.stamp if file.settled else None}
            for name, file in self._seen[source].items()
        }
        if source not in self._native:
            return {**about, "files": files}
        return {**about, "digest": digest, "parts": self._native[source][1], "files": files}

    def changed(self, source: Source, origin: Mapping[str, Any]) -> list[str] | None:
        """See ``Sources``. Files that do not affect the digest are left out."""
        if not isinstance(source, LocalSource) or origin.get("ref") != str(source.path):
            return None
        theirs, parts = recorded_file_digests(origin), origin.get("parts")
        if theirs is None:
            return None
        files, mine = source.files(), {name: file.digest for name, file in self._seen[source].items()}
        if source not in self._native:
            return sorted(name for name in {*mine, *theirs} if mine.get(name) != theirs.get(name))
        shards = indexed_shards(files)
        before = native_converter_inputs(theirs, parts if isinstance(parts, dict) else {}, shards)
        now = native_converter_inputs(mine, self._native[source][1] if isinstance(parts, dict) else {}, shards)
        return sorted(name for name in {*before, *now} if before.get(name) != now.get(name))

    def unrecorded_origin(self, source: Source) -> dict[str, Any] | None:
        """See ``Sources``."""
        return self.origin(source) if source in self._unrecorded else None

    def verify(self, source: Source) -> None:
        """See ``Sources``."""
        if isinstance(source, StoredSource):
            source.verify()
            return
        assert isinstance(source, LocalSource)
        files, seen = source.files(), self._seen[source]
        changed: set[str] = set()
        stamps = {name: _stamp(files[name]) if name in files else {} for name in self._converted_files(source, files)}
        for name, now in stamps.items():
            if name in seen and (now == seen[name].stamp or self._has_same_part(source, name, files)):
                continue
            if name not in seen or {**now, "ctime_ns": seen[name].stamp["ctime_ns"]} != seen[name].stamp:
                raise SourceChanged(source.path, name)
            changed.add(name)  # only the ctime differs: a new hard link, or another file with the same mtime
        if isinstance(source, DirectorySource) and changed and source.hash(files) != self._combine(source):
            raise SourceChanged(source.path, min(changed))
        for name in sorted(changed) if not isinstance(source, DirectorySource) else ():
            if hash_file(files[name]) != seen[name].digest:
                raise SourceChanged(source.path, name)

    def _has_same_part(self, source: LocalSource, name: str, files: Mapping[str, Path]) -> bool:
        """Whether the part of a changed file that affects the conversion is unchanged."""
        part = self._native[source][1].get(name) if source in self._native else None
        if part is None or name not in files:
            return False
        with source_read_errors(files[name]):
            return part_digest(name, files[name]) == part

    def _converted_files(self, source: LocalSource, files: Mapping[str, Path]) -> list[str]:
        """Return the names of the files, present or hashed before, that must not change."""
        names = {*files, *self._seen[source]}
        if source in self._native:
            shards = indexed_shards(files)
            names = {name for name in names if is_read_by_native_converter(name, names, shards)}
        return sorted(names)


def _combined_stamp(stamps: Mapping[str, Stamp]) -> Stamp:
    """Return one stamp for many; its ``mtime_ns``, the newest of theirs, is for display."""
    text = json.dumps([[name, *stamp.values()] for name, stamp in stamps.items()]).encode()
    newest = max((int(stamp["mtime_ns"]) for stamp in stamps.values()), default=0)
    return {"tree": sha256(text).hexdigest(), "mtime_ns": newest}


def _stamp(path: Path) -> Stamp:
    with source_read_errors(path):
        return source_stamp(path)


@contextmanager
def source_read_errors(path: Path) -> Iterator[None]:
    """Turn an ``OSError`` while a file, or the files of a directory, are read into a ``SourceError``."""
    try:
        yield
    except OSError as error:
        raise unreadable_source_error(error.filename or path, error.strerror or str(error)) from error
