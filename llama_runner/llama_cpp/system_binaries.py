"""Adopted programs and archives: those of the system, and those that the user names.

Their bytes are read only if something has changed: the record of the artifact has one stamp over all of them.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, ClassVar

from llama_runner.core.digest import tree_digest
from llama_runner.core.errors import ToolError
from llama_runner.store.digest_cache import hash_file
from llama_runner.store.layout import BINS_VARIABLE, BUILDS, user_path
from llama_runner.store.local_sources import DirectorySource, missing_source_error, unreadable_source_error
from llama_runner.system.find_programs import find_program

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from llama_runner.core.digest import Digest

SERVER = "llama-server"

_PROGRAM = re.compile(r"(llama-[a-z0-9-]+|(ggml-)?rpc-server)(\.exe)?", re.IGNORECASE)
_LIBRARY = re.compile(r"[\w.+-]+\.(dylib|dll|so(\.\d+)*)", re.IGNORECASE)
_OURS = re.compile(r"(lib)?(llama|ggml|mtmd)", re.IGNORECASE)
_ELSEWHERE = ("../lib", "../lib64", "../lib/*-linux-gnu", "../lib/llama.cpp", "../lib/*/llama.cpp")
"""Directories, relative to ``bin``, where packages put libraries."""


def no_server_error(where: str) -> ToolError:
    """Return the error for a place without ``llama-server``."""
    return ToolError(
        f"there is no {SERVER} {where}",
        hint=f"install llama.cpp, name its directory with --binaries or {BINS_VARIABLE}, or build it with "
        "--binaries build",
    )


def not_executable_error(path: Path) -> ToolError:
    """Return the error for a ``llama-server`` that is not executable."""
    return ToolError(f"{path} is not executable", hint=f"chmod +x {path}")


class AdoptedPrograms(DirectorySource):
    """llama.cpp's programs in a directory, with the libraries there and in the directories of packages.

    ``path`` is the directory with all links resolved; ``server`` is the file name of ``llama-server`` in it.
    """

    path: Path
    server: str = SERVER
    kind: ClassVar[str] = "system"
    record_parents: ClassVar[tuple[str, ...]] = (f"{BUILDS}/*",)

    def files(self) -> dict[str, Path]:
        """See ``DirectorySource``. Raises ``ToolError``."""
        try:
            found = dict(self._beside())
        except OSError as error:
            raise unreadable_source_error(error.filename or self.path, error.strerror or str(error)) from error
        if self.server not in found:
            raise no_server_error(f"in {self.path}")
        for place in _ELSEWHERE:
            for directory in sorted(self.path.glob(place)) if "*" in place else [self.path / place]:
                found.update(_libraries(directory, self.path))
        return dict(sorted(found.items()))

    def _beside(self) -> Iterator[tuple[str, Path]]:
        for entry in os.scandir(self.path):
            is_one = entry.name == self.server or _PROGRAM.fullmatch(entry.name) or _LIBRARY.fullmatch(entry.name)
            if is_one and entry.is_file():
                yield entry.name, self.path / entry.name

    def hash(self, files: Mapping[str, Path]) -> Digest:
        """See ``DirectorySource``."""
        return tree_digest(
            (name, "x" if os.access(path, os.X_OK) else "f", hash_file(path)) for name, path in files.items()
        )


class ArchiveFile(DirectorySource):
    """Archive on the disk. It may be large, so it is not read on each start."""

    path: Path
    kind: ClassVar[str] = "archive"
    record_parents: ClassVar[tuple[str, ...]] = (f"{BUILDS}/*",)

    def files(self) -> dict[str, Path]:
        """See ``DirectorySource``."""
        return {self.path.name: self.path}

    def hash(self, files: Mapping[str, Path]) -> Digest:
        """See ``DirectorySource``: the digest of the file itself."""
        return hash_file(files[self.path.name])


def open_adopted(path: str | os.PathLike[str] | None, *, environment: Mapping[str, str]) -> AdoptedPrograms:
    """Return the programs in a directory, or beside a program, that the user names.

    None means the directory in ``LLAMA_SERVER_BINS_DIR``, else the first ``llama-server`` on ``PATH``.
    Raises ``ToolError`` and ``SourceError``.
    """
    named = path or environment.get(BINS_VARIABLE)
    if named:
        given = user_path(named).absolute()
        if not given.exists():
            raise missing_source_error(given)
        server = _server_in(given) if given.is_dir() else given
    else:
        found = find_program(SERVER, environment.get("PATH"))
        if found is None:
            raise no_server_error("on PATH")
        server = found.absolute()
    if not os.access(server, os.X_OK):
        raise not_executable_error(server)
    # libraries are found beside the program, not beside a link to it; but a link with another name must be kept, as
    # some programs choose what they do by their name
    real = server.resolve()
    server = real if real.name == server.name else server
    return AdoptedPrograms(server.parent, server.name)


def open_archive(path: Path) -> ArchiveFile:
    """Return an archive that the user names.

    Raises ``SourceError``, and ``BadArchive`` for a file without an archive's magic number, before it is hashed.
    """
    from llama_runner.system.archives import check_is_archive  # noqa: PLC0415 - most programs are built

    path = user_path(path).absolute()
    if not path.exists():
        raise missing_source_error(path)
    if not path.is_file():
        raise unreadable_source_error(path, "it is not a file")
    try:
        check_is_archive(path)
    except OSError as error:
        raise unreadable_source_error(path, error.strerror or str(error)) from error
    return ArchiveFile(path)


def _server_in(directory: Path) -> Path:
    for name in (SERVER, f"{SERVER}.exe", f"bin/{SERVER}", f"build/bin/{SERVER}"):
        if (directory / name).is_file():
            return directory / name
    raise no_server_error(f"in {directory}")


def _libraries(directory: Path, start: Path) -> Iterator[tuple[str, Path]]:
    try:
        for entry in os.scandir(directory):
            if _OURS.match(entry.name) and _LIBRARY.fullmatch(entry.name) and entry.is_file():
                yield f"{os.path.relpath(directory, start)}/{entry.name}", directory / entry.name
    except OSError:  # absent, or not readable
        return
