"""Deletes artifacts that other processes may begin to use at the same moment.

An artifact is moved into staging first, under the lock of its key, and then the registry and the locks are checked. A
process that begins to use it has either registered before, and the artifact is moved back, or it finds it absent and
makes it again. A killed process leaves staging, which the next run removes.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from llama_runner.core.artifact_record import STATE_FILE, TREE, format_state
from llama_runner.core.digest import short_hash
from llama_runner.core.errors import StoreError
from llama_runner.store import layout, process_locks, staging
from llama_runner.store.errors import NO_ROOM
from llama_runner.system.files import write_atomically
from llama_runner.system.platforms import IS_WINDOWS, rename_over

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from llama_runner.core.artifact_record import Record
    from llama_runner.core.step import Place
    from llama_runner.store.artifacts import Store


class InUse(StoreError):
    """Something that another process uses, or works on, is not deleted."""


def take_away(path: Path, home: Path, check: Callable[[], None], then: Callable[[Path], None] | None = None) -> None:
    """Delete a file or directory by way of ``home``, a directory in staging whose lock is held.

    ``then`` is called before bytes are freed, with a directory from which a rename to the path is possible. What
    ``check`` and ``then`` raise is raised after the path is back in its place. Raises ``OSError``.
    """
    staging.discard(home)
    aside = staging.open_directory(home, path) / path.name
    try:
        rename_over(path, aside)
        try:
            check()
            if then is not None:
                then(aside.parent)
        except BaseException:
            aside.rename(path)
            raise
    finally:
        staging.discard(home)


def remove(
    store: Store, place: Place, record: Record, *, check: Callable[[], None] = lambda: None, keep: Record | None
) -> None:
    """Delete the bytes of an artifact. ``keep`` is what becomes of its record; None: it is deleted too.

    ``check`` raises ``InUse`` for what is in use. Raises ``InUse`` where another process works on the artifact, and
    ``OSError``.
    """
    path, lock = store.path(place), layout.lock_file(store.private, short_hash(record.key, 16))
    is_written = True

    def keep_record(beside: Path) -> None:
        nonlocal is_written
        if keep is not None and (place.is_tree or keep != record):
            is_written = _keep_record(store, place, keep, beside)

    with process_locks.try_hold(lock) as held:
        if not held:
            raise InUse(f"{place} is being worked on by {process_locks.describe_holder(lock)}")
        check()
        with suppress(FileNotFoundError):
            take_away(path, layout.staging(store.private) / lock.stem, check, keep_record)
        if keep is None:
            store.forget(place)
            _unlink(lock)  # a waiting process detects that the file is gone
        elif not is_written:
            with suppress(OSError):
                store.write_record(place, keep)


def _keep_record(store: Store, place: Place, keep: Record, beside: Path) -> bool:
    """Write the record of an artifact that is in ``beside``; of a directory into an otherwise empty one.

    Return False where the disk is full: the old record stays until the bytes are freed, as they must be there too.
    """
    path, is_written = store.path(place), True
    try:
        if place.is_tree:
            write_atomically(beside / "record" / STATE_FILE, format_state({TREE: keep}), durable=True)
        else:
            store.write_record(place, keep)
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        is_written = False
        if place.is_tree:
            (beside / "record" / STATE_FILE).hardlink_to(beside / path.name / STATE_FILE)
    if place.is_tree:
        (beside / "record").rename(path)
    return is_written


def discard_locked(path: Path, lock: Path) -> bool:
    """Delete unfinished work, or a staging directory, unless its lock is held; return whether it is gone."""
    with process_locks.try_hold(lock) as held:
        if held:
            staging.discard(path)
        return held


def unlink_lock(lock: Path) -> bool:
    """Delete a lock file that is not held, with the description of its last holder; return whether it is gone."""
    with process_locks.try_hold(lock) as held:
        if held:
            _unlink(lock)
        return held


def _unlink(lock: Path) -> None:
    """Delete a lock file that is held, with the description that a killed holder left.

    On Windows a file that is open cannot be deleted: filelock deletes it once it is released.
    """
    process_locks.holder_file(lock).unlink(missing_ok=True)
    if not IS_WINDOWS:
        lock.unlink(missing_ok=True)
