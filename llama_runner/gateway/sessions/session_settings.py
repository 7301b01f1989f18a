"""What the configuration says of the sessions of a model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llama_runner.core.immutable_values import Value

QUOTA = 10 << 30
IDLE_S = 30.0


class SessionSettings(Value):
    """The table ``sessions`` of a model."""

    quota: int = QUOTA
    """Bytes of its states on disk."""
    idle: float = IDLE_S
    """Seconds without a request after which a session is saved."""
    directory: Path | None = None
    """None: the default below the root."""
    encryption_key: Path | None = None
    """File with the key; None: files are not encrypted."""


def settings_of(value: bool | Mapping[str, Any] | None) -> SessionSettings | None:
    """Return the settings that ``sessions`` of a model stands for; None where it keeps none."""
    if not isinstance(value, Mapping):
        return SessionSettings() if value else None
    given: dict[str, Any] = {name: each for name, each in value.items() if each is not None}
    given |= {name: Path(given[name]) for name in ("directory", "encryption_key") if name in given}
    return SessionSettings(**given)
