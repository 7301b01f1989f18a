"""Source tree of llama.cpp in a directory of the user.

In a git checkout, tracked files and files that git does not ignore count, as they are on the disk, so an uncommitted
change is part of the key. Without git, or outside a checkout, every file counts.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, ClassVar

from llama_runner.core.digest import tree_digest
from llama_runner.core.errors import SourceError
from llama_runner.store.digest_cache import hash_file
from llama_runner.store.layout import BUILDS, SOURCES
from llama_runner.store.local_sources import DirectorySource, unreadable_source_error
from llama_runner.system.find_programs import find_program
from llama_runner.system.git import run_git

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from llama_runner.core.digest import Digest

_NOT_READ = re.compile(r"\.git|build.*|__pycache__")
"""Directories that a build does not read: of version control, of other builds (at the top only), of Python."""

_IGNORED_BUT_READ = "tools/ui/dist"
"""Web interface: packed into releases, ignored by git, compiled in if present."""


def no_source_tree_error(path: Path | str) -> SourceError:
    """Return the error for a directory without llama.cpp's source."""
    return SourceError(
        f"{path} is not a source tree of llama.cpp: it has no CMakeLists.txt",
        hint="give the directory that llama.cpp was cloned or unpacked into",
    )


class SourceTree(DirectorySource):
    """Directory with llama.cpp's source."""

    path: Path
    git: Path | None = None
    """Path of git; None outside a checkout, or without git."""
    kind: ClassVar[str] = "tree"
    record_parents: ClassVar[tuple[str, ...]] = (f"{BUILDS}/*", SOURCES)

    def files(self) -> dict[str, Path]:
        """See ``DirectorySource``. Raises ``SourceError``."""
        if not (self.path / "CMakeLists.txt").is_file():
            raise no_source_tree_error(self.path)
        try:
            names = sorted({*self._names()})
        except OSError as error:
            raise unreadable_source_error(error.filename or self.path, error.strerror or str(error)) from error
        return {name: path for name in names if (path := self.path / name).is_file()}

    def hash(self, files: Mapping[str, Path]) -> Digest:
        """See ``DirectorySource``. The executable bit counts, as scripts have it."""
        kinds = {name: "x" if os.access(path, os.X_OK) else "f" for name, path in files.items()}
        return tree_digest((name, kinds[name], hash_file(path)) for name, path in files.items())

    def _names(self) -> Iterator[str]:
        listed, failed = "", "no git"
        if self.git is not None:
            listed, failed = run_git(self.git, "-C", self.path, "ls-files", "-z", "-co", "--exclude-standard")
        if failed:
            yield from _below(self.path)
            return
        yield from filter(None, listed.split("\0"))
        if (self.path / _IGNORED_BUT_READ).is_dir():
            yield from _below(self.path, f"{_IGNORED_BUT_READ}/")

    def build_number_and_commit(self) -> tuple[int, str]:
        """Return build number and commit as llama.cpp's own CMake files derive them."""
        if self.git is None:
            return 0, "unknown"
        return build_number_and_commit(self.git, self.path, "HEAD")


def build_number_and_commit(git: Path, repository: Path, commit: str) -> tuple[int, str]:
    """Return the number of commits up to ``commit`` and its short hash; 0 and ``unknown`` if git fails."""
    count, no_count = run_git(git, "-C", repository, "rev-list", "--count", commit)
    name, no_name = run_git(git, "-C", repository, "rev-parse", "--short", commit)
    return (0, "unknown") if no_count or no_name else (int(count), name.strip())


def open_tree(path: Path) -> SourceTree:
    """Return the source of a directory; raises ``SourceError``."""
    path = path.resolve()
    if not (path / "CMakeLists.txt").is_file():
        raise no_source_tree_error(path)
    git = find_program("git") if (path / ".git").exists() else None
    return SourceTree(path, git)


def _below(root: Path, inside: str = "") -> Iterator[str]:
    for entry in os.scandir(root / inside):
        if not entry.is_dir():
            yield f"{inside}{entry.name}"
        elif not _NOT_READ.fullmatch(entry.name) or (inside and entry.name.startswith("build")):
            yield from _below(root, f"{inside}{entry.name}/")
