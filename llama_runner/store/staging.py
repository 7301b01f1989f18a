"""Private directories in which artifacts are prepared, each on the file system that its artifact will be on.

A directory lies below ``.llama_runner`` where a rename leads from there to the artifact's place. Where ``models/`` or
another directory of the root is a link to another file system, or a mount, it lies there instead, and a symbolic link
below ``.llama_runner`` leads to it. The link is made before the directory and removed after it, so whatever a crash
leaves can be found and removed.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

PREFIX = ".llama_runner-"
"""The beginning of the names of such directories on other file systems."""


def open_directory(home: Path, final: Path) -> Path:
    """Return the directory of ``home``, made if need be, from which a rename to ``final`` is possible.

    It is ``home`` itself or what ``home`` links to. Raises ``OSError``.
    """
    home.parent.mkdir(parents=True, exist_ok=True)
    there = nearest(final)
    elsewhere = _linked(home)
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
    """Remove the directory of ``home`` with all that is in it, wherever it lies; errors are ignored."""
    import shutil  # noqa: PLC0415 - only to write

    if elsewhere := _linked(home):
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


def _linked(home: Path) -> Path | None:
    """Return the directory on another file system that ``home`` leads to; None where it leads to none of ours."""
    if not home.is_symlink():
        return None
    target = home.readlink()
    return target if target.name == _name(home) else None


def nearest(final: Path) -> Path:
    """Return the directory that holds ``final``, or will: the nearest one that exists, links resolved."""
    directory = final.parent
    while not directory.exists():
        if directory.is_symlink():
            raise FileNotFoundError(errno.ENOENT, "it is a link to nothing", str(directory))
        directory = directory.parent
    return directory.resolve()


def _can_rename(source: Path, target: Path) -> bool:
    """Whether a file can be renamed from one directory to the other: not across file systems, nor mounts of one."""
    if source.stat().st_dev != target.stat().st_dev:
        return False
    try:
        os.rename(source / f"{PREFIX}nothing", target / f"{PREFIX}nothing")  # noqa: PTH104 - no such file: a question
    except FileNotFoundError:
        return True
    except OSError as error:
        return error.errno != errno.EXDEV
    return True
