"""Local sources: a directory of safetensors, a GGUF file, and plain files that steps read."""

from __future__ import annotations

import os
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, ClassVar

from llama_runner.core.artifact_record import STATE_FILE
from llama_runner.core.digest import short_hash
from llama_runner.core.errors import SourceError
from llama_runner.core.files_of_model_directory import READ_BY_CONVERSION, is_read_by_native_converter
from llama_runner.store.layout import GGUF, safe_name, user_path
from llama_runner.store.local_sources import (
    LocalSource,
    missing_source_error,
    printable_file_name,
    source_read_errors,
    unreadable_source_error,
)

if TYPE_CHECKING:
    from collections.abc import Container
    from pathlib import Path

    from llama_runner.sources.gguf_header import GgufHeader


def not_a_directory_error(path: Path) -> SourceError:
    """Return the error for a path that is not a directory where one is expected."""
    return SourceError(f"{path} is not a directory", hint="use --gguf-path for a GGUF file")


class LocalSafetensors(LocalSource):
    """Directory of safetensors with its config and tokenizer. ``name`` is part of the converted metadata."""

    path: Path
    name: str
    reads: tuple[str, ...] = READ_BY_CONVERSION
    """Patterns of the files that the digest covers."""
    converted_here: bool = False
    """Whether only the built-in converter reads it; files that it does not read are then left out of the digest."""
    kind: ClassVar[str] = "safetensors"
    is_inspected: ClassVar[bool] = True
    is_directory: ClassVar[bool] = True

    @property
    def is_converted_natively(self) -> bool:
        """See ``LocalSource``."""
        return self.converted_here

    def files(self) -> dict[str, Path]:
        """See ``LocalSource``."""
        found: dict[str, Path] = {}
        with source_read_errors(self.path):
            for directory, below in (("", self.path), *self._known_folders()):
                for entry in os.scandir(below):
                    name = f"{directory}{entry.name}"
                    if name != STATE_FILE and any(fnmatchcase(name, pattern) for pattern in self.reads):
                        found[name] = below / entry.name
        return {name: path for name, path in sorted(found.items()) if _may_be_read(name, path, found)}

    def _known_folders(self) -> list[tuple[str, Path]]:
        patterns = {pattern.rpartition("/")[0] for pattern in self.reads if "/" in pattern}
        below = sorted(entry.name for entry in os.scandir(self.path) if entry.is_dir())
        return [(f"{name}/", self.path / name) for name in below if any(fnmatchcase(name, of) for of in patterns)]


class LocalGguf(LocalSource):
    """GGUF model on disk: its first or only file, all of its files, and its header."""

    path: Path
    shards: tuple[Path, ...]
    header: GgufHeader
    given_name: str = ""
    """The name of a model in the store; empty for a file elsewhere."""
    projector: Path | None = None
    """The multimodal projector that was imported with a model in the store."""
    kind: ClassVar[str] = "gguf"

    @property
    def name(self) -> str:
        """The given name, or the file's name without its suffix."""
        return self.given_name or printable_file_name(self.path.stem)

    def files(self) -> dict[str, Path]:
        """See ``LocalSource``."""
        return {path.name: path for path in self.shards}


class PlainFile(LocalSource):
    """File that a step reads as it is: an importance matrix, a text, a patch."""

    path: Path
    kind: ClassVar[str] = "file"
    is_small: ClassVar[bool] = True

    @property
    def name(self) -> str:
        """The file's name."""
        return printable_file_name(self.path.name)


def artifact_directory(name: str, digest: str) -> str:
    """Return the directory, relative to the root, for artifacts made from a local source."""
    return f"{GGUF}/local__{safe_name(name)}__{short_hash(digest, 12)}"


def open_directory(path: Path) -> LocalSafetensors:
    """Return the source of a directory of safetensors; raises ``SourceError``."""
    path = user_path(path).absolute()
    if not path.exists():
        raise missing_source_error(path)
    if not path.is_dir():
        raise not_a_directory_error(path)
    resolved = path.resolve()
    return LocalSafetensors(resolved, printable_file_name(resolved.name if path.name in ("", "..") else path.name))


def open_plain(path: Path) -> PlainFile:
    """Return the source of a plain file; raises ``SourceError``."""
    path = user_path(path).absolute()
    if not path.exists():
        raise missing_source_error(path)
    if not path.is_file() or path.stat().st_size > 16 << 30:
        raise unreadable_source_error(path, "it is larger than 16 GiB" if path.is_file() else "it is not a file")
    return PlainFile(path)


def _may_be_read(name: str, path: Path, there: Container[str]) -> bool:
    """Return whether the path is a regular file or a broken link; a broken link is reported when it is read.

    Raises ``SourceError`` for anything else that conversion reads: a pipe would hang, a device has no end.
    """
    if path.is_file() or (path.is_symlink() and not path.exists()):
        return True
    if not path.is_dir() and is_read_by_native_converter(name, there, None):
        raise unreadable_source_error(path, "not a regular file")
    return False
