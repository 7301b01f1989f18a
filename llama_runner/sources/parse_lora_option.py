"""Parses the value of ``--lora``: ``[NAME=]WHERE[:SCALE]``.

WHERE is a GGUF file, a PEFT directory, or a name on the Hub. A text that is an existing path is that path, whatever
characters it has.
"""

from __future__ import annotations

import math
import os
import re
from contextlib import suppress
from pathlib import PurePath
from typing import TYPE_CHECKING

from llama_runner.core.errors import UsageError
from llama_runner.core.immutable_values import Value
from llama_runner.store.layout import user_path

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"
SETTINGS, WEIGHTS = FILES = ("adapter_config.json", "adapter_model.safetensors")
"""Of a PEFT directory."""
VERSIONS = "versions.json"
"""Of the directory of an adapter that is trained here: says which version is the current one."""
_NAMED = re.compile(rf"({NAME})=(.*)", re.DOTALL)
_SCALED = re.compile(r"(.+):([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)", re.DOTALL)
_DRIVE = re.compile(r"[A-Za-z]")
"""What stands before the colon of a Windows path."""


class AdapterOption(Value):
    """One adapter as the user named it."""

    name: str
    """What requests call it."""
    where: str
    """A path, or a name on the Hub."""
    scale: float = 1.0
    """Factor with which it is applied to requests that choose no adapters."""
    is_named: bool = False
    """Whether the user gave the name."""

    @property
    def text(self) -> str:
        """The value that means this."""
        return f"{self.name}={self.where}:{self.scale:.10g}"


def parse_adapter(text: str | os.PathLike[str], base: Path | None = None) -> AdapterOption:
    """Parse one value; ``UsageError``. Relative paths are looked for in ``base``, or in the working directory.

    ``C:`` of a Windows path is neither a name nor a path with a scale.
    """
    whole = os.fspath(text)
    if _exists(whole, base):
        return AdapterOption(_name_of(whole), whole)
    match = _NAMED.fullmatch(whole)
    name, where = (match[1], match[2]) if match else (None, whole)
    scale = 1.0
    if not _exists(where, base) and (match := _SCALED.fullmatch(where)) and not _DRIVE.fullmatch(match[1]):
        where, scale = match[1], float(match[2])
    if not where.strip() or not math.isfinite(scale):
        raise UsageError(f"--lora {whole!r} names no adapter", hint="write --lora [NAME=]PATH[:SCALE]")
    return AdapterOption(name or _name_of(where), where, scale, is_named=name is not None)


def parse_adapters(texts: Iterable[str | os.PathLike[str]]) -> tuple[AdapterOption, ...]:
    """Parse all values of the option. Names that were not given are made different by a number."""
    parsed = [parse_adapter(text) for text in texts]
    taken: set[str] = set()
    for each in parsed:
        if each.is_named and each.name in taken:
            raise UsageError(f"two adapters are called {each.name!r}", hint="give each --lora another NAME=")
        taken |= {each.name} if each.is_named else set()
    found = []
    for each in parsed:
        name, count = each.name, 1
        while not each.is_named and name in taken:
            count += 1
            name = f"{each.name}-{count}"
        taken.add(name)
        found.append(each.replace(name=name))
    return tuple(found)


def adapter_version(where: str) -> tuple[int, ...]:
    """Return what changes when the files of an adapter on this machine are replaced; nothing for other adapters."""
    found: list[int] = []
    path = user_path(where)
    for each in (path, *(path / name for name in (*FILES, VERSIONS))):
        with suppress(OSError, ValueError):
            status = each.stat()
            if each is not path or each.is_file():
                found += [status.st_ino, status.st_size, status.st_mtime_ns]
    return tuple(found)


def is_adapter_name(name: str) -> bool:
    """Return whether an adapter may have a name. Names are put together with ``+``; Ollama adds the tag ``latest``."""
    return re.fullmatch(NAME, name) is not None and name.lower() != "latest"


def is_local(where: str, base: Path | None = None) -> bool:
    """Return whether an adapter is on this machine: a path that is there, or a text that is written like one."""
    if "://" in where:
        return False
    if _exists(where, base) or "\\" in where or where.lower().endswith(".gguf"):
        return True
    if where.startswith(("/", "./", "../", "~")) or where in (".", ".."):
        return True
    from llama_runner.sources.hub.parse_model_name import looks_like_hub_name  # noqa: PLC0415 - few adapters are not here

    return not looks_like_hub_name(where)


def is_bare_name(where: str, base: Path | None = None) -> bool:
    """Return whether a text may name an adapter that was trained in the root: no path is called so."""
    return (
        re.fullmatch(rf"{NAME}(?:@{NAME})?", where) is not None
        and not where.lower().endswith(".gguf")
        and not (_exists(where, base))
    )


def _exists(text: str, base: Path | None) -> bool:
    if not text.strip():
        return False
    with suppress(OSError, ValueError):  # no path can have the name
        path = user_path(text)
        return (path if base is None else base / path).exists()
    return False


def _name_of(where: str) -> str:
    """Return the name of an adapter without one: that of its file or directory."""
    stem = PurePath(where.replace("\\", "/").partition("@")[0] or where).name
    stem = stem[: -len(".gguf")] if stem.lower().endswith(".gguf") else stem
    return re.sub(r"^[^A-Za-z0-9]+|[^A-Za-z0-9._-]+", "-", stem).strip("-.") or "adapter"
