"""Replaces files of the configuration: one process at a time, and several files all or none."""

from __future__ import annotations

import hashlib
import os
import stat
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from llama_runner.config.read_config_file import LARGEST, text_of
from llama_runner.core.errors import LlamaRunnerError, StoreError, UsageError
from llama_runner.system.files import write_atomically
from llama_runner.system.platforms import set_owner

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_LOCK_TIMEOUT_S = 30.0


@contextmanager
def locked(path: Path) -> Iterator[Path]:
    """Yield the file behind symbolic links; one process at a time changes it, where locks are possible."""
    from filelock import FileLock, Timeout  # noqa: PLC0415 - only for changes
    from platformdirs import user_cache_path  # noqa: PLC0415

    try:
        target = Path(os.path.realpath(path, strict=path.exists()))
    except (OSError, ValueError) as error:
        raise not_written(path, error) from error
    name = hashlib.sha256(os.fsencode(target)).hexdigest()[:16]
    lock = user_cache_path("llama_runner", appauthor=False) / "config-locks" / f"{name}.lock"
    held = FileLock(lock)
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        held.acquire(timeout=_LOCK_TIMEOUT_S)
    except Timeout:
        raise StoreError(f"{path}: another process changes it", hint="wait until it is done") from None
    except OSError:  # no place for locks; the text is compared before it is replaced
        yield target
        return
    try:
        yield target
    finally:
        held.release()


def _check_write(target: Path, before: str | None, after: str) -> None:
    """Raise what is known before a file is replaced: it has another text than ``before``, or would be too large."""
    if len(after.encode()) > LARGEST:
        raise UsageError(f"{target} would be larger than the limit of {LARGEST} bytes")
    if before is not None and text_of(target, ()) != before:
        raise StoreError(f"{target} was changed by another process", hint="run the same command again")


def write(target: Path, before: str | None, after: str) -> None:
    """Replace the text of a file, with its mode and owner; ``before`` is what it was."""
    try:
        _check_write(target, before, after)
        about = target.stat() if target.exists() else None
        mode = 0o666 if about is None else stat.S_IMODE(about.st_mode)
        write_atomically(target, after.encode(), durable=True, mode=mode)
        if about is not None:
            with suppress(OSError):
                target.chmod(mode)
                set_owner(target, about)
    except OSError as error:
        raise not_written(target, error) from error


def not_written(path: Path, error: Exception) -> StoreError:
    """Return the error of a file that could not be written."""
    return StoreError(f"cannot write {path}: {getattr(error, 'strerror', None) or error}")


def write_all(before: Mapping[Path, str], after: Mapping[Path, str]) -> None:
    """Replace the texts of files: of all of them or of none."""
    with ExitStack() as stack:
        targets = {file: stack.enter_context(locked(file)) for file in sorted(after)}  # two processes: one order
        for file, target in targets.items():
            _check_write(target, before[file], after[file])
        done: list[Path] = []
        try:
            for file in (file for file in after if after[file] != before[file]):
                write(targets[file], before[file], after[file])
                done.append(file)
        except LlamaRunnerError:
            for file in done:
                write(targets[file], after[file], before[file])
            raise
