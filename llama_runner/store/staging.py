"""Staging directories, each on the same file system as its artifact, so that publishing is a rename.

A staging directory is below ``.llama_runner`` if a rename from there to the artifact's place is possible. If
``models/`` or another directory of the root is on another file system, it is there instead, with a symbolic link to it
below ``.llama_runner``. The link is made before the directory and removed after it, so that the directory of a crashed
process is found and removed.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

PREFIX = ".llama_runner-"
"""Prefix of the names of staging directories on other file systems."""


def open_directory(home: Path, final: Path) -> Path:
    """Make and return a directory from which a rename to ``final`` is possible: ``home`` or the target of its link.

    Raises ``OSError``.
    """
    home.parent.mkdir(parents=True, exist_ok=True)
    there = nearest_directory(final)
    elsewhere = _link_target(home)
    if elsewhere is None or not elsewhere.parent.is_dir() or not _can_rename(elsewhere.parent, there):
        if home.is_symlink():
            discard(home)
        if _can_rename(home.parent, there):
            home.mkdir(exist_ok=True)
            return home
        discard(home)
        elsewhere = there / _name(home)
        home.symlink_to(elsewhere, target_is_directory=True)
    elsewhere.mkdir(exist_ok=True)
    return elsewhere


def discard(home: Path) -> None:
    """Remove the staging directory of ``home``, on this or another file system; errors are ignored."""
    import shutil  # noqa: PLC0415 - only to write

    if elsewhere := _link_target(home):
        shutil.rmtree(elsewhere, ignore_errors=True)
    with suppress(OSError):
        if home.is_dir() and not home.is_symlink():
            shutil.rmtree(home, ignore_errors=True)
        else:
            home.unlink()


def is_ours(home: str) -> bool:
    """Whether a path is a link that leads to a private directory on another file system."""
    return os.path.islink(home) and os.path.basename(os.readlink(home)).startswith(PREFIX)  # noqa: PTH114, PTH115, PTH119


def _name(home: Path) -> str:
    return f"{PREFIX}{home.parent.name}-{home.name}"


def _link_target(home: Path) -> Path | None:
    """Return the staging directory on another file system that ``home`` links to; None if it does not."""
    if not home.is_symlink():
        return None
    target = home.readlink()
    return target if target.name == _name(home) else None


def nearest_directory(final: Path) -> Path:
    """Return the nearest existing parent directory of ``final``, links resolved."""
    directory = final.parent
    while not directory.exists():
        if directory.is_symlink():
            raise FileNotFoundError(errno.ENOENT, "it is a broken link", str(directory))
        directory = directory.parent
    return directory.resolve()


def _can_rename(source: Path, target: Path) -> bool:
    """Whether a file can be renamed between two directories; not across file systems or mounts."""
    if source.stat().st_dev != target.stat().st_dev:
        return False
    try:
        os.rename(source / f"{PREFIX}nothing", target / f"{PREFIX}nothing")  # noqa: PTH104 - fails with ENOENT or EXDEV
    except FileNotFoundError:
        return True
    except OSError as error:
        return error.errno != errno.EXDEV
    return True
