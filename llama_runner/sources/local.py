"""Models that lie on this machine: a directory of safetensors, a GGUF file. Their digests, and what goes wrong.

The digest of a directory covers the files that a conversion may read; see ``model_digest`` for those that we convert.
Stamps in the records answer first, then the stat cache; only then are bytes read.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, ClassVar

from llama_runner.core.digest import Digest, short
from llama_runner.core.errors import SourceError, StepError
from llama_runner.core.model_files import CARD, READ_BY_CONVERSION, is_read_here
from llama_runner.core.step import Source
from llama_runner.core.value import Value
from llama_runner.llama_cpp.build_selection import StoredPrograms
from llama_runner.store.layout import safe_name, user_path
from llama_runner.store.model_digest import card_of, digest_of_all, indexed, known_digest
from llama_runner.store.recorded_sources import recorded, records_of, unchanged
from llama_runner.store.stamps import StampCache, hash_file, is_settled, source_stamp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from llama_runner.core.record import Stamp
    from llama_runner.sources.gguf_header import Header
    from llama_runner.store.artifacts import Store

_LARGEST_PLAIN = 16 << 30
"""Bytes of an importance matrix, a text or a patch."""


class MissingSource(SourceError):
    """There is nothing at that path."""

    def __init__(self, path: Path) -> None:
        self.path = path
        super().__init__(f"{path} does not exist", hint="check the path; relative ones start at the current directory")


class NotADirectory(SourceError):
    """A directory of safetensors was asked for, and this is something else."""

    def __init__(self, path: Path) -> None:
        self.path = path
        super().__init__(f"{path} is not a directory", hint="use --gguf-path for a GGUF file")


class UnreadableSource(SourceError):
    """The system does not let us read it."""

    def __init__(self, path: Path | str, why: str) -> None:
        self.path, self.why = path, why
        super().__init__(f"cannot read {path}: {why}", hint="make it readable for this user")


class SourceChanged(StepError):
    """The files changed while they were being read; what was made of them is thrown away."""

    def __init__(self, path: Path, name: str) -> None:
        self.path, self.name = path, name
        super().__init__(
            f"{name} in {path} changed while it was being read",
            hint="wait until nothing writes there any more and run again; nothing was kept",
        )


class LocalModel(Source):
    """A directory of safetensors with its config and tokenizer. ``name`` is part of the converted metadata."""

    path: Path
    name: str
    reads: tuple[str, ...] = READ_BY_CONVERSION
    """Patterns of the files that the digest covers."""
    converted_here: bool = False
    """Whether only our own conversion reads it, so that files which that does not read do not count."""
    kind: ClassVar[str] = "safetensors"


class LocalFile(Source):
    """A GGUF model where it lies: its first or only file, all of its files, and what the header says."""

    path: Path
    files: tuple[Path, ...]
    header: Header
    kind: ClassVar[str] = "gguf"

    @property
    def name(self) -> str:
        """The file's name without its ending."""
        return _text(self.path.stem)


class PlainFile(Source):
    """A file that is an input as it is: an importance matrix."""

    path: Path
    kind: ClassVar[str] = "file"

    @property
    def name(self) -> str:
        """The file's name."""
        return _text(self.path.name)


class Whole(Source):
    """A directory that is one thing: a source tree. One stamp over all of its files vouches for it.

    A record of what is made of thousands of files would be longer than the files if it named each.
    """

    path: Path
    kept_in: ClassVar[tuple[str, ...]]
    """Where the records of what is made of it lie, relative to the root."""

    @property
    def name(self) -> str:
        """The directory's name."""
        return _text(self.path.name)

    def files(self) -> dict[str, Path]:
        """Return the files that the digest covers, by name relative to the directory, sorted."""
        raise NotImplementedError

    def hash(self, files: Mapping[str, Path]) -> Digest:
        """Return the digest of these files."""
        raise NotImplementedError


LocalSource = LocalModel | LocalFile | PlainFile | Whole


def bucket(name: str, digest: str) -> str:
    """Return the directory, relative to the root, of what is made from a local source."""
    return f"models/gguf/local__{safe_name(name)}__{short(digest, 12)}"


def open_directory(path: Path) -> LocalModel:
    """Return the source of a directory of safetensors; a ``SourceError`` when it is none."""
    path = user_path(path).absolute()
    if not path.exists():
        raise MissingSource(path)
    if not path.is_dir():
        raise NotADirectory(path)
    resolved = path.resolve()
    return LocalModel(resolved, _text(resolved.name if path.name in ("", "..") else path.name))


