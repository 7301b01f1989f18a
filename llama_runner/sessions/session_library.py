"""``Runner.sessions``: the sessions that were used with a root: list, show, remove, prune, export, import."""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from llama_runner.core.errors import StoreError, UsageError
from llama_runner.core.immutable_values import Value
from llama_runner.core.loopback import WITHOUT_KEY
from llama_runner.sessions.encryption import NotDecrypted, read_key
from llama_runner.sessions.history import SESSION, History, chain, newest_turn, sessions_with_history, turn_of
from llama_runner.sessions.session_name import LONGEST_ID, SessionName
from llama_runner.sessions.state_store import Entry, StateStore
from llama_runner.store import layout
from llama_runner.store.gc_files_in_use import known_files
from llama_runner.system.files import read_bounded, read_head

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from llama_runner.sessions.history import Turn

Json = dict[str, Any]

_LARGEST_IMPORT = 256 << 20
_SHORTEST_PREFIX = 6


class NoSuchSession(UsageError):
    """No session has this id, or several have it."""


class Session(Value):
    """One session: its states and its history."""

    session: str
    """``SessionName.digest``: 48 hex digits."""
    id: str | None
    """The id that the client gave; None where files are encrypted."""
    client: str
    directory: Path
    states: tuple[Entry, ...] = ()
    history: Path | None = None
    history_bytes: int = 0
    used: float = 0.0
    """Seconds since the epoch."""

    @property
    def bytes(self) -> int:
        """Everything that it takes on disk."""
        return self.history_bytes + sum(entry.record.bytes for entry in self.states)

    def to_json(self) -> Json:
        """Return the member of the document of ``sessions list --json``."""
        return {
            "session": self.session,
            "id": self.id,
            "client": self.client,
            "directory": str(self.directory),
            "bytes": self.bytes,
            "used": self.used,
            "history_bytes": self.history_bytes,
            "states": [
                {
                    "model": entry.record.model,
                    "key": entry.record.key,
                    "tokens": entry.record.tokens,
                    "bytes": entry.record.bytes,
                    "encrypted": entry.record.encrypted,
                    "made": entry.record.made,
                    "used": entry.used,
                }
                for entry in self.states
            ],
        }


class Pruned(Value):
    """What ``prune`` deleted."""

    removed: list[Json]
    """Session, model and bytes of each file."""
    bytes: int


