"""Sources that are files on this machine: their digests without reading them again, and what goes wrong.

`LocalSource` is the base of every such source; what is particular to a kind of source is a method of its class. Stamps
in the records answer first, then the stamp cache; only then are bytes read.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from llama_runner.core.digest import Digest, short
from llama_runner.core.errors import SourceError, StepError
from llama_runner.core.model_files import is_read_here, parts_read_here
from llama_runner.core.source import Source
from llama_runner.core.value import Value
from llama_runner.store import layout
from llama_runner.store.model_digest import (
    digest_of_all,
    indexed,
    known_digest,
    part_of_file,
    parts_of,
    recorded_digests,
)
from llama_runner.store.recorded_sources import recorded, records_of, unchanged
from llama_runner.store.stamps import StampCache, hash_file, is_settled, source_stamp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from llama_runner.core.record import Stamp
    from llama_runner.store.artifacts import Store


PROGRESS_EVERY_S = 0.1


def missing_source_error(path: Path) -> SourceError:
    """There is nothing at that path."""
    return SourceError(f"{path} does not exist", hint="check the path; relative ones start at the current directory")


def unreadable_source_error(path: Path | str, why: str) -> SourceError:
    """The system does not let us read it."""
    hint = "make it readable for this user"
    if why == "not a regular file":
        hint = "put a file in its place, or remove it"
    elif os.path.islink(path) and not os.path.exists(path):  # noqa: PTH110, PTH114 - text too
        hint = "it is a link to a file that is not there; fetch the model again"
    return SourceError(f"cannot read {path}: {why}", hint=hint)


class SourceChanged(StepError):
    """The files changed while they were being read; what was made of them is thrown away."""

    def __init__(self, path: Path, name: str) -> None:
        self.path, self.name = path, name
        super().__init__(
            f"{name} in {path} changed while it was being read",
            hint="wait until nothing writes there any more and run again; nothing was kept",
        )


class StoredSource(Source):
    """Bytes in the store, described by their record when they were opened."""

    path: Path
    digest: Digest

    def origin(self) -> dict[str, object]:
        """Return what a record says of it."""
        raise NotImplementedError

    def verify(self) -> None:
        """Raise a ``StoreError`` if the bytes are no longer those that were opened."""
        raise NotImplementedError


class LocalSource(Source):
    """Files outside the store."""

    path: Path

    is_small: ClassVar[bool] = False
    """Whether reading all of it costs less than looking into the stamp cache."""
    is_inspected: ClassVar[bool] = False
    """Whether it is inspected before it is hashed."""
    is_directory: ClassVar[bool] = False
    """Whether its digest is that of a tree, even of one file."""

    if TYPE_CHECKING:  # a field or a property of the subclasses

        @property
        def name(self) -> str:
            """What it is called; for a file or directory the last part of its path."""

    @property
    def is_converted_here(self) -> bool:
        """Whether only our own conversion reads it: then files that conversion does not read do not count."""
        return False

    def files(self) -> dict[str, Path]:
        """Return the files that the digest covers, by name relative to the source, sorted."""
        return {self.path.name: self.path}


class DirectorySource(LocalSource):
    """A directory that is one thing: a source tree. One stamp over all of its files vouches for it.

    A record of what is made of thousands of files would be longer than the files if it named each.
    """

    kept_in: ClassVar[tuple[str, ...]]
    """Where the records of what is made of it are, relative to the root."""

    @property
    def name(self) -> str:
        """The directory's name."""
        return text_of(self.path.name)

    def hash(self, files: Mapping[str, Path]) -> Digest:
        """Return the digest of these files."""
        raise NotImplementedError


class _Seen(Value):
    """A file as it was when its digest was given."""

    stamp: Stamp
    digest: Digest
    settled: bool


def text_of(name: str) -> str:
    """Return a file's name as text that can be written anywhere; bytes that are not UTF-8 become question marks."""
    return os.fsencode(name).decode("utf-8", "replace")


