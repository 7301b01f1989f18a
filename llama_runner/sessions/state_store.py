"""State files: the KV cache of a conversation as llama-server saved it, with a record beside it.

    DIR/states/MODEL/SESSION.KEY.json         the record: key, digest, sizes, tokens; its time is the last use
    DIR/states/MODEL/SESSION.KEY.DIGEST.kv    the bytes

Bytes and record are written under temporary names, hashed and synced, then the bytes are renamed and after them the
record. A file without a record is no state. Files have the mode 0600, directories 0700.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any

from llama_runner.core.immutable_values import Value
from llama_runner.sessions.encryption import NotDecrypted, decrypt, encrypt
from llama_runner.sessions.unfinished_files import is_left, new_maker
from llama_runner.store.digest_cache import hash_file
from llama_runner.store.layout import safe_name
from llama_runner.system.files import new_file, open_regular, read_json, sync_directory, sync_file
from llama_runner.system.platforms import rename_over

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from llama_runner.sessions.session_name import SessionName

VERSION = 1
_STATES = "states"
_LARGEST_RECORD = 1 << 16
_ABANDONED_S = 3600.0
_OURS = (".json", ".kv", ".part", ".tmp")
_CLOCK_S = 60.0
"""How far the clocks of machines with one directory may differ."""
_FOREVER_S = 1e11
_FILE = re.compile(r"\.[0-9a-f]{16}\.kv")
"""The name of a state file behind that of its record."""
_DIGITS = 16
"""Hex digits of a key and a digest in the name of a file."""


class UnusableState(Exception):
    """A state is there and is not restored: damaged, truncated, of another key, encrypted otherwise."""


class StateRecord(Value):
    """The record of a state."""

    key: str
    digest: str
    """SHA-256 of the file, as hex digits."""
    file: str
    """The name of the file beside the record."""
    bytes: int
    """Of the file."""
    tokens: int
    model: str
    """The declared model."""
    session: str
    """``SessionName.digest``."""
    content: str = ""
    """``StateStore.content_digest`` of what was saved; nothing in a record of an older release."""
    id: str | None = None
    """The id that the client gave; None where files are encrypted."""
    client: str = ""
    """The name of the API key."""
    encrypted: bool = False
    made: float = 0.0
    """Seconds since the epoch."""


class Entry(Value):
    """A record on disk."""

    path: Path
    record: StateRecord
    used: float
    """When it was saved or restored last, in seconds since the epoch."""


class StateStore:
    """The states below a directory. Methods block: the gateway calls them in threads."""

    def __init__(self, directory: Path, key: bytes | None = None) -> None:
        """``key`` encrypts; None: files are not encrypted."""
        self.directory, self._key = directory, key

    @property
    def encrypts(self) -> bool:
        """Whether files are encrypted."""
        return self._key is not None

    @property
    def key(self) -> bytes | None:
        """The key of the configuration."""
        return self._key

    def prepare(self) -> None:
        """Make the directory, for its owner's eyes only. Raises ``OSError``."""
        private_directory(self.directory)

    def content_digest(self, prompt: object) -> str:
        """Return the digest of the prompt that a state is of. With a key nobody else can compute it."""
        text = json.dumps(prompt, separators=(",", ":")).encode()
        return hashlib.blake2b(text, digest_size=32, key=self._key or b"", person=b"prompt").hexdigest()

    def keeps(self, name: SessionName, key: str, model: str, content: str) -> bool:
        """Return whether the state of this prompt is there already; it counts as used then."""
        path = self._record_path(name, key, model)
        record = read_record(path)
        if record is None or (record.key, record.session, record.content) != (key, name.digest, content):
            return False
        try:
            is_whole = path.with_name(record.file).stat().st_size == record.bytes
            os.utime(path)
        except OSError:
            return False
        return is_whole and record.encrypted == self.encrypts

    def put(self, name: SessionName, key: str, saved: Path, model: str, tokens: int, content: str = "") -> StateRecord:
        """Take over a file that llama-server saved, which is gone afterwards. Raises ``OSError``."""
        directory = private_directory(self.directory / _STATES / safe_name(model))
        stem = f"{name.digest}.{_short(key)}"
        maker = new_maker()
        part, unfinished = directory / f".{stem}.{maker}.part", directory / f".{stem}.{maker}.tmp"
        path, moved = directory / f"{stem}.json", None
        before = read_record(path)
        try:
            if self._key is None:
                saved.replace(part)
            else:
                with open_regular(saved) as plain, new_file(part) as target:
                    encrypt(plain, target, self._key, purpose_of(name.digest, key))
                saved.unlink()
            part.chmod(0o600)
            digest = hash_file(part).removeprefix("sha256:")
            sync_file(part)
            record = StateRecord(
                key=key,
                digest=digest,
                file=f"{stem}.{digest[:_DIGITS]}.kv",
                bytes=part.stat().st_size,
                tokens=tokens,
                content=content,
                model=model,
                session=name.digest,
                id=name.id if self._key is None else None,
                client=name.client,
                encrypted=self._key is not None,
                made=time.time(),
            )
            with new_file(unfinished) as file:
                file.write(json.dumps({"version": VERSION, **record.__dict__}).encode())
            sync_file(unfinished)
            rename_over(part, directory / record.file)
            if before is None or before.file != record.file:
                moved = directory / record.file
            rename_over(unfinished, path)
        except BaseException:
            for each in (part, unfinished, moved):
                with suppress(OSError):
                    if each is not None:
                        each.unlink()
            raise
        try:
            sync_directory(directory)  # before the older state is gone: a power cut leaves one of them
        finally:
            if before is not None and before.file != record.file:  # no other: another gateway may be about to name it
                with suppress(OSError):
                    path.with_name(before.file).unlink()
        return record

    def has(self, name: SessionName, key: str, model: str) -> bool:
        """Return whether there may be a state, without reading it."""
        return self._record_path(name, key, model).exists()

    def take(self, name: SessionName, key: str, target: Path, model: str) -> StateRecord | None:
        """Put the verified bytes of a state at ``target``, for llama-server. None without a state.

        Raises ``UnusableState``, and leaves nothing at ``target`` then.
        """
        path = self._record_path(name, key, model)
        if not path.exists():
            return None
        record = read_record(path)
        if record is None:
            raise UnusableState("its record is damaged")
        if record.key != key or record.session != name.digest:
            raise UnusableState("it belongs to another session, model or build")
        if record.encrypted != (self._key is not None):
            raise UnusableState("it is encrypted" if record.encrypted else "it is not encrypted")
        file = path.with_name(record.file)
        try:
            if file.is_symlink() or file.stat().st_size != record.bytes:
                raise UnusableState("its file has another size")
            self._copy(record, file, target)
            os.utime(path)
        except (OSError, NotDecrypted, UnusableState) as error:
            with suppress(OSError):
                target.unlink()
            reason = error.strerror if isinstance(error, OSError) else None
            raise UnusableState(reason or str(error)) from None
        return record

    def _copy(self, record: StateRecord, file: Path, target: Path) -> None:
        if self._key is None:
            try:
                os.link(file, target)
            except OSError:  # the file system has no links
                with open_regular(file) as source, new_file(target) as copy:
                    while block := source.read(1 << 20):
                        copy.write(block)
            if hash_file(target).removeprefix("sha256:") != record.digest:
                raise UnusableState("its bytes have another digest")
            return
        sha = hashlib.sha256()
        with open_regular(file) as source, new_file(target) as plain:
            for chunk in decrypt(_Hashed(source, sha), self._key, purpose_of(record.session, record.key)):  # type: ignore[arg-type]
                plain.write(chunk)
        if sha.hexdigest() != record.digest:
            raise UnusableState("its bytes have another digest")

    def _record_path(self, name: SessionName, key: str, model: str) -> Path:
        return self.directory / _STATES / safe_name(model) / f"{name.digest}.{_short(key)}.json"

    def entries(self, model: str | None = None) -> Iterator[Entry]:
        """Yield the records below the directory that can be read, of one model or of all."""
        for directory in self._directories(model):
            for path in sorted(directory.glob("*.json")):
                record = read_record(path)
                with suppress(OSError):
                    if record is not None:
                        yield Entry(path, record, path.stat().st_mtime)

    def _directories(self, model: str | None) -> Iterable[Path]:
        if model is not None:
            return [self.directory / _STATES / safe_name(model)]
        return (each for each in sorted((self.directory / _STATES).glob("*")) if each.is_dir())

    def remove(self, entry: Entry) -> int:
        """Delete a state; return the bytes that were freed."""
        for path in (entry.path, entry.path.with_name(entry.record.file)):
            with suppress(FileNotFoundError):
                path.unlink()
        return entry.record.bytes

    def prune(self, quota: int | None = None, unused: float | None = None, model: str | None = None) -> list[Entry]:
        """Delete the least recently used states above ``quota`` bytes, those unused for ``unused`` seconds, remains.

        ``model``: only those of one model. Returns the states that were deleted. Raises ``OSError`` for one that cannot
        be deleted, after all others.
        """
        now = time.time()
        # a use in the future was before the clock was put back
        found = sorted(self.entries(model), key=lambda entry: -entry.used if entry.used <= now + _CLOCK_S else 0.0)
        gone, total, failed = [], 0, None
        for entry in found:
            total += entry.record.bytes
            too_old = unused is not None and now - entry.used > unused
            if too_old or (quota is not None and total > quota):
                total -= entry.record.bytes
                try:
                    self.remove(entry)
                except OSError as error:
                    failed = error
                else:
                    gone.append(entry)
        self._remove_remains(model, {name for each in found for name in (each.path.name, each.record.file)})
        if failed is not None:
            raise failed
        return gone

    def keep_quota(self, quota: int, model: str) -> list[Entry]:
        """Delete the least recently used states of a model if they have more than ``quota`` bytes, as ``prune``.

        A twentieth more is deleted, as all records are read for it; within the quota none is.
        """
        total = 0
        for directory in self._directories(model):
            with suppress(FileNotFoundError), os.scandir(directory) as files:
                total += sum(file.stat(follow_symlinks=False).st_size for file in files if file.name.endswith(".kv"))
        if total <= quota:
            return []
        unnamed = total - sum(entry.record.bytes for entry in self.entries(model))
        return self.prune(quota - quota // 20 - max(0, unnamed), model=model)

    def remove_unfinished(self, model: str) -> None:
        """Delete what processes left that were killed while they saved states of a model. Raises ``OSError``."""
        for directory in self._directories(model):
            for path in directory.glob(".*"):
                stem, _, maker = path.stem[1:].rpartition(".")
                with suppress(OSError):
                    if path.suffix in (".part", ".tmp") and is_left(path, maker):
                        if path.suffix == ".tmp":
                            self._remove_unnamed(directory / f"{stem}.json", _record_in(path, stem))
                        path.unlink()
            files: dict[str, list[Path]] = {}
            for path in directory.glob("*.kv"):
                files.setdefault(path.stem.rpartition(".")[0], []).append(path)
            for stem, several in files.items():
                record = read_record(directory / f"{stem}.json") if len(several) > 1 else None
                for path in several:  # a record was renamed, and the file that it named before was not deleted
                    with suppress(OSError):
                        if record is not None and record.file != path.name and path.stat().st_mtime < record.made:
                            path.unlink()

    def _remove_unnamed(self, path: Path, unfinished: StateRecord | None) -> None:
        """Delete the file that a record names which was never renamed to ``path``."""
        named = read_record(path)
        if unfinished is not None and (named is None or named.file != unfinished.file):
            path.with_name(unfinished.file).unlink(missing_ok=True)

    def _remove_remains(self, model: str | None, named: set[str]) -> None:
        """Delete files that no record names, once it is certain that nobody is writing their record."""
        for directory in self._directories(model):
            for path in directory.glob("*"):
                with suppress(OSError):
                    if (
                        path.suffix in _OURS
                        and path.name not in named
                        and abs(time.time() - path.lstat().st_mtime) > _ABANDONED_S
                    ):
                        path.unlink()


class _Hashed:
    """A file whose bytes are hashed as they are read."""

    def __init__(self, file: IO[bytes], sha: Any) -> None:  # noqa: ANN401 - of hashlib
        self._file, self._sha = file, sha

    def read(self, size: int) -> bytes:
        found = self._file.read(size)
        self._sha.update(found)
        return found


def read_record(path: Path) -> StateRecord | None:
    """Return a record; None for what is none: damaged, of another version, with a file elsewhere."""
    return _record_in(path, path.stem)


def _record_in(path: Path, stem: str) -> StateRecord | None:
    """Return the record in a file. ``stem``: how the name of its state file begins."""
    try:
        found = read_json(path, _LARGEST_RECORD)
    except (OSError, ValueError):
        return None
    if not isinstance(found, dict) or found.pop("version", None) != VERSION:
        return None
    kinds = {"key": str, "digest": str, "file": str, "bytes": int, "tokens": int, "model": str, "session": str}
    if any(not isinstance(found.get(name), kind) for name, kind in kinds.items()):
        return None
    if not isinstance(found.get("encrypted", False), bool) or not _is_count(found["bytes"], found["tokens"]):
        return None
    if not isinstance(made := found.get("made", 0.0), (int, float)) or not 0 <= made < _FOREVER_S:
        return None
    if any(not isinstance(found.get(name) or "", str) for name in ("id", "client", "content")):
        return None
    if not _FILE.fullmatch(found["file"].removeprefix(stem)):
        return None
    return StateRecord(**{name: value for name, value in found.items() if name in StateRecord.fields})


def _is_count(*values: object) -> bool:
    return all(isinstance(each, int) and not isinstance(each, bool) and 0 <= each < 1 << 62 for each in values)


def purpose_of(session: str, key: str) -> str:
    """Return what an encrypted state is for: one that was renamed to another session does not decrypt."""
    return f"state {session} {key}"


def private_directory(path: Path) -> Path:
    """Make a directory with its parents, mode 0700, and return it. Raises ``OSError``."""
    missing = []
    each = path
    while not each.exists():
        missing.append(each)
        each = each.parent
    for each in reversed(missing):
        each.mkdir(mode=0o700, exist_ok=True)
    return path


def _short(key: str) -> str:
    return key.partition(":")[2][:_DIGITS]
