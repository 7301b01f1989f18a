"""Plans the tensors of the output: name, shape, type and where the data comes from, all checked before any is read.

Knows llama.cpp's rules on which tensor is stored in which type; what a family's tensors are, the family says.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from llama_runner.convert.errors import (
    BadHyperparameter,
    DuplicateTensor,
    MissingTensors,
    UnknownTensors,
    UnsupportedDtype,
    WrongShape,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from typing import Protocol

    from llama_runner.convert.config import Config
    from llama_runner.convert.families.family import Family, Rule
    from llama_runner.convert.safetensors import Tensor

    class _NameMap(Protocol):
        def get_name(self, key: str, try_suffixes: Sequence[str]) -> str | None: ...


ITEM_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
FILE_TYPES = {"f32": 0, "f16": 1, "bf16": 32}  # llama.cpp's LlamaFileType
BLOCK = re.compile(r"^blk\.(\d+)\.")
MATRIX = 2  # dimensions from which on a tensor is stored in 16 bits


@dataclass(frozen=True)
class Planned:
    """One tensor of the output; ``source`` is read for it, or ``values`` are written as they are.

    ``shape`` is row-major, ``dtype`` one of F32, F16, BF16; the rows of ``heads`` heads are reordered, 0 for none.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    source: Tensor | None = None
    values: Sequence[float] = ()
    heads: int = 0

    @property
    def elements(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes in the output, without padding."""
        return self.elements * ITEM_BYTES[self.dtype]


def guess_outtype(tensors: Iterable[Tensor]) -> str:
    """The type of the first 16-bit matrix, else f16: what ``--outtype auto`` decides."""
    known = {"BF16": "bf16", "F16": "f16"}
    return next((known[t.dtype] for t in tensors if len(t.shape) >= MATRIX and t.dtype in known), "f16")


def plan(family: Family, config: Config, tensors: Sequence[Tensor], outtype: str) -> tuple[Planned, ...]:
    """Match every tensor of the checkpoint with a rule of the family, and every rule with a tensor."""
    kept = [(tensor, name) for tensor in tensors if (name := family.rename(tensor.name, config)) is not None]
    sizes = family.dimensions(config)
    if sizes["blocks"] > len(kept):
        raise BadHyperparameter("num_hidden_layers", f"is {sizes['blocks']}, the weights are only {len(kept)} tensors")
    expected = dict(_expected(family.rules, sizes))
    named = _name_map(family.name, sizes["blocks"])
    planned = [Planned(made.name, (len(made.values),), "F32", values=made.values) for made in family.made(config)]
    taken: dict[str, Tensor] = {}
    unknown = []
    for tensor, name in kept:
        target = named.get_name(key=name, try_suffixes=(".weight", ".bias"))
        if target not in expected:
            unknown.append(tensor.name)
            continue
        if target in taken:
            raise DuplicateTensor(target, (taken[target].path.name, tensor.path.name))
        taken[target] = tensor
        shape, heads = expected[target]
        if tensor.shape != shape:
            raise WrongShape(tensor.name, found=tensor.shape, expected=shape)
        if tensor.dtype not in ITEM_BYTES:
            raise UnsupportedDtype(tensor.name, tensor.dtype)
        planned.append(Planned(target, shape, _stored(family, target, shape, outtype), tensor, heads=heads))
    if unknown:
        raise UnknownTensors(unknown, family.name)
    if missing := [name for name in _required(family.rules, sizes, config) if name not in taken]:
        raise MissingTensors(missing)
    return tuple(planned)


def _name_map(family: str, blocks: int) -> _NameMap:
    import gguf  # noqa: PLC0415 - numpy comes with it

    architecture = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == family)
    names: _NameMap = gguf.get_tensor_name_map(architecture, blocks)
    return names


def _blocks(rule: Rule, sizes: Mapping[str, int]) -> Iterator[str]:
    if "{bid}" not in rule.name:
        yield rule.name
    else:
        yield from (rule.name.format(bid=number) for number in range(sizes["blocks"]))


def _expected(rules: Iterable[Rule], sizes: Mapping[str, int]) -> Iterator[tuple[str, tuple[tuple[int, ...], int]]]:
    """Name, shape and heads of every tensor that the output may have."""
    for rule in rules:
        shape = tuple(sizes[name] for name in rule.shape)
        heads = sizes[rule.heads] if rule.heads else 0
        for name in _blocks(rule, sizes):
            yield f"{name}.weight", (shape, heads)
            if rule.bias:
                yield f"{name}.bias", (shape[:1], heads)


def _required(rules: Iterable[Rule], sizes: Mapping[str, int], config: Config) -> Iterator[str]:
    for rule in rules:
        if not rule.optional or (rule.name == "output" and not config.tied):
            yield from (f"{name}.weight" for name in _blocks(rule, sizes))


def _stored(family: Family, name: str, shape: tuple[int, ...], outtype: str) -> str:
    """Vectors, norms and what llama.cpp wants to be exact stay in 32 bits, matrices take the chosen type."""
    plain = BLOCK.sub("", name).removesuffix(".weight")
    matrix = len(shape) >= MATRIX and name.endswith(".weight") and not name.endswith("_norm.weight")
    return outtype.upper() if matrix and plain not in family.float32 else "F32"
