"""Which llama.cpp is built: one small file, ``vendor/llama.cpp.toml``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from llama_runner.core.digest import Digest, file_digest
from llama_runner.core.errors import UsageError
from llama_runner.core.value import Value
from llama_runner.system.files import read_bounded

if TYPE_CHECKING:
    from pathlib import Path

    from llama_runner.core.step import Node


def bad_pin_error(path: Path, why: str) -> UsageError:
    """The pin cannot be read."""
    return UsageError(f"{path} does not say which llama.cpp to build: {why}", hint="restore it from the repository")


class Inner(Value):
    """A file inside the pinned one."""

    path: str
    digest: Digest
    size: int


class Pin(Value):
    """A llama.cpp source tree inside a file on a package index."""

    build: int
    commit: str
    package: str
    version: str
    filename: str
    size: int
    digest: Digest
    """Of the file."""
    tree_path: str
    tree_digest: Digest
    tree_bytes: int
    windows: Inner | None = None
    """A release archive of the programs for Windows on x64, where the package has one."""


class Tree(Value):
    """A source tree to build, and what its build calls itself: a number and a commit."""

    node: Node
    build: int
    commit: str


_LARGEST = 1 << 20


def load_pin(path: Path) -> Pin:
    """Read the pin; ``UsageError`` when it is missing or incomplete."""
    if sys.version_info >= (3, 11):
        import tomllib  # noqa: PLC0415 - only where a pin is read
    else:
        import tomli as tomllib  # noqa: PLC0415

    try:
        value: dict[str, Any] = tomllib.loads(read_bounded(path, _LARGEST).decode("utf-8"))
        package, tree, windows = value["package"], value["tree"], value.get("windows")
        return Pin(
            build=int(value["build"]),
            commit=str(value["commit"]),
            package=str(package["name"]),
            version=str(package["version"]),
            filename=str(package["filename"]),
            size=int(package["size"]),
            digest=file_digest(package["sha256"]),
            tree_path=str(tree["path"]),
            tree_digest=Digest(tree["digest"]),
            tree_bytes=int(tree["bytes"]),
            windows=None if windows is None else _inner(windows),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise bad_pin_error(path, str(error) or type(error).__name__) from error


def _inner(table: dict[str, Any]) -> Inner:
    return Inner(str(table["path"]), file_digest(table["sha256"]), int(table["size"]))
