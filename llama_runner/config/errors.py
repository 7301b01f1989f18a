"""Errors about the configuration file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llama_runner.core.errors import ToolError, UsageError
from llama_runner.core.immutable_values import Value

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

_BARE = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")


class Mistake(Value):
    """One mistake in a configuration file."""

    path: Path
    line: int | None
    """Counted from 1; None where no line can be named."""
    key: str
    """The key with its tables, as TOML writes it; empty for a mistake of the whole file."""
    text: str
    """What was expected, and what is there."""
    hint: str | None = None

    def __str__(self) -> str:
        where = f"{self.path}:{self.line}" if self.line else str(self.path)
        return f"{where}: {self.key + ': ' if self.key else ''}{self.text}"

    def to_json(self) -> dict[str, object]:
        """Return the JSON form."""
        return {"file": str(self.path), **{name: getattr(self, name) for name in ("line", "key", "text", "hint")}}


class ConfigError(UsageError):
    """The configuration file has mistakes, which ``mistakes`` lists; the message is about the first."""

    def __init__(self, mistakes: Sequence[Mistake]) -> None:
        self.mistakes = tuple(mistakes)
        first, more = mistakes[0], len(mistakes) - 1
        check = f"llama-runner config check shows {more} more mistake{'s' * (more > 1)}" if more else None
        super().__init__(str(first), hint="; ".join(filter(None, (first.hint, check))) or None)


def dotted(keys: Iterable[str]) -> str:
    """Return a key with its tables as TOML writes it: ``models."qwen:8b".port``."""
    return ".".join(key if key and _BARE.issuperset(key) else _quoted(key) for key in keys)


def _quoted(key: str) -> str:
    text = key.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that is most like another one; None if none is."""
    from difflib import get_close_matches  # noqa: PLC0415 - only for mistakes

    names = list(known)
    near = get_close_matches(name.casefold(), [each.casefold() for each in names], 1)
    return next((each for each in names if each.casefold() == near[0]), None) if near else None


def did_you_mean(name: str, known: Iterable[str]) -> str | None:
    """Return the hint with the nearest known name; None if none is near."""
    near = nearest(name, known)
    return f"did you mean {near}?" if near else None


def no_such_config_error(path: Path) -> UsageError:
    """Return the error for a configuration file that does not exist."""
    return UsageError(f"{path} does not exist", hint="llama-runner config init writes one")


def no_config_error() -> UsageError:
    """Return the error for a command that needs a configuration file, where there is none."""
    hint = "llama-runner config init writes llama-runner.toml; --config names one that is elsewhere"
    return UsageError("there is no configuration file", hint=hint)


def no_models_error(path: Path) -> UsageError:
    """Return the error for a configuration file without models."""
    return UsageError(f"{path} declares no model", hint='add one: [models.NAME] with source = "ORG/MODEL"')


def unknown_model_error(name: str, path: Path, known: Sequence[str]) -> UsageError:
    """Return the error for a name that the file does not declare."""
    declared = f"{path} declares {', '.join(known[:8]) or 'no model'}" + ("…" if len(known) > 8 else "")  # noqa: PLR2004
    return UsageError(f"no model called {name!r} in {path}", hint=did_you_mean(name, known) or declared)


def no_gateway_error(module: str | None) -> ToolError:
    """Return the error where the libraries of the gateway are not installed."""
    return ToolError(f"the gateway needs {module}", hint="pip install 'llama-runner[gateway]'")
