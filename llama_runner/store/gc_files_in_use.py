"""Lists of files that were used with a root, such as lock files: ``gc`` keeps what they name."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from llama_runner.core.errors import StoreError
from llama_runner.store.gc_keep_lists import read_list, update_list

_MEMBER = "files"


def known_files(path: Path) -> tuple[Path, ...]:
    """Return the files of a list; ``StoreError`` where it is damaged."""
    return tuple(read_list(path, _MEMBER, lambda each: Path(str(each))))


def remember_file(path: Path, file: Path) -> None:
    """Add a file to a list; does nothing where the root cannot be written."""
    with suppress(StoreError, OSError):
        if file not in known_files(path):
            update_list(path, _MEMBER, lambda: sorted({*map(str, known_files(path)), str(file)}))