def open_plain(path: Path) -> PlainFile:
    """Return the source of a file that is taken as it is; a ``SourceError`` when it is none."""
    path = user_path(path).absolute()
    if not path.exists():
        raise MissingSource(path)
    if not path.is_file():
        raise UnreadableSource(path, "it is not a file")
    if path.stat().st_size > _LARGEST_PLAIN:
        raise UnreadableSource(path, f"it is larger than {_LARGEST_PLAIN >> 30} GiB")
    return PlainFile(path)


def _text(name: str) -> str:
    """Return a file's name as text that can be written anywhere; bytes that are not UTF-8 become question marks."""
    return os.fsencode(name).decode("utf-8", "replace")


def files_of(source: LocalSource) -> dict[str, Path]:
    """Return the files that the source's digest covers, by name relative to it, sorted."""
    if isinstance(source, LocalFile):
        return {path.name: path for path in source.files}
    if isinstance(source, PlainFile):
        return {source.path.name: source.path}
    if isinstance(source, Whole):
        return source.files()
    found: dict[str, Path] = {}
    with _reading(source.path):
        for directory, below in (("", source.path), *_known_folders(source)):
            for entry in os.scandir(below):
                name = f"{directory}{entry.name}"
                if any(fnmatchcase(name, pattern) for pattern in source.reads):
                    found[name] = below / entry.name
    return {name: path for name, path in sorted(found.items()) if _may_be_read(path)}


def _may_be_read(path: Path) -> bool:
    """Whether it is a file, or a link to one that is not there, which is an error to be told; pipes would hang."""
    return path.is_file() or (path.is_symlink() and not path.exists())


def _known_folders(source: LocalModel) -> list[tuple[str, Path]]:
    patterns = {pattern.rpartition("/")[0] for pattern in source.reads if "/" in pattern}
    below = sorted(entry.name for entry in os.scandir(source.path) if entry.is_dir())
    return [(f"{name}/", source.path / name) for name in below if any(fnmatchcase(name, of) for of in patterns)]


class _Seen(Value):
    """A file as it was when its digest was given."""

    stamp: Stamp
    digest: Digest
    settled: bool


