"""Reads, publishes and evicts artifacts and their records.

The order of publishing is: staged file, fsync, rename into place, record. A crash leaves either nothing new or a
payload without a matching record, which counts as absent. The old artifact stays until the new one is complete.
"""

from __future__ import annotations

import glob
from contextlib import suppress
from typing import TYPE_CHECKING

from llama_runner.core.artifact_record import (
    STATE_FILE,
    TREE,
    InvalidRecord,
    Record,
    StateFile,
    format_state,
    parse_state,
)
from llama_runner.core.digest import short_hash
from llama_runner.core.errors import NoBlake3
from llama_runner.core.events import Event, Sink, Warned
from llama_runner.store import layout, staging
from llama_runner.store.digest_cache import hash_like, payload_stamp
from llama_runner.store.errors import as_store_error
from llama_runner.system.files import freed_in_background, read_bounded, sync_all, sync_directory, write_atomically
from llama_runner.system.platforms import rename_over

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    from llama_runner.core.digest import Digest, Key
    from llama_runner.core.plan import PayloadState
    from llama_runner.core.step import Place

_ATTEMPTS = 10
LARGEST_STATE = 64 << 20
"""Bytes of a state file at most."""


class Store:
    """The artifacts and records below one root. Methods that read do not write."""

    def __init__(self, root: Path, sink: Sink) -> None:
        self.root = root
        self.private = root / layout.PRIVATE
        self._sink = sink

    def tell(self, event: Event) -> None:
        """Send an event to the sink of the store."""
        self._sink(event)

    def path(self, place: Place) -> Path:
        """Return the absolute path of a place."""
        directory = self.root / place.directory
        return directory / place.name if place.name else directory

    def work(self, kind: str, key: Key) -> Path:
        """Return the directory where a step keeps unfinished work for a key, to resume it after a failure."""
        return layout.work(self.private) / f"{kind}-{short_hash(key, 12)}"

    def records(self, directory: Path) -> Mapping[str, Record]:
        """Return the records of one directory; none, with a warning, if its state file is damaged."""
        return self._state(directory).records

    def record(self, place: Place) -> Record | None:
        """Return the record of a place; None if there is none, with a warning if this version cannot read it."""
        state, name = self._state(self.root / place.directory), place.name or TREE
        if problem := state.problems.get(name):
            path = self.root / place.directory / STATE_FILE
            self._sink(Warned("damaged_state", f"the record of {name} in {path} counts as absent: {problem}"))
        return state.records.get(name)

    def is_unreadable(self, place: Place) -> bool:
        """Whether this version cannot read the record of a place, as a newer one wrote it or it is damaged."""
        return (place.name or TREE) in self._state(self.root / place.directory).problems

    def _state(self, directory: Path) -> StateFile:
        path = directory / STATE_FILE
        try:
            return parse_state(read_bounded(path, LARGEST_STATE))
        except (FileNotFoundError, NotADirectoryError):
            return StateFile({})
        except (OSError, InvalidRecord, UnicodeDecodeError) as error:
            self._sink(Warned("damaged_state", f"{path} counts as absent: {error}"))
            return StateFile({})

    def payload_state(self, place: Place, record: Record) -> PayloadState:
        """Compare the bytes at a place with its record. Bytes with a new stamp are hashed."""
        path = self.path(place)
        try:
            if place.is_tree and {child.name for child in path.iterdir()} <= {STATE_FILE}:
                return "absent"
            if payload_stamp(path) == record.stamp:
                return "present"
            return "restamp" if hash_like(path, record.digest) == record.digest else "changed"
        except NoBlake3 as error:
            self._sink(Warned("no_blake3", f"{path} counts as changed: {error}; {error.hint}"))
            return "changed"
        except OSError:
            return "absent"

    def earlier_record(self, place: Place) -> Record | None:
        """Return the newest record of the same file made from another state of the same source; None without one.

        The directory names of two states differ only after the last ``__``.
        """
        above, _, directory = place.directory.rpartition("/")
        source, _, state = directory.rpartition("__")
        if not source or not state:
            return None
        found = [
            record
            for path, records in self.directories(above, f"{glob.escape(source)}__*")
            if path.name.rpartition("__")[0] == source and path.name != directory
            for record in records.values()
            if record is records.get(place.name or TREE)
        ]
        return max(found, key=lambda record: str(record.made.get("at", "")), default=None)

    def directories(self, parent: str, pattern: str) -> Iterator[tuple[Path, Mapping[str, Record]]]:
        """Yield the directories below ``parent`` whose names match ``pattern``, with their records."""
        for state in sorted(self.root.glob(f"{parent}/{pattern}/{STATE_FILE}")):
            if not state.parent.parent.name.startswith(staging.PREFIX):
                yield state.parent, self.records(state.parent)

    def find_downloads(self, digest: Digest, pattern: str) -> Iterator[Path]:
        """Yield downloaded files with this recorded digest in directories whose names match ``pattern``."""
        for parent, below in ((f"{layout.MODELS}/*", pattern), (f"{layout.MODELS}/*/{pattern}", "*")):
            for directory, records in self.directories(parent, below):
                for name, record in records.items():
                    files = record.facts.get("files")
                    for file, found in files.items() if isinstance(files, dict) else ():
                        path = directory / file if name == TREE else directory / name
                        if found == digest and path.is_file():
                            yield path

    def has_leftovers(self) -> bool:
        """Whether a killed or running process has a staging directory."""
        try:
            return any(layout.staging(self.private).iterdir())
        except OSError:
            return False

    def publish(self, place: Place, staged: Path, record: Record) -> Record:
        """Move staged bytes into their place and write the record; return the record with its stamp.

        ``staged`` is a file or a directory below ``staging.open_directory``; ``record.stamp`` is ignored.
        """
        import shutil  # noqa: PLC0415 - only to write

        sync_all(staged)
        record = record.replace(stamp=payload_stamp(staged))
        final = self.path(place)
        if place.is_tree:
            write_atomically(staged / STATE_FILE, format_state({TREE: record}), durable=True)
            with self._state_lock(final):
                aside = staged.with_name("replaced")
                if final.exists():
                    rename_over(final, aside)
                _rename_into(staged, final)
            sync_directory(final.parent)
            shutil.rmtree(aside, ignore_errors=True)
        else:
            with freed_in_background(final):
                _rename_into(staged, final)
                sync_directory(final.parent)
                self.write_record(place, record)
        return record

    def add_record(self, place: Place, record: Record) -> None:
        """Write the record of an artifact whose bytes are not here. Raises ``OSError``."""
        (self.root / place.directory).mkdir(parents=True, exist_ok=True)
        self.write_record(place, record)

    def update(self, place: Place, record: Record) -> None:
        """Replace the record of unchanged bytes; does nothing in a read-only store."""
        with suppress(OSError):
            self.write_record(place, record)

    def adopt(self, place: Place, record: Record) -> None:
        """Write the record of an artifact without its bytes, unless bytes are here or the store is read-only."""
        with suppress(OSError):
            path = self.path(place)
            if path.exists() and not (place.is_tree and {child.name for child in path.iterdir()} <= {STATE_FILE}):
                return
            self.add_record(place, record)

    def is_evictable(self, place: Place) -> bool:
        """Whether the bytes exist and the user has not asked to keep them."""
        record = self.record(place)
        return record is not None and record.made.get("kept") is False and self.path(place).exists()

    def evict(self, place: Place) -> int:
        """Delete the bytes of an artifact and keep its record; return the number of bytes freed."""
        path = self.path(place)
        with suppress(OSError):  # deleted already, or no permission
            size = path.stat().st_size
            with freed_in_background(path):
                path.unlink()
            return size
        return 0

    def copy_out(self, files: Mapping[Path, Path]) -> None:
        """Copy files of an artifact to paths outside the store, each atomically.

        The first file appears after all others.
        """
        import shutil  # noqa: PLC0415 - only to write
        from contextlib import ExitStack  # noqa: PLC0415

        from llama_runner.system.atomic_output import new_file  # noqa: PLC0415

        try:
            with ExitStack() as stack:  # left in the reverse order
                for path, target in files.items():
                    shutil.copyfile(path, stack.enter_context(new_file(target)))
        except OSError as error:
            raise as_store_error(error, next(iter(files.values())).parent) from error

    def forget(self, place: Place) -> None:
        """Delete the record of an artifact, and its directory if nothing is left in it; raises ``OSError``."""
        directory = self.root / place.directory
        with self._state_lock(directory):
            state = self._state(directory)
            if (place.name or TREE) in state.records:
                state = state.without(place.name or TREE)
                if state.found["artifacts"]:
                    self._write_state(directory, state, is_tree=place.is_tree)
                else:
                    (directory / STATE_FILE).unlink()
        with suppress(OSError):  # something else is in it
            directory.rmdir()

    def write_record(self, place: Place, record: Record) -> None:
        """Set the record of an artifact; raises ``OSError``."""
        directory = self.root / place.directory
        with self._state_lock(directory):
            state = self._state(directory).with_record(place.name or TREE, record)
            self._write_state(directory, state, is_tree=place.is_tree)

    def _write_state(self, directory: Path, state: StateFile, *, is_tree: bool) -> None:
        home = layout.staging(self.private) / layout.state_lock_name(
            directory.relative_to(self.root).as_posix()
        )  # where a crash leaves what is swept
        final = directory.resolve() if is_tree else directory / STATE_FILE  # nothing is added to a tree
        staging.discard(home)
        temporary = staging.open_directory(home, final) / STATE_FILE
        try:
            write_atomically(temporary, state.format(), durable=True)
            rename_over(temporary, directory / STATE_FILE)
        finally:
            staging.discard(home)
        sync_directory(directory)

    def _state_lock(self, directory: Path) -> AbstractContextManager[object]:
        """Return the lock for read-modify-write of one state file; held for milliseconds."""
        from filelock import FileLock  # noqa: PLC0415 - the warm path takes no lock

        path = layout.lock_file(self.private, layout.state_lock_name(directory.relative_to(self.root).as_posix()))
        path.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(path)


def _rename_into(staged: Path, final: Path) -> None:
    """Rename to a path whose directory may be missing; another process removes directories that are empty."""
    for attempt in range(_ATTEMPTS):
        final.parent.mkdir(parents=True, exist_ok=True)
        try:
            rename_over(staged, final)
        except FileNotFoundError:
            if attempt == _ATTEMPTS - 1:
                raise
        else:
            return
