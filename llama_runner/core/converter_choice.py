"""The choice of the converter: the native one of this package, or llama.cpp's official script."""

from __future__ import annotations

from typing import Literal

from llama_runner.core.files_of_model_directory import READ_BY_CONVERSION
from llama_runner.core.immutable_values import Value

Converter = Literal["auto", "native", "official"]
"""The value of ``--converter``; ``auto`` selects ``native`` for a supported architecture, else ``official``."""


class ConverterChoice(Value):
    """The converter of a model; ``why`` is a clause that gives the reason for the official script."""

    official: bool
    architecture: str
    why: str = ""
    context_length: int | None = None
    reads: tuple[str, ...] = READ_BY_CONVERSION
    """Patterns of the files that the converter may read."""
    native_projector: bool = False
    """Whether the native converter makes the projector, where one is requested."""
    revision: int = 0
    """Number of corrections of the native converter that concern the model; see ``convert.converter_corrections``."""
