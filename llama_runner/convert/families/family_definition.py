"""Defines a model family: defaults, rules for tensors, and a few short functions.

Everything that differs between architectures is in one `Family`; the other modules of ``convert`` are independent of
architectures.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from llama_runner.convert.gguf_metadata import KeyValues
    from llama_runner.convert.model_config import Config
    from llama_runner.convert.model_directory import ModelDirectory
    from llama_runner.convert.safetensors import Tensor
    from llama_runner.convert.select_tensor_rows import Rows
    from llama_runner.convert.vocab import Vocabulary

    Sizes = Mapping[str, int]


def every_block(config: Config, block: int) -> bool:  # noqa: ARG001 - the interface of `Rule.where`
    """Return true: every block has the tensor."""
    return True


@dataclass(frozen=True)
class Rule:
    """Rule for one tensor of the output, per block if its name has ``{bid}``.

    A stored tensor is processed in the order ``rows``, ``columns`` or ``order``, ``transposed``, ``decay``, ``shift``.
    """

    name: str
    """GGUF name without ``.weight`` and ``.bias``; ``{bid}`` is the block's number."""
    shape: tuple[str, ...]
    """Dimensions of the output, row-major, as keys of `Family.dimensions`. A bias has all but the last."""
    bias: bool = False
    """Whether the tensor may have a bias."""
    optional: bool = False
    """Whether the tensor may be missing in all blocks."""
    heads: str | None = None
    """Key of the number of heads whose rows are reordered for llama.cpp's RoPE; takes the place of ``rows``."""
    needs_bias: bool = False
    """Whether the tensor must have a bias."""
    where: Callable[[Config, int], bool] = every_block
    """Whether a block has the tensor."""
    stored: tuple[str, ...] | None = None
    """Dimensions of the stored tensor; None if they are those of ``shape``."""
    rows: Callable[[Sizes], Rows | tuple[Rows, ...]] | None = None
    """Rows of the stored tensor to take; the rows of several selections are concatenated."""
    columns: slice | None = None
    """Columns to take, such as every other one."""
    order: Callable[[Sizes], Rows] | None = None
    """Columns of the stored tensor in the order of the output; takes the place of ``columns``."""
    transposed: bool = False
    """Whether the matrix is transposed."""
    shift: float = 0.0
    """Number to add to every element."""
    padded: bool = False
    """Whether rows of zeros follow where fewer rows are stored than the output has."""
    bare: bool = False
    """Whether the name in GGUF has no suffix."""
    decay: bool = False
    """Whether every element is replaced by minus its exponential."""
    written_as: tuple[str, str] | None = None
    """Types of the matrix in a file of f16 and in any other; None if they follow from the rules of text models."""
    full_name: str | None = None
    """Name of the weight in the file if it does not end with ``.weight``."""

    @property
    def suffixes(self) -> tuple[str, ...]:
        """What follows the name in GGUF."""
        if self.bare:
            return ("",)
        return (".weight", ".bias") if self.bias or self.needs_bias else (".weight",)


@dataclass(frozen=True)
class ComputedTensor:
    """Small float32 tensor that the converter computes; it precedes all others."""

    name: str
    values: Sequence[float]


def unchanged(values: dict[str, Any], model_type: str) -> dict[str, Any]:  # noqa: ARG001 - the interface of `derive`
    """Return the configuration unchanged."""
    return values


def no_computed_tensors(config: Config) -> tuple[ComputedTensor, ...]:  # noqa: ARG001 - the interface of `made`
    """Return no computed tensors."""
    return ()


def as_stored(tensors: Sequence[Tensor]) -> Sequence[Tensor]:
    """Return the tensors unchanged."""
    return tensors


def as_configured(config: Config, tensors: Sequence[Tensor]) -> Config:  # noqa: ARG001 - the interface of `completed`
    """Return the configuration unchanged."""
    return config


def no_early_metadata(values: KeyValues, config: Config) -> None:
    """Write no early metadata (which the official script writes with the tensors, before the model's name)."""


@dataclass(frozen=True)
class Family:
    """Everything that is specific to one family of models."""

    name: str
    """llama.cpp's name of the architecture."""
    defaults: Mapping[str, Mapping[str, Any]]
    """Values that transformers fills in, per ``model_type``; a type unknown to transformers has none."""
    rules: tuple[Rule, ...]
    """Rules for the tensors of the output."""
    dimensions: Callable[[Config], Mapping[str, int]]
    """Returns the sizes that the shapes of the rules name."""
    rename: Callable[[str, Config], str | None]
    """Returns the name that gguf's name map has for a stored tensor, None for a tensor that is not needed."""
    hyperparameters: Callable[[KeyValues, Config, ModelDirectory, int], None]
    """Writes the hyperparameters; the number is llama.cpp's file type."""
    vocabulary: Callable[[KeyValues, Config, ModelDirectory], Vocabulary]
    """Writes the tokenizer's metadata."""
    validated_rope: frozenset[str] = frozenset()
    """Model types whose RoPE scaling transformers validates."""
    new_rope: frozenset[str] = frozenset()
    """Model types of ``validated_rope`` that must use ``rope_type`` instead of ``type``."""
    scaling: Callable[[Mapping[str, Any], dict[str, Any]], dict[str, Any] | None] | None = None
    """Validates RoPE scaling with rules of its own; returns None where transformers refuses the file."""
    derive: Callable[[dict[str, Any], str], dict[str, Any]] = unchanged
    """Fills in values that follow from others."""
    made: Callable[[Config], tuple[ComputedTensor, ...]] = no_computed_tensors
    """Returns tensors that are computed from the configuration."""
    completed: Callable[[Config, Sequence[Tensor]], Config] = as_configured
    """Returns the configuration with what only the stored tensors tell."""
    combine: Callable[[Sequence[Tensor]], Sequence[Tensor]] = as_stored
    """Combines tensors that the architecture stores in several parts or transposed."""
    early: Callable[[KeyValues, Config], None] = no_early_metadata
    """Writes metadata that precedes all other."""
    composite: str | None = None
    """``model_type`` of a composite model whose ``text_config`` is of this family; ``rename`` drops the other parts."""
    variant: Callable[[Config], Family] | None = None
    """Returns the family of this model if one architecture of config.json is several in GGUF."""
    targets: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Rules by stored name, for names that gguf's map lacks or that become several tensors, in the order of the output.

    ``{bid}`` stands for the first number of the name.
    """
    stacks: tuple[tuple[str, ...], ...] = ()
    """Rules whose first dimension stacks numbered tensors (``experts.N.``), in groups that are written together."""
