"""Configuration files for tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from llama_runner.config.config import Config
from llama_runner.config.errors import ConfigError, Mistake
from llama_runner.config.find import FILE_NAME

Write = Callable[..., Path]


def write_in(directory: Path) -> Write:
    """Return a function that writes a configuration file, or another file, into a directory."""

    def write(text: str | bytes, name: str = FILE_NAME) -> Path:
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def mistakes(path: Path, environment: dict[str, str] | None = None) -> list[Mistake]:
    """Return the mistakes of a file."""
    with pytest.raises(ConfigError) as caught:
        Config.load(path, environment=environment or {})
    assert caught.value.code == 2
    return list(caught.value.mistakes)


def told(path: Path, environment: dict[str, str] | None = None) -> list[tuple[int | None, str, str, str | None]]:
    """Return line, key, text and hint of each mistake of a file."""
    return [(each.line, each.key, each.text, each.hint) for each in mistakes(path, environment)]
