"""When a server was last started with a model or a build: the modification time of one empty file for each."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from llama_runner.store import layout

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


def mark_used(private: Path, words: Iterable[str]) -> list[str]:
    """Record that a server starts with these arguments; return those that are files below the root.

    A store that cannot be written keeps what it has.
    """
    root, directory = os.fspath(private.parent) + os.sep, os.fspath(layout.last_uses(private))
    used = [word for word in words if word.startswith(root)]
    for word in used:
        stamp = os.path.join(directory, name_of(word[len(root) :].replace(os.sep, "/")))  # noqa: PTH118 - every start
        with suppress(OSError):
            try:
                os.utime(stamp)
            except FileNotFoundError:
                os.makedirs(directory, exist_ok=True)  # noqa: PTH103 - as above
                os.close(os.open(stamp, os.O_WRONLY | os.O_CREAT, 0o666))
    return used


def last_uses(private: Path) -> dict[str, float]:
    """Return the times of all stamps by their name, in seconds since the epoch."""
    found: dict[str, float] = {}
    with suppress(OSError), os.scandir(layout.last_uses(private)) as entries:
        for entry in entries:
            with suppress(OSError):
                found[entry.name] = entry.stat(follow_symlinks=False).st_mtime
    return found


def name_of(place: str) -> str:
    """Return the name of the stamp of a file, given by its path below the root with forward slashes."""
    from llama_runner.core.short_sha256 import sha256  # noqa: PLC0415 - not to import this module

    return sha256(place.encode("utf-8", "surrogateescape")).hexdigest()[:24]
