"""The built-in presets."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llama_runner.config.model import Settings

PRESETS: dict[str, Settings] = {}
