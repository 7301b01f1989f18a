"""What ``verify`` has read: the digest of each file with the time and the stamp, so that a run can be resumed.

An SQLite table, which may be deleted at any time. An unusable one counts as empty, and nothing is kept in a store that
cannot be written.
"""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any

from llama_runner.core.digest import Digest
from llama_runner.core.immutable_values import Value

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from llama_runner.core.artifact_record import Stamp

_TABLES = """
PRAGMA synchronous = OFF;
CREATE TABLE IF NOT EXISTS files (path BLOB PRIMARY KEY, stamp TEXT, digest TEXT, at REAL);
CREATE TABLE IF NOT EXISTS rounds (began REAL);
"""


class Entry(Value):
    """One file that was read."""

    path: str
    """Below the root, with forward slashes."""
    stamp: Stamp
    """Of the file before it was read."""
    digest: Digest


class VerifyLog:
    """The table of one store. Nothing is written before ``begin``."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def last_began(self) -> float | None:
        """Return when the last run began that did not go on with an earlier one; None if there was none."""
        rows = self._query("SELECT max(began) FROM rounds")
        return rows[0][0] if rows and isinstance(rows[0][0], float) else None

    def begin(self, at: float) -> bool:
        """Write down that a run begins, or goes on with one that began then; return whether that was possible."""
        try:
            self._path.parent.mkdir(exist_ok=True)
            for _ in range(2):
                if self._write("INSERT INTO rounds VALUES (?)", [(at,)]):
                    return self._write("DELETE FROM rounds WHERE began <> ?", [(at,)])
        except OSError:
            pass
        return False

    def since(self, when: float, now: float) -> dict[str, tuple[str, Digest]]:
        """Return stamp and digest of each file that was read between two times, by path."""
        rows = self._query("SELECT path, stamp, digest FROM files WHERE at BETWEEN ? AND ?", when, now)
        return {os.fsdecode(path): (stamp, Digest(digest)) for path, stamp, digest in rows}

    def add(self, entries: Iterable[Entry], at: float) -> None:
        """Write down files that were read."""
        rows = [(os.fsencode(one.path), stamp_text(one.stamp), one.digest, at) for one in entries]
        self._write("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?)", rows)

    def forget(self, paths: Iterable[str]) -> None:
        """Forget files that are not as they should be."""
        self._write("DELETE FROM files WHERE path = ?", [(os.fsencode(path),) for path in paths])

    def _query(self, statement: str, *values: float) -> list[Any]:
        if not self._path.is_file():
            return []
        try:
            address = f"{self._path.absolute().as_uri()}?mode=ro"
            with closing(sqlite3.connect(address, timeout=5, uri=True)) as connection:
                return connection.execute(statement, values).fetchall()
        except sqlite3.Error:
            return []

    def _write(self, statement: str, rows: list[tuple[Any, ...]]) -> bool:
        try:
            with closing(sqlite3.connect(self._path, timeout=5)) as connection, connection:
                connection.executescript(_TABLES)
                connection.executemany(statement, rows)
        except sqlite3.OperationalError:  # it is locked, or cannot be written
            return False
        except sqlite3.DatabaseError:  # damaged: the next attempt makes a new one
            with suppress(OSError):
                self._path.unlink()
            return False
        return True


def stamp_text(stamp: Stamp) -> str:
    """Return a stamp as the table has it."""
    return json.dumps(stamp, sort_keys=True)
