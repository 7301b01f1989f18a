"""The directory that a llama-server writes its slots to and reads them from. Plain text is there for moments only."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from llama_runner.core.errors import StoreError
from llama_runner.core.short_sha256 import sha256
from llama_runner.sessions.encryption import read_key
from llama_runner.sessions.state_store import StateStore, private_directory
from llama_runner.sessions.unfinished_files import is_left, new_maker
from llama_runner.store import layout
from llama_runner.store.gc_files_in_use import remember_file
from llama_runner.system.platforms import user_id

if TYPE_CHECKING:
    from llama_runner.gateway.sessions.session_settings import SessionSettings

_MEMORY = Path("/dev/shm")  # noqa: S108 - a directory of our own below it, which nobody else may use
_LEAST_MEMORY = 1 << 30
"""Free bytes in memory with which plain text is kept there while it is encrypted."""


def store_of(settings: SessionSettings, root: Path) -> StateStore:
    """Return the store of a model's sessions. Raises ``UsageError`` for a key file that cannot be used."""
    private = root / layout.PRIVATE
    directory = settings.directory or layout.sessions(private)
    key = None if settings.encryption_key is None else read_key(settings.encryption_key)
    if settings.directory is not None:
        remember_file(layout.session_directories(private), settings.directory)
    return StateStore(directory, key)


def make_spool(store: StateStore, model: str) -> Path:
    """Make the directory for a model. It is in memory where files are encrypted and there is room. ``StoreError``."""
    below = layout.safe_name(model)
    try:
        store.prepare()
        parent = store.directory / "spool"
        if store.encrypts and (in_memory := _in_memory(store.directory)) is not None:
            parent = in_memory
        spool = private_directory(parent / below)
        for path in spool.iterdir():  # what a killed process left
            with suppress(OSError):
                if is_left(path, path.stem):
                    path.unlink()
        store.remove_unfinished(model)
    except OSError as error:
        raise StoreError(
            f"sessions cannot be kept below {store.directory}: {error.strerror or error}",
            hint="set sessions.directory of the model to a directory that can be written",
        ) from None
    return spool


def new_name() -> str:
    """Return the name of a file in a spool. It says which process made it."""
    return f"{new_maker()}.kv"


def _in_memory(directory: Path) -> Path | None:
    """Return a directory of ours in memory; None where there is none, or little room in it."""
    try:
        if shutil.disk_usage(_MEMORY).free < _LEAST_MEMORY:
            return None
        name = sha256(os.fsencode(directory)).hexdigest()[:16]
        path = _MEMORY / f"llama-runner-{user_id()}-{name}"
        with suppress(FileExistsError):
            path.mkdir(mode=0o700)
        status = path.lstat()
    except OSError:
        return None
    is_ours = not path.is_symlink() and status.st_uid == user_id() and not status.st_mode & 0o077
    return path if is_ours else None
