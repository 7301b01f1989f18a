"""Lists of files that were used with a root, such as lock files: ``gc`` keeps what they name. One small file each."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from llama_runner.core.errors import StoreError
from llama_runner.store import layout
from llama_runner.system.files import read_json, write_json

SCHEMA = 1


def unreadable_list_error(path: Path, why: str) -> StoreError:
    """Return the error for a list that cannot be read, so that nothing may be freed."""
    return StoreError(f"{path} does not say which files to respect: {why}", hint="mend it, or remove it")


def known_files(path: Path) -> tuple[Path, ...]:
    """Return the files of a list; ``StoreError`` where it is damaged."""
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


def remember_file(path: Path, file: Path) -> None:
    """Add a file to a list; does nothing where the root cannot be written."""
    with suppress(StoreError, OSError):
        if file in known_files(path):
            return
        from filelock import FileLock  # noqa: PLC0415 - only to write

        lock = layout.lock_file(path.parent, path.stem.replace("_", "-"))
        lock.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(lock):
            files = sorted({*map(str, known_files(path)), str(file)})
            write_json(path, {"schema": SCHEMA, "files": files}, durable=True)