class SessionLibrary:
    """The sessions of a root."""

    def __init__(self, private: Path, directory: Path | None = None, key: bytes | None = None) -> None:
        self._private, self._directory, self._key = private, directory, key

    def at(
        self, *, directory: str | os.PathLike[str] | None = None, encryption_key: str | os.PathLike[str] | None = None
    ) -> SessionLibrary:
        """Return only the sessions below a directory; ``encryption_key`` is a file with the key of histories."""
        return SessionLibrary(
            self._private,
            None if directory is None else layout.user_path(directory).absolute(),
            None if encryption_key is None else read_key(layout.user_path(encryption_key)),
        )

    def directories(self) -> list[Path]:
        """Return the directories with sessions."""
        if self._directory is not None:
            return [self._directory]
        return directories_of(self._private)

    def list(self) -> list[Session]:
        """Return the sessions, the one that was used last first."""
        found = [session for directory in self.directories() for session in self._below(directory)]
        return sorted(found, key=lambda each: -each.used)

    def _below(self, directory: Path) -> Iterator[Session]:
        found: dict[str, Session] = {}
        for entry in StateStore(directory).entries():
            record = entry.record
            before = found.get(record.session) or Session(record.session, record.id, record.client, directory)
            found[record.session] = before.replace(
                states=(*before.states, entry), used=max(before.used, entry.used), id=before.id or record.id
            )
        for path in sessions_with_history(directory):
            with suppress(OSError):
                status = path.stat()
                before = found.get(path.stem) or self._of_history(directory, path.stem)
                used = max(before.used, status.st_mtime)
                found[path.stem] = before.replace(history=path, history_bytes=status.st_size, used=used)
        yield from found.values()

    def _of_history(self, directory: Path, session: str) -> Session:
        about: Json = {}
        with suppress(OSError):
            about = History(directory, session, self._key).about()
        given = about.get("session")
        return Session(session, given if isinstance(given, str) else None, str(about.get("client", "")), directory)

    def find(self, name: str) -> Session:
        """Return the session with an id, or whose digest begins so. ``NoSuchSession``."""
        everything = self.list()
        found = [each for each in everything if name in (each.id, each.session)]
        if not found and len(name) >= _SHORTEST_PREFIX:
            found = [each for each in everything if each.session.startswith(name)]
        if not found:
            raise NoSuchSession(f"there is no session {name[:LONGEST_ID]!r}", hint="llama-runner sessions list")
        if len({each.session for each in found}) > 1:
            digests = ", ".join(each.session[:24] for each in found[:8])
            raise NoSuchSession(f"several sessions are called {name!r}", hint=f"name one of {digests}")
        return found[0]

    def show(self, name: str) -> Json:
        """Return a session with its turns; ``turns`` is None where they are encrypted and no key is given."""
        session = self.find(name)
        history = History(session.directory, session.session, self._key)
        turns = None
        if session.history is not None:
            _, found = _readable(history)
            readable = found or not _is_encrypted(session.history) or self._key is not None
            turns = [turn.to_json() for turn in found.values()] if readable else None
        return {**session.to_json(), "turns": turns if session.history is not None else []}

    def remove(self, name: str) -> Session:
        """Delete the states and the history of a session, and return what it was."""
        session = self.find(name)
        for each in [each for each in self.list() if each.session == session.session]:
            try:
                store = StateStore(each.directory)
                for entry in each.states:
                    store.remove(entry)
                History(each.directory, each.session).remove()
            except OSError as error:
                raise _write_error(error) from None
        return session

    def prune(self, *, max_size: int | None = None, unused: float | None = None, histories: bool = False) -> Pruned:
        """Delete states above ``max_size`` bytes of each directory or unused for ``unused`` seconds, and remains.

        ``histories``: histories that were not used for so long too.
        """
        gone: list[Json] = []
        for directory in self.directories():
            try:
                for entry in StateStore(directory).prune(max_size, unused=unused):
                    record = entry.record
                    gone.append({"session": record.session, "model": record.model, "bytes": record.bytes})
                for path in sessions_with_history(directory) if histories else ():
                    if unused is not None and time.time() - path.stat().st_mtime > unused:
                        size = History(directory, path.stem).remove()
                        gone.append({"session": path.stem, "model": None, "bytes": size})
            except OSError as error:
                raise _write_error(error) from None
        return Pruned(gone, sum(each["bytes"] for each in gone))

    def export(self, name: str) -> Json:
        """Return the history of a session as JSON. ``UsageError`` without one, or without the key."""
        session = self.find(name)
        if session.history is None:
            raise UsageError(
                f"session {name!r} has no history",
                hint="one is kept for X-Session-Mode: append, and for responses",
            )
        about, turns = _readable(History(session.directory, session.session, self._key))
        if not turns and _is_encrypted(session.history):
            hint = "pass --encryption-key FILE with the key that it was written with"
            raise UsageError(f"the history of session {name!r} is encrypted", hint=hint)
        return {
            "version": 1,
            "session": session.session,
            "id": about.get("session"),
            "client": about.get("client", ""),
            "newest": newest_turn(turns),
            "turns": [turn.to_json() for turn in turns.values()],
        }

    def import_(self, path: str | os.PathLike[str], *, as_id: str | None = None) -> Session:
        """Add a session that was exported; ``as_id``: as a session of clients without a key. ``UsageError``."""
        try:
            found = json.loads(read_bounded(os.fspath(path), _LARGEST_IMPORT))
        except OSError as error:
            raise UsageError(f"cannot read {path}: {error.strerror or error}") from None
        except (ValueError, RecursionError):
            found = None
        return self.add(found, as_id=as_id, what=str(path))

    def add(self, found: object, *, as_id: str | None = None, what: str = "this") -> Session:
        """Add an exported session, as ``import_``. ``what`` names it in errors."""
        given = found.get("turns") if isinstance(found, dict) and found.get("version") == 1 else None
        turns = [turn_of(each) for each in given] if isinstance(given, list) else []
        if not isinstance(found, dict) or not turns or None in turns:
            raise UsageError(f"{what} is no exported session", hint="llama-runner sessions export makes one")
        name = None if as_id is None else SessionName(WITHOUT_KEY, as_id, WITHOUT_KEY)
        session = str(found.get("session", "")) if name is None else name.digest
        if not SESSION.fullmatch(session) or (as_id is not None and not 0 < len(as_id) <= LONGEST_ID):
            raise UsageError(f"{what} names no session", hint="pass --as ID")
        kept = [turn for turn in turns if turn is not None]
        by_id = {turn.id: turn for turn in kept}
        try:
            for turn in kept:
                chain(by_id, turn.id)
        except KeyError as error:
            raise UsageError(f"{what} lacks the turn {error.args[0]}, which another one follows") from None
        client = str(found.get("client", "")) if name is None else name.client
        about = {"session": as_id if as_id is not None else found.get("id"), "client": client}
        directory = self.directories()[0]
        try:
            History(directory, session, self._key).write(about, kept)
        except OSError as error:
            raise _write_error(error) from None
        return self.find(session)


def _readable(history: History) -> tuple[Json, dict[str, Turn]]:
    """Return a history as ``read``; nothing of one that cannot be decrypted."""
    try:
        return history.read()
    except NotDecrypted:
        return {}, {}


def directories_of(private: Path) -> list[Path]:
    """Return the directories with sessions that were used with a root; the first is the default."""
    try:
        others = known_files(layout.session_directories(private))
    except StoreError:
        others = ()
    default = layout.sessions(private)
    return [default, *(path for path in others if path != default)]


def bytes_of_sessions(private: Path) -> tuple[int, int]:
    """Return how many sessions a root has, and their bytes."""
    found = SessionLibrary(private).list()
    return len(found), sum(each.bytes for each in found)


def _is_encrypted(path: Path) -> bool:
    return read_head(path, 2) == b"e:"


def _write_error(error: OSError) -> StoreError:
    return StoreError(f"cannot change the sessions: {error.strerror or error}: {error.filename}")
