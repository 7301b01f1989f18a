"""Small lists under the private directory that ``gc`` obeys, such as the models to keep: one JSON file each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from llama_runner.core.errors import StoreError
from llama_runner.store import layout
from llama_runner.system.files import read_json, write_json

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SCHEMA = 1
_Entry = TypeVar("_Entry")


def read_list(path: Path, member: str, parse: Callable[[Any], _Entry]) -> list[_Entry]:
    """Return the entries of a list; ``StoreError`` where the file is damaged, so that nothing is deleted."""
    try:
        found = read_json(path)
        if found["schema"] != SCHEMA:
            raise ValueError(f"schema {found['schema']}, this program reads {SCHEMA}")
        return [parse(each) for each in found[member]]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise _unreadable_list_error(path, member, error.strerror or str(error)) from None
    except (ValueError, LookupError, TypeError) as error:
        raise _unreadable_list_error(path, member, str(error)) from None


def update_list(path: Path, member: str, entries: Callable[[], list[Any]]) -> None:
    """Write what ``entries`` returns; no other process writes the list meanwhile. Raises ``OSError``."""
    from filelock import FileLock  # noqa: PLC0415 - only to write

    lock = layout.lock_file(path.parent, path.stem.replace("_", "-"))
    lock.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock):
        write_json(path, {"schema": SCHEMA, member: entries()}, durable=True)


def _unreadable_list_error(path: Path, member: str, why: str) -> StoreError:
    return StoreError(f"{path} does not say which {member} to keep: {why}", hint="mend it, or remove it")
