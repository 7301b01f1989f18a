"""Reads what the store has, with all cores, and compares it with records, pins and headers. Stamps are not trusted."""

from __future__ import annotations

import queue
import threading
import time
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any

from llama_runner.core.digest import scheme_of
from llama_runner.core.errors import Interrupted, NoBlake3
from llama_runner.core.events import Noticed, Sink, StepProgress, Warned
from llama_runner.core.immutable_values import Value, field
from llama_runner.library.verify_log import Entry, VerifyLog, stamp_text
from llama_runner.library.verify_rules import FileContent, Problem, problems_of, published_digests, recorded_scheme
from llama_runner.sources.hub import hash_while_downloading as hub_verify
from llama_runner.sources.hub.pins import RemoteFile, open_pins
from llama_runner.store import layout
from llama_runner.store.digest_cache import file_stamp, hash_file, tree_files
from llama_runner.system import hardware
from llama_runner.system.files import open_regular
from llama_runner.system.platforms import forget_cached

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Mapping
    from pathlib import Path

    from llama_runner.core.artifact_record import Stamp
    from llama_runner.core.digest import Digest, Scheme
    from llama_runner.sources.hub.pins import Pin
    from llama_runner.store.artifacts import Store
    from llama_runner.store.contents_of_root import Artifact

_TICK_S = 0.1
_WRITE_EVERY_S = 1.0
_ATTEMPTS = 3


class Verification(Value):
    """What a run of ``verify`` found."""

    artifacts: int
    """How many were looked at."""
    bytes: int
    """Read in this run."""
    skipped: int
    """Files that were read by an earlier run that this one goes on with."""
    seconds: float
    problems: tuple[Problem, ...] = ()
    unverified: Mapping[str, str] = field(default_factory=dict)
    """Records that another version of this program has written, with the reason, by path."""

    @property
    def wrong(self) -> list[Problem]:
        """The problems that are not repaired."""
        return [each for each in self.problems if not each.repaired]

    def to_json(self) -> dict[str, Any]:
        """Return the document of ``verify --json``."""
        return {
            "ok": not self.wrong,
            "artifacts": self.artifacts,
            "bytes": self.bytes,
            "skipped": self.skipped,
            "seconds": round(self.seconds, 3),
            "problems": [each.to_json() for each in self.problems],
            "unverified": dict(self.unverified),
        }


class _Part(Value, eq=False):
    """One file to read."""

    subject: _Subject
    name: str
    path: Path
    place: str
    stamp: Stamp
    published: str
    """What the Hub has published: ``sha256:…``, ``blob:…``, or nothing."""
    scheme: Scheme
    """How the file was hashed for the record."""


class _Subject:
    """An artifact, and what was found of it so far."""

    def __init__(self, artifact: Artifact) -> None:
        self.artifact = artifact
        self.files: dict[str, FileContent] = {}
        self.links: dict[str, str] = {}
        self.parts: list[_Part] = []
        self.pending = 0
        """How many of the parts are still to be read."""


