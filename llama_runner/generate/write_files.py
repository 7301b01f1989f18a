"""Writes generated files. A file with another content is not overwritten unless that is asked for."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from llama_runner.core.errors import StoreError
from llama_runner.generate.errors import CannotGenerate
from llama_runner.store.errors import NO_ROOM, disk_full_error
from llama_runner.store.layout import can_be_path, user_path
from llama_runner.system.files import read_bounded, write_atomically

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_LARGEST = 16 << 20


def write(files: Mapping[str, str], output: str | os.PathLike[str], *, force: bool = False) -> list[Path]:
    """Write the files and return their paths.

    ``output`` is a directory if it is one, ends with a slash, or there are several files; otherwise it is the file.
    Raises ``CannotGenerate`` before anything is written if a file exists with other content, unless ``force``.
    """
    path = user_path(output)
    if not can_be_path(path):
        raise CannotGenerate(f"{os.fspath(output)!a} is not a file name", hint="name another place")
    is_directory = len(files) > 1 or path.is_dir() or os.fspath(output).endswith(("/", os.sep))
    if is_directory and path.exists() and not path.is_dir():
        raise CannotGenerate(f"{path} is a file, and there are {len(files)} files to write", hint="name a directory")
    paths = {path / name if is_directory else path: text for name, text in files.items()}
    for each, text in paths.items():
        if not force and os.path.lexists(each) and not _has(each, text):
            raise CannotGenerate(f"{each} exists with other content", hint="--force replaces it")
    for each, text in paths.items():
        try:
            write_atomically(each, text.encode())
        except OSError as error:
            if error.errno in NO_ROOM:
                raise disk_full_error(each) from error
            why = error.strerror or str(error)
            raise StoreError(f"cannot write to {each}: {why}", hint="name another place with -o") from error
    return list(paths)


def _has(path: Path, text: str) -> bool:
    try:
        return read_bounded(path, _LARGEST) == text.encode()
    except OSError:
        return False
