"""The pinned llama.cpp source, read from ``vendor/llama.cpp.toml``."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any

from llama_runner.core.digest import Digest, file_digest
from llama_runner.core.errors import UsageError
from llama_runner.core.immutable_values import Value
from llama_runner.system.files import read_bounded

if TYPE_CHECKING:
    from pathlib import Path

    from llama_runner.core.step import Node


def bad_pin_error(path: Path, why: str) -> UsageError:
    """Return the error for an unreadable pin."""
    return UsageError(f"{path} does not say which llama.cpp to build: {why}", hint="restore it from the repository")


class NestedFile(Value):
    """File inside the pinned file."""

    path: str
    digest: Digest
    size: int


class SourcePin(Value):
    """llama.cpp source tree inside a file of a package index."""

    build: int
    commit: str
    package: str
    version: str
    filename: str
    size: int
    digest: Digest
    """Digest of the file."""
    tree_path: str
    tree_digest: Digest
    tree_bytes: int
    windows: NestedFile | None = None
    """Release archive of the programs for Windows on x64; None if the package has none."""


class NumberedTree(Value):
    """Source tree to build, with the build number and commit of its programs."""

    node: Node
    build: int
    commit: str


_LARGEST = 1 << 20
_REST = r"[ \t]*(?:#[ -~]*)?"
_BLANK = re.compile(_REST)
_HEADER = re.compile(rf"\[([a-z]+)\]{_REST}")
_PAIR = re.compile(rf'([a-z0-9]+) = (?:"([ !#-\[\]-~]*)"|(0|[1-9][0-9]{{0,17}})){_REST}')


def load_pin(path: Path) -> SourcePin:
    """Read the pin; raises ``UsageError`` if it is missing or incomplete."""
    try:
        text = read_bounded(path, _LARGEST).decode("utf-8")
        value = _simple_tables(text) or _toml(text)
        package, tree, windows = value["package"], value["tree"], value.get("windows")
        return SourcePin(
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


def _simple_tables(text: str) -> dict[str, Any] | None:
    """Return the tables of a TOML text whose values are plain strings and whole numbers; None if it has anything else.

    A warm start reads the pin, and ``tomllib`` costs it more than all that it reads.
    """
    value: dict[str, Any] = {}
    table = value
    for line in text.split("\n"):
        if match := _HEADER.fullmatch(line):
            if match[1] in value:
                return None
            table = value[match[1]] = {}
        elif match := _PAIR.fullmatch(line):
            if match[1] in table:
                return None
            table[match[1]] = int(match[3]) if match[2] is None else match[2]
        elif not _BLANK.fullmatch(line):
            return None
    return value


def _toml(text: str) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib  # noqa: PLC0415 - not for the pin as the project writes it
    else:
        import tomli as tomllib  # noqa: PLC0415

    value: dict[str, Any] = tomllib.loads(text)
    return value


def _inner(table: dict[str, Any]) -> NestedFile:
    return NestedFile(str(table["path"]), file_digest(table["sha256"]), int(table["size"]))
