"""Finds programs in PATH. Relative entries are ignored: they mean the working directory, which may be untrusted."""

from __future__ import annotations

import os
from pathlib import Path


def find_program(name: str, path: str | None = None) -> Path | None:
    """Return the absolute path of an executable file; None if there is none.

    A name with a directory in it is relative to the working directory. Any other name is looked up in the absolute
    entries of ``path`` (default: ``PATH``). ``shutil.which`` is not used: its import takes five milliseconds, and on
    Windows it searches the working directory first.
    """
    if os.path.dirname(name):  # noqa: PTH120 - text
        directories = [Path(name).parent.absolute()]
    else:
        entries = safe_path(path or os.environ.get("PATH", os.defpath)).split(os.pathsep)
        directories = [Path(entry) for entry in entries if entry]
    for directory in directories:
        for spelling in _spellings(os.path.basename(name)):  # noqa: PTH119 - text
            candidate = directory / spelling
            if os.access(candidate, os.X_OK) and candidate.is_file():
                return candidate
    return None


def safe_path(path: str) -> str:
    """Return a search path without its relative and empty entries."""
    return os.pathsep.join(entry for entry in path.split(os.pathsep) if os.path.isabs(entry))  # noqa: PTH117 - text


def _spellings(name: str) -> list[str]:
    """Return the possible file names of a program; on Windows also with the extensions of ``PATHEXT``."""
    if os.name != "nt" or os.path.splitext(name)[1]:  # noqa: PTH122 - text
        return [name]
    return [name + extension for extension in os.environ.get("PATHEXT", ".EXE").split(";")]