class Verifier:
    """One run over some artifacts of a store. Reads only, but for the log that lets another run go on with it."""

    def __init__(self, store: Store, sink: Sink) -> None:
        self._store, self._sink = store, sink
        self._log = VerifyLog(layout.verified(store.private))
        self._pins: dict[str, dict[str, Pin]] = {}
        self._waiting: list[_Part] = []
        self._read: queue.SimpleQueue[tuple[_Part, FileContent] | None] = queue.SimpleQueue()
        self._stopped = threading.Event()
        self._counting = threading.Lock()
        self._done = self._total = self._skipped = 0
        self._unlogged: list[Entry] = []
        self._is_logged = False

    def run(self, artifacts: Iterable[Artifact], since: float | str | None) -> Verification:
        """Verify artifacts whose bytes are here. With ``since`` files that were read after that are not read again.

        ``since`` is a time in seconds since the epoch, or ``last``: when the last run began. Raises ``Interrupted``;
        what was read is written down then too.
        """
        began, now = time.monotonic(), time.time()
        start = self._log.last_began() if since == "last" else since
        seen = {} if start is None else self._log.since(float(start), now)
        subjects = [self._subject(each) for each in artifacts]
        self._is_logged = bool(subjects) and self._log.begin(now if start is None else min(now, float(start)))
        if subjects and not self._is_logged:
            self._sink(Noticed("verify", "the store cannot be written: --since will not know what was read"))
        try:
            problems = self._verify(subjects, seen)
        except KeyboardInterrupt:
            raise Interrupted from None
        return Verification(len(subjects), self._done, self._skipped, time.monotonic() - began, tuple(problems))

    def _verify(self, subjects: list[_Subject], seen: Mapping[str, tuple[str, Digest]]) -> list[Problem]:
        """Read and judge; what was replaced while it was read is read again."""
        problems: list[Problem] = []
        for attempt in range(_ATTEMPTS):
            again = []
            with closing(self._judged(subjects, seen)) as judged:
                for subject, found in judged:
                    if found and attempt < _ATTEMPTS - 1 and (now := self._changed_since(subject)) is not None:
                        again += now
                    elif found:
                        self._tell(subject, found)
                        problems += found
            if not again:
                break
            subjects, seen = again, {}
        return sorted(problems, key=lambda each: each.path)

    def _tell(self, subject: _Subject, found: list[Problem]) -> None:
        for problem in found:
            self._sink(Warned("damaged", f"{problem.path}: {problem.reason}"))
        self._write_log()
        if self._is_logged:
            self._log.forget(part.place for part in subject.parts)

    def _subject(self, artifact: Artifact) -> _Subject:
        """List the files of an artifact."""
        subject, path = _Subject(artifact), self._store.root / artifact.path
        published = published_digests(artifact)
        names = [(artifact.name, path)]
        try:
            if artifact.is_tree:
                names = list(tree_files(path))
        except OSError as error:
            names, subject.files[""] = [], FileContent(path, None, error=error.strerror or str(error))
        for name, file in names:
            place = f"{artifact.path}/{name}" if artifact.is_tree else artifact.path
            try:
                if artifact.is_tree and file.is_symlink():
                    subject.links[name] = str(file.readlink())
                    continue
                stamp = file_stamp(file)
            except FileNotFoundError:
                continue  # deleted since it was listed
            except OSError as error:
                subject.files[name] = FileContent(file, None, error=error.strerror or str(error))
                continue
            scheme = recorded_scheme(artifact, name, int(stamp["size"]))
            subject.parts.append(_Part(subject, name, file, place, stamp, published.get(name, ""), scheme))
        return subject

    def _judged(
        self, subjects: list[_Subject], seen: Mapping[str, tuple[str, Digest]]
    ) -> Generator[tuple[_Subject, list[Problem]], None, None]:
        """Read the files of artifacts with all cores, the largest first, and yield what is wrong with each artifact."""
        parts = []
        for part in (part for subject in subjects for part in subject.parts):
            earlier = seen.get(part.place)
            if earlier is not None and earlier[0] == stamp_text(part.stamp) and _is_comparable(part, earlier[1]):
                part.subject.files[part.name] = _content(part, earlier[1], was_read=False)
                self._skipped += 1
            else:
                parts.append(part)
                part.subject.pending += 1
                self._total += int(part.stamp["size"])
        yield from ((subject, self._problems(subject)) for subject in subjects if not subject.pending)
        self._waiting = sorted(parts, key=lambda part: int(part.stamp["size"]))  # taken from its end
        count = min(hardware.physical_cores(), len(parts))
        threads = [threading.Thread(target=self._work, name=f"verify {number}", daemon=True) for number in range(count)]
        try:
            for thread in threads:
                thread.start()
            yield from self._collected(count)
        finally:
            self._stopped.set()
            for thread in threads:
                if thread.ident is not None:
                    thread.join()
            self._stopped.clear()
            self._write_log()

    def _collected(self, running: int) -> Iterator[tuple[_Subject, list[Problem]]]:
        told = written = time.monotonic()
        while running:
            with suppress(queue.Empty):
                if (found := self._read.get(timeout=_TICK_S)) is None:
                    running -= 1
                else:
                    part, content = found
                    part.subject.files[part.name] = content
                    if content.digest is not None:
                        self._unlogged.append(Entry(part.place, part.stamp, content.digest))
                    part.subject.pending -= 1
                    if not part.subject.pending:
                        yield part.subject, self._problems(part.subject)
            now = time.monotonic()
            if now - told >= _TICK_S:
                told = now
                self._sink(StepProgress("verify", self._done, max(self._total, self._done), "bytes"))
            if now - written >= _WRITE_EVERY_S:
                self._write_log()
                written = now
        self._sink(StepProgress("verify", self._done, self._done, "bytes"))

    def _work(self) -> None:
        """Read files until none is left. Runs in several threads."""
        while not self._stopped.is_set():
            try:
                part = self._waiting.pop()
            except IndexError:
                break
            with suppress(Interrupted):
                self._read.put((part, self._read_file(part)))
        self._read.put(None)

    def _read_file(self, part: _Part) -> FileContent:
        before = 0

        def progress(done: int) -> None:
            nonlocal before
            with self._counting:
                self._done += done - before
            before = done

        try:
            if part.published.startswith("blob:"):
                file = RemoteFile(part.name, int(part.stamp["size"]), None, part.published)
                with open_regular(part.path) as opened:
                    forget_cached(opened.fileno())
                hashes = hub_verify.hash_file(part.path, file, self._stopped.is_set)
                progress(file.size)
                return _content(part, hashes.sha256).replace(blob=hashes.blob)
            digest = hash_file(part.path, self._stopped.is_set, progress, scheme=part.scheme, from_disk=True)
            return _content(part, digest)
        except NoBlake3 as error:
            return FileContent(part.path, None, error=str(error))
        except OSError as error:
            return FileContent(part.path, None, error=error.strerror or str(error))

    def _problems(self, subject: _Subject) -> list[Problem]:
        artifact = subject.artifact
        if not artifact.is_tree and artifact.name not in subject.files:
            return []  # deleted since the store was listed
        return list(problems_of(artifact, subject.files, subject.links, self._pin))

    def _pin(self, repo: str, commit: str) -> Pin | None:
        if repo not in self._pins:
            store = open_pins(self._store.private, self._sink)
            self._pins[repo] = store.read(repo).pins
        return self._pins[repo].get(commit)

    def _changed_since(self, subject: _Subject) -> list[_Subject] | None:
        """Return what is there now of an artifact that was replaced, changed or deleted since its files were listed."""
        artifact = subject.artifact
        record = self._store.records(self._store.root / artifact.directory).get(artifact.name)
        path = self._store.path(artifact.place)
        if record is None or not path.exists() or (artifact.is_tree and not any(tree_files(path))):
            return []
        now = self._subject(artifact.with_record(record))
        same_files = [(part.place, part.stamp) for part in now.parts] == [
            (part.place, part.stamp) for part in subject.parts
        ]
        return None if record == artifact.record and same_files else [now]

    def _write_log(self) -> None:
        entries, self._unlogged = self._unlogged, []
        if entries and self._is_logged:
            self._log.add(entries, time.time())


def _is_comparable(part: _Part, digest: Digest) -> bool:
    """Whether a digest can be compared with those of the record and of the Hub."""
    return scheme_of(digest) == part.scheme and not part.published.startswith("blob:")


def _content(part: _Part, digest: Digest, *, was_read: bool = True) -> FileContent:
    return FileContent(part.path, digest, is_executable=bool(part.stamp["mode"] & 0o100), was_read=was_read)
