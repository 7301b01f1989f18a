"""Plans the tensors of the output: name, shape, type and sources. Everything is checked before weights are read.

`tensor_types` has the rules for their types, `families` the tensors of each architecture.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from llama_runner.convert.dequantize import EncodedTensor
from llama_runner.convert.errors import (
    BadHyperparameter,
    duplicate_tensor_error,
    missing_tensors_error,
    unknown_tensors_error,
    unsupported_dtype_error,
    wrong_shape_error,
)
from llama_runner.convert.select_tensor_rows import for_rope
from llama_runner.convert.tensor_types import BLOCKS, ITEM_BYTES, MATRIX, tensor_type

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Protocol

    from llama_runner.convert.families.family_definition import Family, Rule
    from llama_runner.convert.model_config import Config
    from llama_runner.convert.safetensors import Tensor
    from llama_runner.convert.select_tensor_rows import Rows

    class _NameMap(Protocol):
        def get_name(self, key: str, try_suffixes: Sequence[str]) -> str | None: ...


SUFFIXES = (".weight", ".bias")
BLOCK = re.compile(r"^blk\.(\d+)\.")
NUMBER = re.compile(r"(?<=\.)(\d+)(?=\.)")
STACK = 3  # dimensions of a stack of matrices


@dataclass(frozen=True)
class TensorPart:
    """Stored tensor, or rows and columns of it, from which a tensor of the output is made.

    ``width`` is the number of elements of one row, 1 for vectors; the other fields are as in `Rule`.
    """

    source: Tensor
    width: int = 1
    rows: Rows | None = None
    columns: slice | None = None
    order: Rows | None = None
    transposed: bool = False
    shift: float = 0.0
    decay: bool = False


@dataclass(frozen=True)
class PlannedTensor:
    """Tensor of the output: the concatenation of its ``pieces``, or ``values``, followed by ``zeros``.

    ``shape`` is row-major, ``dtype`` one of F32, F16, BF16, Q8_0, MXFP4; ``zeros`` is a number of elements.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    pieces: tuple[TensorPart, ...] = ()
    values: Sequence[float] = ()
    zeros: int = 0

    @property
    def elements(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes in the output, without padding."""
        elements, size = BLOCKS[self.dtype]
        return self.elements // elements * size


@dataclass(frozen=True)
class _Expected:
    """Tensor that the output may have; ``stored`` is the shape of each of its ``parts``."""

    rule: Rule
    shape: tuple[int, ...]
    stored: tuple[int, ...]
    rows: tuple[Rows | None, ...]
    parts: int


def plan(family: Family, config: Config, tensors: Sequence[Tensor], outtype: str) -> tuple[PlannedTensor, ...]:
    """Match every tensor of the checkpoint with a rule of the family, and every rule with a tensor."""
    kept = [(tensor, name) for tensor in tensors if (name := family.rename(tensor.name, config)) is not None]
    sizes = family.dimensions(config)
    if sizes["blocks"] > len(kept):
        raise BadHyperparameter("num_hidden_layers", f"is {sizes['blocks']}, the weights are only {len(kept)} tensors")
    matching = _TensorMatcher(family, config, sizes, outtype)
    planned = [PlannedTensor(made.name, (len(made.values),), "F32", values=made.values) for made in family.made(config)]
    for tensor, name in kept:
        planned.extend(matching.take(tensor, name))
    matching.check()
    return tuple(planned)


class _TensorMatcher:
    """Matches stored tensors with the tensors that the output may have."""

    def __init__(self, family: Family, config: Config, sizes: Mapping[str, int], outtype: str) -> None:
        self.family, self.config, self.sizes, self.outtype = family, config, sizes, outtype
        self.names = name_map(family.name, sizes["blocks"])
        self.together = {name: group for group in family.stacks for name in group}
        self.expected = dict(self._expect())
        self.found: dict[str, dict[int, Tensor]] = {}
        self.unknown: list[str] = []

    def take(self, tensor: Tensor, name: str) -> Iterator[PlannedTensor]:
        """Yield the tensors of the output that this one completes; ``name`` is the renamed one."""
        targets, number = self._targets(name)
        if not targets or not all(self._fits(target, number) for target in targets):
            self.unknown.append(tensor.name)
            return
        for target in targets:
            expected = self.expected[target]
            parts = self.found.setdefault(target, {})
            place = number or 0
            if place in parts:
                raise duplicate_tensor_error(target, (parts[place].path.name, tensor.path.name))
            if tensor.shape != expected.stored:
                raise wrong_shape_error(tensor.name, found=tensor.shape, expected=expected.stored)
            if tensor.dtype not in ITEM_BYTES and not isinstance(tensor, EncodedTensor):
                raise unsupported_dtype_error(tensor.name, tensor.dtype)
            parts[place] = tensor
        group = self._group(targets[0]) if number is not None else targets
        if all(len(self.found.get(target, ())) == self.expected[target].parts for target in group):
            yield from (self._planned(target) for target in group)

    def check(self) -> None:
        """Raise for unknown tensors and for missing ones."""
        if self.unknown:
            raise unknown_tensors_error(self.unknown, self.family.name)
        if missing := list(self._missing()):
            raise missing_tensors_error(missing)

    def _targets(self, name: str) -> tuple[tuple[str, ...], int | None]:
        """Return the output names of a tensor, and its number if it is one of a stack."""
        number = None
        numbers = list(NUMBER.finditer(name)) if self.family.stacks else []
        if len(numbers) == 2:  # noqa: PLR2004 - the block's and its own
            number = int(numbers[1][0])
            name = name[: numbers[1].start() - 1] + name[numbers[1].end() :]
        if self.family.targets:
            suffix = next((suffix for suffix in SUFFIXES if name.endswith(suffix)), "")
            first = NUMBER.search(name)
            block = first[0] if first else ""
            general = NUMBER.sub("{bid}", name, count=1).removesuffix(suffix)
            if general in self.family.targets:
                every = (target.format(bid=block) for target in self.family.targets[general])
                named = (f"{target}{suffix or '.weight'}" for target in every)
                return tuple(name for name in named if name in self.expected), number
        target = self.names.get_name(key=name, try_suffixes=SUFFIXES)
        return ((target,) if target else ()), number

    def _fits(self, target: str, number: int | None) -> bool:
        expected = self.expected.get(target)
        if expected is None:
            return False
        return (number is None) == (expected.rule.name not in self.together) and (number or 0) < expected.parts

    def _group(self, target: str) -> tuple[str, ...]:
        """Return the targets that are written together with this one."""
        block, suffix = BLOCK.match(target), target[target.rindex(".") :]
        bid = block[1] if block else ""
        group = (f"{name.format(bid=bid)}{suffix}" for name in self.together[self.expected[target].rule.name])
        return tuple(name for name in group if name in self.expected)

    def _planned(self, target: str) -> PlannedTensor:
        expected = self.expected[target]
        rule = expected.rule
        matrix = target.endswith(".weight") and len(expected.stored) >= MATRIX
        pieces = (
            TensorPart(
                tensor,
                width=tensor.shape[-1] if matrix else 1,
                rows=rows,
                columns=rule.columns if matrix else None,
                order=rule.order(self.sizes) if rule.order and matrix else None,
                transposed=rule.transposed and matrix,
                shift=rule.shift if target.endswith(".weight") else 0.0,
                decay=rule.decay and not target.endswith(".bias"),
            )
            for _, tensor in sorted(self.found[target].items())
            for rows in expected.rows
        )
        quantized = next((part.dtype for part in self.found[target].values() if part.dtype not in ITEM_BYTES), None)
        dtype = quantized or tensor_type(target, expected.shape, self.outtype)
        if rule.written_as is not None and matrix:
            dtype = rule.written_as[self.outtype != "f16"]
        name = rule.full_name if rule.full_name and target.endswith(".weight") else target
        zeros = prod(expected.shape) - prod(expected.stored) if rule.padded else 0
        return PlannedTensor(name, expected.shape, dtype, tuple(pieces), zeros=zeros)

    def _expect(self) -> Iterator[tuple[str, _Expected]]:
        for rule in self.family.rules:
            shape = tuple(self.sizes[name] for name in rule.shape)
            stacked = rule.name in self.together
            stored = tuple(self.sizes[name] for name in rule.stored) if rule.stored else shape[stacked:]
            if rule.transposed and not rule.stored:
                stored = (*stored[:-2], stored[-1], stored[-2])
            chosen = rule.rows(self.sizes) if rule.rows else None
            if rule.heads:
                chosen = for_rope(stored[0], self.sizes[rule.heads])
            rows = chosen if isinstance(chosen, tuple) else (chosen,)
            parts = shape[0] if stacked else 1
            row = shape[stacked:]
            stored_bias = _bias(row) if rule.transposed else stored[: len(_bias(row))]
            for name in self._blocks(rule):
                yield f"{name}{rule.suffixes[0]}", _Expected(rule, shape, stored, rows, parts)
                if ".bias" in rule.suffixes:
                    yield f"{name}.bias", _Expected(rule, _bias(shape), stored_bias, rows, parts)

    def _blocks(self, rule: Rule) -> Iterator[str]:
        if "{bid}" not in rule.name:
            yield rule.name
            return
        for block in range(self.sizes["blocks"]):
            if rule.where(self.config, block):
                yield rule.name.format(bid=block)

    def _missing(self) -> Iterator[str]:
        bare = self.config.architecture.endswith("Model")
        headless = self.config.find("tie_word_embeddings") is not False or bare
        for rule in self.family.rules:
            weight = not rule.optional or (rule.name == "output" and not headless)
            for suffix in rule.suffixes:
                targets = [f"{name}{suffix}" for name in self._blocks(rule)]
                # an optional tensor is in all blocks or in none
                needed = rule.needs_bias if suffix == ".bias" else weight
                everywhere = needed or any(target in self.found for target in targets)
                yield from (absent for target in targets if (absent := self._absent(target, needed=everywhere)))
        labels = [f"{rule.name}.weight" for rule in self.family.rules if rule.shape[0] == "labels"]
        if self.config.architecture.endswith("ForSequenceClassification") and not self.found.keys() & labels:
            yield from labels[-1:]

    def _absent(self, target: str, *, needed: bool) -> str | None:
        found, parts = self.found.get(target, {}), self.expected[target].parts
        if not found:
            return target if needed else None
        number = next((number for number in range(parts) if number not in found), None)
        return None if number is None else f"{target} (number {number} of {parts})"


def name_map(family: str, blocks: int) -> _NameMap:
    """Return gguf's map of the tensor names of an architecture with that many blocks."""
    import gguf  # noqa: PLC0415 - numpy comes with it

    architecture = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == family)
    names: _NameMap = gguf.get_tensor_name_map(architecture, blocks)
    return names


def _bias(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of the bias; that of a convolution over images is a vector."""
    return shape[:1] if len(shape) > STACK else shape[: max(1, len(shape) - 1)]
