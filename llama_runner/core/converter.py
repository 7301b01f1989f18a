"""Who converts a model: this package or llama.cpp's own script."""

from __future__ import annotations

from typing import Literal

from llama_runner.core.model_files import READ_BY_CONVERSION
from llama_runner.core.value import Value

Converter = Literal["auto", "native", "official"]
"""What the user asks for; ``auto``: native where the architecture is known."""


class ConverterChoice(Value):
    """Who converts a model; ``why`` is a clause where it is the official script."""

    official: bool
    architecture: str
    why: str = ""
    context_length: int | None = None
    reads: tuple[str, ...] = READ_BY_CONVERSION
    """Patterns of the files that the conversion may read."""
    revision: int = 0
    """How many corrections of our own conversion concern the model; see ``convert.revisions``."""
