"""Finds the configuration file: the one that is named, or the nearest ``llama-runner.toml``."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from llama_runner.store.layout import user_path
from llama_runner.system.platforms import IS_MACOS, IS_WINDOWS, user_id

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

FILE_NAME = "llama-runner.toml"
VARIABLE = "LLAMA_RUNNER_CONFIG"


def find_config(
    named: str | os.PathLike[str] | None,
    root: Path,
    *,
    environment: Mapping[str, str],
    warn: Callable[[str], None] = lambda _text: None,
) -> Path | None:
    """Return the configuration file to read; None without one.

    In this order: the one that is named, that of ``LLAMA_RUNNER_CONFIG``, the nearest one from the working directory
    upward, the one in the root, the user's own. An empty name or variable: none. A named one need not exist. One above
    the working directory that belongs to another user is left out, and ``warn`` is called.
    """
    chosen = environment.get(VARIABLE) if named is None else os.fspath(named)
    if chosen is not None:
        return Path(os.path.abspath(user_path(chosen))) if chosen else None  # noqa: PTH100 - links are not followed
    try:
        directory = os.getcwd()  # noqa: PTH109 - text is faster, and this is done at every start
    except OSError:  # it was removed
        directory = str(root)
    while True:
        path = os.path.join(directory, FILE_NAME)  # noqa: PTH118 - as said
        if _is_ours(path, warn):
            return Path(path)
        above = os.path.dirname(directory)  # noqa: PTH120 - as said
        if above == directory:
            break
        directory = above
    for path in (os.path.join(root, FILE_NAME), user_config(environment)):  # noqa: PTH118 - as said
        if os.path.isfile(path):  # noqa: PTH113 - as said
            return Path(path)
    return None


def user_config(environment: Mapping[str, str]) -> str:
    """Return the path of the user's own configuration file."""
    if IS_WINDOWS or IS_MACOS:
        from platformdirs import user_config_path  # noqa: PLC0415 - elsewhere it is not worth the time

        return str(user_config_path("llama_runner", appauthor=False) / FILE_NAME)
    home = environment.get("XDG_CONFIG_HOME", "")
    base = home if home.strip() else os.path.join(os.path.expanduser("~"), ".config")  # noqa: PTH111, PTH118 - as above
    return os.path.join(base, "llama_runner", FILE_NAME)  # noqa: PTH118 - as above


def _is_ours(path: str, warn: Callable[[str], None]) -> bool:
    """Return whether there is a file that this user or the administrator wrote."""
    try:
        found = os.stat(path)  # noqa: PTH116 - as above
    except OSError:
        return False
    if not stat.S_ISREG(found.st_mode):
        return False
    if not IS_WINDOWS and found.st_uid not in (0, user_id()):
        warn(f"{path} belongs to another user and is not read; --config {path} reads it")
        return False
    return True
