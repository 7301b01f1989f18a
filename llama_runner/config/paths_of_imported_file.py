"""Paths of a foreign file: relative ones, those inside a container, and variables of the environment in texts."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath, PureWindowsPath

from llama_runner.core.immutable_values import Value
from llama_runner.store.layout import can_be_path

OPEN, CLOSE = "\ue000", "\ue001"
"""What surrounds the name of an environment variable until the tables are complete; private characters."""


class PathNotTaken(ValueError):
    """A path that this machine does not have, or that no file can have; the message says why."""


class Paths(Value):
    """How to read the paths of a foreign file."""

    base: Path
    """The directory that its relative paths start at."""
    target: Path
    """The directory of the file that is written."""
    volumes: tuple[tuple[str, str], ...] | None = None
    """Directories of a container and those of the host; None where there is no container."""

    def path(self, text: str) -> str:
        """Return a path as the written file has to have it; raises ``PathNotTaken``."""
        if not text.strip() or not can_be_path(text):
            raise PathNotTaken("no file can have this name")
        text = text if self.volumes is None else self._outside(text, self.volumes)
        if is_absolute(text):
            return text
        return text if self.base == self.target else str(self.base / text)

    def source(self, text: str) -> str:
        """Return the path of a model, written so that it is not taken for a name on the Hub."""
        found = self.path(text)
        return found if is_absolute(found) or re.match(r"\.{1,2}[/\\]", found) else f"./{found}"

    def _outside(self, text: str, volumes: tuple[tuple[str, str], ...]) -> str:
        inside = PurePosixPath(text)
        if not inside.is_absolute():
            inside = PurePosixPath("/app") / inside  # the working directory of llama.cpp's images
        for container, host in sorted(volumes, key=lambda pair: len(pair[0]), reverse=True):
            if inside.is_relative_to(container):
                if not _is_host_path(host):
                    raise PathNotTaken(f"{text} is in the volume {host!r}, whose directory only Docker knows")
                rest = inside.relative_to(container)
                return host if rest == PurePosixPath() else f"{host.rstrip('/')}/{rest}"
        raise PathNotTaken(f"{text} is inside the container; no volume has it")


def is_absolute(text: str) -> bool:
    """Return whether a path does not depend on a directory: of POSIX, Windows, the home directory, or a variable."""
    return text.startswith(("/", "~", OPEN, "\\\\")) or bool(PureWindowsPath(text).drive) or "://" in text


def variable(name: str) -> str:
    """Return the mark for an environment variable in a text."""
    return f"{OPEN}{name}{CLOSE}"


def variables_in(value: object) -> list[str]:
    """Return the names of the environment variables that are marked in a value."""
    if isinstance(value, dict):
        return [name for each in value.values() for name in variables_in(each)]
    if isinstance(value, (list, tuple)):
        return [name for each in value for name in variables_in(each)]
    return re.findall(f"{OPEN}([^{CLOSE}]*){CLOSE}", value) if isinstance(value, str) else []


def with_variables(value: object) -> object:
    """Return a value with the marks as ``${NAME}``; other text of that form is escaped as ``$${``."""
    if isinstance(value, dict):
        return {key: with_variables(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [with_variables(each) for each in value]
    if not isinstance(value, str):
        return value
    return value.replace("${", "$${").replace(OPEN, "${").replace(CLOSE, "}")


def _is_host_path(text: str) -> bool:
    return text.startswith((".", "/", "~", OPEN)) or bool(PureWindowsPath(text).drive)
