"""What a model family is: a table of defaults, one of tensors, and a few short functions.

All that differs from one architecture to another stands in one `Family`; reading shards, casting, writing and
the vocabularies know nothing of architectures.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from llama_runner.convert.gguf_metadata import KeyValues
    from llama_runner.convert.model_config import Config
    from llama_runner.convert.model_directory import Source
    from llama_runner.convert.safetensors import Tensor
    from llama_runner.convert.tensor_rows import Rows
    from llama_runner.convert.vocab import Vocabulary

    Sizes = Mapping[str, int]


def everywhere(config: Config, block: int) -> bool:  # noqa: ARG001 - the interface of `Rule.where`
    """Every block has it."""
    return True


@dataclass(frozen=True)
class Rule:
    """One tensor of the output.

    ``name`` is its GGUF name without ``.weight``/``.bias``, with ``{bid}`` for the block; ``shape`` names its
    dimensions, row-major, each a key of `Family.dimensions`; ``bias`` says whether it may have one, ``needs_bias``
    that it must, and the bias has all dimensions but the last. ``where`` says which blocks have it.

    The rest says how the stored tensor becomes this one, in this order: ``stored`` is its shape, where it is another;
    ``rows`` are taken of it, or several such choices one after the other (``heads`` is short for: the rows of that many
    heads are reordered for llama.cpp's RoPE);
    every ``columns`` is taken; it is ``transposed``; ``shift`` is added.
    """

    name: str
    shape: tuple[str, ...]
    bias: bool = False
    optional: bool = False
    heads: str | None = None
    needs_bias: bool = False
    where: Callable[[Config, int], bool] = everywhere
    stored: tuple[str, ...] | None = None
    rows: Callable[[Sizes], Rows | tuple[Rows, ...]] | None = None
    columns: slice | None = None
    transposed: bool = False
    shift: float = 0.0


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


def as_stored(tensors: Sequence[Tensor]) -> Sequence[Tensor]:
    """Every tensor is stored as one."""
    return tensors


def nothing_early(values: KeyValues, config: Config) -> None:
    """No metadata that the official script writes while it makes the tensors, and so before the model's name."""


@dataclass(frozen=True)
class Family:
    """Everything that is particular to one family of models; ``name`` is llama.cpp's name of it.

    ``defaults`` has the values that transformers fills in, per ``model_type``, and none for a type that it does not
    know; ``validated_rope`` names the model types whose RoPE scaling it checks, ``new_rope`` those of them that have to
    say ``rope_type`` rather than ``type``; ``scaling`` does it for a type with rules of its own, and returns None where
    transformers refuses the file. ``derive`` fills in what follows from other values. ``rename`` turns a checkpoint's
    tensor name into the one that gguf's name map knows, or None for a tensor that is known and not needed.

    ``targets`` has, for names that gguf's map does not know or that become several tensors, the rules they serve, in
    the order of the output; ``{bid}`` stands for the first number. ``stacks`` are the rules whose first dimension is
    stacked from numbered tensors (``experts.N.``); those named together are written together, once the last is there.
    ``combine`` makes tensors of those that are stored in several or on their side, where that is the architecture's
    own; ``early`` writes metadata that stands before all other. ``composite`` is the ``model_type`` of a whole that has
    other parts, too: this one is what its ``text_config`` describes, and ``rename`` leaves out the others.
    ``variant`` is asked where an architecture of config.json is one of several in GGUF, and gives that of this model.
    """

    name: str
    defaults: Mapping[str, Mapping[str, Any]]
    rules: tuple[Rule, ...]
    dimensions: Callable[[Config], Mapping[str, int]]
    rename: Callable[[str, Config], str | None]
    hyperparameters: Callable[[KeyValues, Config, Source, int], None]
    vocabulary: Callable[[KeyValues, Config, Source], Vocabulary]
    validated_rope: frozenset[str] = frozenset()
    new_rope: frozenset[str] = frozenset()
    scaling: Callable[[Mapping[str, Any], dict[str, Any]], dict[str, Any] | None] | None = None
    derive: Callable[[dict[str, Any], str], dict[str, Any]] = unchanged
    made: Callable[[Config], tuple[Made, ...]] = nothing_made
    combine: Callable[[Sequence[Tensor]], Sequence[Tensor]] = as_stored
    early: Callable[[KeyValues, Config], None] = nothing_early
    composite: str | None = None
    variant: Callable[[Config], Family] | None = None
    targets: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    stacks: tuple[tuple[str, ...], ...] = ()