class LocalSources:
    """Looks at local sources, and hashes what no stamp vouches for."""

    def __init__(
        self,
        store: Store,
        *,
        remember: bool,
        inspect: Callable[[LocalModel], object],
        on_progress: Callable[[int, int], None] = lambda _done, _total: None,
    ) -> None:
        """Look at sources through ``store``; ``remember`` digests there, ``inspect`` a model before hashing it."""
        self._store, self._remember, self._inspect, self._on_progress = store, remember, inspect, on_progress
        self._cache = StampCache(store.private / "stamps.sqlite")
        self._seen: dict[Source, dict[str, _Seen]] = {}
        self._unrecorded: set[Source] = set()
        self._named: dict[Source, tuple[Digest, str]] = {}
        """The digest of a model that we convert, and that of what conversion reads of its card."""

    def digest(self, source: Source) -> Digest:
        """See ``Sources``. One file gives its own digest, a directory that of its relevant files."""
        if isinstance(source, StoredPrograms):
            return source.digest
        assert isinstance(source, LocalSource)
        files = files_of(source)
        stamps = {name: _stamp(path) for name, path in files.items()}
        if isinstance(source, Whole):
            return self._digest_whole(source, files, stamps)
        is_named = isinstance(source, LocalModel) and source.converted_here
        records = records_of(self._store, source.name)
        origin = recorded(source.path, stamps, records, with_digest=is_named)
        if origin is not None:
            known = {name: Digest(entry["digest"]) for name, entry in origin["files"].items()}
        elif isinstance(source, PlainFile):  # a few megabytes: reading them costs less than a database
            with _reading(source.path):
                known = {name: hash_file(path) for name, path in files.items()}
        else:
            self._unrecorded.add(source)
            if isinstance(source, LocalModel):
                self._inspect(source)  # what is wrong with it is said before gigabytes are read
            known = self._hash(files, stamps, unchanged(source.path, stamps, records) | self._seen_at(source, stamps))
        self._seen[source] = {name: _Seen(stamps[name], known[name], is_settled(stamps[name])) for name in files}
        if is_named and origin is None:
            card = card_of(files)
            self._named[source] = known_digest(source.path, known, card, indexed(files), records), card
        elif is_named and origin is not None:
            self._named[source] = Digest(origin["digest"]), str(origin["files"].get(CARD, {}).get("part", ""))
        return self._combine(source)

    def _seen_at(self, source: Source, stamps: Mapping[str, Stamp]) -> dict[str, Digest]:
        """Return the digests of files that were hashed as those of another source at the same path."""
        same = [seen for other, seen in self._seen.items() if getattr(other, "path", None) == self.path(source)]
        return {name: one.digest for seen in same for name, one in seen.items() if one.stamp == stamps.get(name)}

    def _digest_whole(self, source: Whole, files: dict[str, Path], stamps: dict[str, Stamp]) -> Digest:
        whole = _stamp_of_all(stamps)
        settled = all(map(is_settled, stamps.values()))
        known = self._whole_from_records(source, whole)
        if known is None:
            self._unrecorded.add(source)
            known = self._cache.get(source.path, whole) if settled else None
        if known is None:
            with _reading(source.path):
                known = source.hash(files)
            if self._remember and settled:
                self._cache.put(source.path, whole, known)
        self._seen[source] = {name: _Seen(stamp, known, settled) for name, stamp in stamps.items()}
        return known

    def _whole_from_records(self, source: Whole, stamp: Stamp) -> Digest | None:
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
        if isinstance(source, Whole) or (len(seen) == 1 and not isinstance(source, LocalModel)):
            return next(iter(seen.values())).digest
        return digest_of_all({name: file.digest for name, file in seen.items()})

    def _hash(self, files: dict[str, Path], stamps: dict[str, Stamp], known: Mapping[str, Digest]) -> dict[str, Digest]:
        from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 - not on the warm path

        stopped = threading.Event()
        done, total = 0, sum(int(stamp["size"]) for stamp in stamps.values())

        def one(name: str) -> Digest:
            nonlocal done
            found = known.get(name)
            if found is None and is_settled(stamps[name]):
                found = self._cache.get(files[name], stamps[name])
            if found is None:
                with _reading(files[name]):
                    found = hash_file(files[name], stopped.is_set)
                if self._remember:
                    self._cache.put(files[name], stamps[name], found)
            done += int(stamps[name]["size"])
            self._on_progress(done, total)
            return found

        with ThreadPoolExecutor(max_workers=4) as pool:
            try:
                return dict(zip(files, pool.map(one, files), strict=True))
            except BaseException:
                stopped.set()  # Ctrl-C too: nobody waits for gigabytes
                raise

    def path(self, source: Source) -> Path:
        """See ``Sources``."""
        assert isinstance(source, (LocalSource, StoredPrograms))
        return source.path

    def origin(self, source: Source) -> dict[str, Any]:
        """See ``Sources``. Stamps that are too young to be trusted later are left out."""
        if isinstance(source, StoredPrograms):
            return source.origin()
        assert isinstance(source, LocalSource)
        digest = self._combine(source)
        about = {"kind": source.kind, "ref": str(source.path), "revision": short(digest, 12)}
        if isinstance(source, Whole):
            seen = self._seen[source]
            stamp = _stamp_of_all({name: file.stamp for name, file in seen.items()})
            return {**about, "digest": digest, "stamp": stamp if all(file.settled for file in seen.values()) else None}
        files: dict[str, dict[str, Any]] = {
            name: {"digest": file.digest, "stamp": file.stamp if file.settled else None}
            for name, file in self._seen[source].items()
        }
        if source not in self._named:
            return {**about, "files": files}
        if CARD in files:
            files[CARD]["part"] = self._named[source][1]
        return {**about, "digest": digest, "files": files}

    def unrecorded_origin(self, source: Source) -> dict[str, Any] | None:
        """See ``Sources``."""
        return self.origin(source) if source in self._unrecorded else None

    def verify(self, source: Source) -> None:
        """See ``Sources``."""
        if isinstance(source, StoredPrograms):
            source.verify()
            return
        assert isinstance(source, LocalSource)
        files, seen = files_of(source), self._seen[source]
        changed: set[str] = set()
        for name in self._counting(source, files):
            now = _stamp(files[name]) if name in files else {}
            if name in seen and now == seen[name].stamp:
                continue
            if name == CARD and source in self._named and card_of(files) == self._named[source][1]:
                continue
            if name not in seen or {**now, "ctime_ns": seen[name].stamp["ctime_ns"]} != seen[name].stamp:
                raise SourceChanged(source.path, name)
            changed.add(name)  # a hard link was made to it, or it was replaced by a file of the same time
        if isinstance(source, Whole) and changed and source.hash(files) != self._combine(source):
            raise SourceChanged(source.path, min(changed))
        for name in sorted(changed) if not isinstance(source, Whole) else ():
            if hash_file(files[name]) != seen[name].digest:
                raise SourceChanged(source.path, name)

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
    with _reading(path):
        return source_stamp(path)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Raise ``UnreadableSource`` for what the system refuses while a file, or files in a directory, are read."""
    try:
        yield
    except OSError as error:
        raise UnreadableSource(error.filename or path, error.strerror or str(error)) from error
