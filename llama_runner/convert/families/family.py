"""What a model family is: a table of defaults, one of tensors, and a few short functions.

All that differs from one architecture to another stands in one `Family`; reading shards, casting, writing and
the vocabularies know nothing of architectures.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from llama_runner.convert.config import Config
    from llama_runner.convert.keyvalues import KeyValues
    from llama_runner.convert.source import Source
    from llama_runner.convert.vocab import Vocabulary


@dataclass(frozen=True)
class Rule:
    """One tensor of the output.

    ``name`` is its GGUF name without ``.weight``/``.bias``, with ``{bid}`` for the block; ``shape`` names its
    dimensions, row-major, each a key of `Family.dimensions`; ``bias`` says whether it may have one, and its
    shape is then the first dimension. ``heads`` names the dimension by which the rows are reordered for
    llama.cpp's RoPE, None to leave them alone.
    """

    name: str
    shape: tuple[str, ...]
    bias: bool = False
    optional: bool = False
    heads: str | None = None


@dataclass(frozen=True)
class Made:
    """A small float32 tensor that the converter computes; it stands before all others."""

    name: str
    values: Sequence[float]


def unchanged(values: dict[str, Any], model_type: str) -> dict[str, Any]:  # noqa: ARG001 - the interface of `derive`
    """Leave the configuration as it is."""
    return values


def nothing_made(config: Config) -> tuple[Made, ...]:  # noqa: ARG001 - the interface of `made`
    """No computed tensors."""
    return ()


@dataclass(frozen=True)
class Family:
    """Everything that is particular to one family of models; ``name`` is llama.cpp's name of it.

    ``defaults`` has the values that transformers fills in, per ``model_type``; ``validated_rope`` names the
    model types whose RoPE scaling it checks; ``derive`` fills in what follows from other values.
    ``rename`` turns a checkpoint's tensor name into the one that gguf's name map knows, or None for a tensor
    that is known and not needed.
    """

    name: str
    defaults: Mapping[str, Mapping[str, Any]]
    rules: tuple[Rule, ...]
    dimensions: Callable[[Config], Mapping[str, int]]
    rename: Callable[[str, Config], str | None]
    hyperparameters: Callable[[KeyValues, Config, Source, int], None]
    vocabulary: Callable[[KeyValues, Config, Source], Vocabulary]
    validated_rope: frozenset[str] = frozenset()
    derive: Callable[[dict[str, Any], str], dict[str, Any]] = unchanged
    made: Callable[[Config], tuple[Made, ...]] = nothing_made
    float32: frozenset[str] = field(default=frozenset())