class LocalSources:
    """Looks at local sources, and hashes what no stamp vouches for."""

    def __init__(
        self,
        store: Store,
        *,
        remember: bool,
        inspect: Callable[[Any], object],
        on_progress: Callable[[int, int], None] = lambda _done, _total: None,
    ) -> None:
        """Look at sources through ``store``; ``remember`` digests there, ``inspect`` a model before hashing it."""
        self._store, self._remember, self._inspect, self._on_progress = store, remember, inspect, on_progress
        self._cache = StampCache(layout.stamps(store.private))
        self._seen: dict[Source, dict[str, _Seen]] = {}
        self._unrecorded: set[Source] = set()
        self._named: dict[Source, tuple[Digest, dict[str, str]]] = {}
        """The digest of a model that we convert, and those of what conversion reads of files that it reads in part."""

    def digest(self, source: Source) -> Digest:
        """See ``Sources``. One file gives its own digest, a directory that of its relevant files."""
        if isinstance(source, StoredSource):
            return source.digest
        assert isinstance(source, LocalSource)
        files = source.files()
        stamps = {name: _stamp(path) for name, path in files.items()}
        if isinstance(source, DirectorySource):
            return self._digest_whole(source, files, stamps)
        is_named = source.is_converted_here
        records = records_of(self._store, source.name)
        origin = recorded(source.path, stamps, records, with_parts=is_named)
        if origin is not None:
            known = {name: Digest(entry["digest"]) for name, entry in origin["files"].items()}
        elif source.is_small:  # a few megabytes: reading them costs less than a database
            with reading(source.path):
                known = {name: hash_file(path) for name, path in files.items()}
        else:
            self._unrecorded.add(source)
            if source.is_inspected:
                self._inspect(source)  # what is wrong with it is said before gigabytes are read
            known = self._hash(files, stamps, unchanged(source.path, stamps, records) | self._seen_at(source, stamps))
        self._seen[source] = {name: _Seen(stamps[name], known[name], is_settled(stamps[name])) for name in files}
        if is_named and origin is None:
            with reading(source.path):
                parts = parts_of(files, known)
            self._named[source] = known_digest(source.path, known, parts, indexed(files), records), parts
        elif is_named and origin is not None:
            self._named[source] = Digest(origin["digest"]), origin["parts"]
        return self._combine(source)

    def _seen_at(self, source: Source, stamps: Mapping[str, Stamp]) -> dict[str, Digest]:
        """Return the digests of files that were hashed as those of another source at the same path."""
        same = [seen for other, seen in self._seen.items() if getattr(other, "path", None) == self.path(source)]
        return {name: one.digest for seen in same for name, one in seen.items() if one.stamp == stamps.get(name)}

    def _digest_whole(self, source: DirectorySource, files: dict[str, Path], stamps: dict[str, Stamp]) -> Digest:
        whole = _stamp_of_all(stamps)
        settled = all(map(is_settled, stamps.values()))
        known = self._whole_from_records(source, whole)
        if known is None:
            self._unrecorded.add(source)
            known = self._cache.get(source.path, whole) if settled else None
        if known is None:
            with reading(source.path):
                known = source.hash(files)
            if self._remember and settled:
                self._cache.put(source.path, whole, known)
        self._seen[source] = {name: _Seen(stamp, known, settled) for name, stamp in stamps.items()}
        return known

    def _whole_from_records(self, source: DirectorySource, stamp: Stamp) -> Digest | None:
        for parent in source.kept_in:
            for _, records in self._store.directories(parent, "*"):
                for record in records.values():
                    origin = record.source
                    if origin.get("ref") == str(source.path) and origin.get("stamp") == stamp:
                        return Digest(str(origin.get("digest")))
        return None

    def _combine(self, source: LocalSource) -> Digest:
        seen = self._seen[source]
        if source in self._named:
            return self._named[source][0]
        if isinstance(source, DirectorySource) or (len(seen) == 1 and not source.is_directory):
            return next(iter(seen.values())).digest
        return digest_of_all({name: file.digest for name, file in seen.items()})

    def _hash(self, files: dict[str, Path], stamps: dict[str, Stamp], known: Mapping[str, Digest]) -> dict[str, Digest]:
        from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 - not on the warm path

        stopped = threading.Event()
        read, total = dict.fromkeys(files, 0), sum(int(stamp["size"]) for stamp in stamps.values())
        told = time.monotonic()

        def progress(name: str, count: int) -> None:
            nonlocal told
            read[name], now = count, time.monotonic()
            if now - told >= PROGRESS_EVERY_S:
                told = now
                self._on_progress(sum(read.values()), total)

        def one(name: str) -> Digest:
            found = known.get(name)
            if found is None and is_settled(stamps[name]):
                found = self._cache.get(files[name], stamps[name])
            if found is None:
                with reading(files[name]):
                    found = hash_file(files[name], stopped.is_set, partial(progress, name))
                if self._remember:
                    self._cache.put(files[name], stamps[name], found)
            read[name] = int(stamps[name]["size"])
            self._on_progress(sum(read.values()), total)
            return found

        with ThreadPoolExecutor(max_workers=4) as pool:
            try:
                return dict(zip(files, pool.map(one, files), strict=True))
            except BaseException:
                stopped.set()  # Ctrl-C too: nobody waits for gigabytes
                raise

    def path(self, source: Source) -> Path:
        """See ``Sources``."""
        assert isinstance(source, (LocalSource, StoredSource))
        return source.path

    def origin(self, source: Source) -> dict[str, Any]:
        """See ``Sources``. Stamps that are too young to be trusted later are left out."""
        if isinstance(source, StoredSource):
            return source.origin()
        assert isinstance(source, LocalSource)
        digest = self._combine(source)
        about = {"kind": source.kind, "ref": str(source.path), "revision": short(digest, 12)}
        if isinstance(source, DirectorySource):
            seen = self._seen[source]
            stamp = _stamp_of_all({name: file.stamp for name, file in seen.items()})
            return {**about, "digest": digest, "stamp": stamp if all(file.settled for file in seen.values()) else None}
        files: dict[str, dict[str, Any]] = {
            name: {"digest": file.digest, "stamp": file.stamp if file.settled else None}
            for name, file in self._seen[source].items()
        }
        if source not in self._named:
            return {**about, "files": files}
        return {**about, "digest": digest, "parts": self._named[source][1], "files": files}

    def changed(self, source: Source, origin: Mapping[str, Any]) -> list[str] | None:
        """See ``Sources``. What does not count is left out."""
        if not isinstance(source, LocalSource) or origin.get("ref") != str(source.path):
            return None
        theirs, parts = recorded_digests(origin), origin.get("parts")
        if theirs is None:
            return None
        files, mine = source.files(), {name: file.digest for name, file in self._seen[source].items()}
        if source not in self._named:
            return sorted(name for name in {*mine, *theirs} if mine.get(name) != theirs.get(name))
        shards = indexed(files)
        before = parts_read_here(theirs, parts if isinstance(parts, dict) else {}, shards)
        now = parts_read_here(mine, self._named[source][1] if isinstance(parts, dict) else {}, shards)
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
        stamps = {name: _stamp(files[name]) if name in files else {} for name in self._counting(source, files)}
        for name, now in stamps.items():
            if name in seen and (now == seen[name].stamp or self._has_same_part(source, name, files)):
                continue
            if name not in seen or {**now, "ctime_ns": seen[name].stamp["ctime_ns"]} != seen[name].stamp:
                raise SourceChanged(source.path, name)
            changed.add(name)  # a hard link was made to it, or it was replaced by a file of the same time
        if isinstance(source, DirectorySource) and changed and source.hash(files) != self._combine(source):
            raise SourceChanged(source.path, min(changed))
        for name in sorted(changed) if not isinstance(source, DirectorySource) else ():
            if hash_file(files[name]) != seen[name].digest:
                raise SourceChanged(source.path, name)

    def _has_same_part(self, source: LocalSource, name: str, files: Mapping[str, Path]) -> bool:
        """Whether what conversion reads of a file that changed is what it was."""
        part = self._named[source][1].get(name) if source in self._named else None
        if part is None or name not in files:
            return False
        with reading(files[name]):
            return part_of_file(name, files[name]) == part

    def _counting(self, source: LocalSource, files: Mapping[str, Path]) -> list[str]:
        """Return the names of the files, of now and of before, that must not change."""
        names = {*files, *self._seen[source]}
        if source in self._named:
            shards = indexed(files)
            names = {name for name in names if is_read_here(name, names, shards)}
        return sorted(names)


def _stamp_of_all(stamps: Mapping[str, Stamp]) -> Stamp:
    """Return one stamp over many, with the newest of their times for people."""
    text = json.dumps([[name, *stamp.values()] for name, stamp in stamps.items()]).encode()
    newest = max((int(stamp["mtime_ns"]) for stamp in stamps.values()), default=0)
    return {"tree": hashlib.sha256(text).hexdigest(), "mtime_ns": newest}


def _stamp(path: Path) -> Stamp:
    with reading(path):
        return source_stamp(path)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Raise ``SourceError`` for what the system refuses while a file, or files in a directory, are read."""
    try:
        yield
    except OSError as error:
        raise unreadable_source_error(error.filename or path, error.strerror or str(error)) from error
