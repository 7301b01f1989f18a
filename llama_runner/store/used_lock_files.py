"""The list of lock files that were used with a root: one small file. ``gc`` keeps what they name."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from llama_runner.core.errors import StoreError
from llama_runner.store import layout
from llama_runner.system.files import read_json, write_json

SCHEMA = 1


def unreadable_list_error(path: Path, why: str) -> StoreError:
    """Return the error for a list that cannot be read, so that nothing may be freed."""
    return StoreError(f"{path} does not say which lock files to respect: {why}", hint="mend it, or remove it")


def known_lock_files(private: Path) -> tuple[Path, ...]:
    """Return the lock files that were used with this root; ``StoreError`` where the list is damaged."""
    path = layout.lock_files(private)
    try:
        found = read_json(path)
        if found["schema"] != SCHEMA:
            raise ValueError(f"schema {found['schema']}, this program reads {SCHEMA}")
        return tuple(Path(str(each)) for each in found["files"])
    except (FileNotFoundError, NotADirectoryError):
        return ()
    except OSError as error:
        raise unreadable_list_error(path, error.strerror or str(error)) from None
    except (ValueError, LookupError, TypeError) as error:
        raise unreadable_list_error(path, str(error)) from None


def remember_lock_file(private: Path, file: Path) -> None:
    """Add a lock file to the list; does nothing where the root cannot be written."""
    with suppress(StoreError, OSError):
        if file in known_lock_files(private):
            return
        from filelock import FileLock  # noqa: PLC0415 - only to write

        lock = layout.lock_file(private, "lock-files")
        lock.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(lock):
            files = sorted({*map(str, known_lock_files(private)), str(file)})
            write_json(layout.lock_files(private), {"schema": SCHEMA, "files": files}, durable=True)
