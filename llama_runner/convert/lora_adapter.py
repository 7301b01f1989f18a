"""Converts LoRA adapters of PEFT to GGUF without torch; byte-identical to llama.cpp's convert_lora_to_gguf.py.

Of the base model only its architecture and its numbers of heads count: from its config.json, or from the header of its
GGUF file. Everything is written in 32 bits, as the script does by default. See ``adapter_formats`` for what is not
converted here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING, Any

from llama_runner.convert import general_metadata, gguf_writer, safetensors
from llama_runner.convert.adapter_formats import ADAPTER, SETTINGS, AdapterBase
from llama_runner.convert.errors import BadHyperparameter, BrokenShard, reading, shown
from llama_runner.convert.gguf_metadata import KeyValues
from llama_runner.convert.model_directory import ModelDirectory
from llama_runner.convert.select_tensor_rows import for_rope
from llama_runner.convert.tensor_plan import SUFFIXES, PlannedTensor, TensorPart, name_map
from llama_runner.convert.tensor_types import ITEM_BYTES
from llama_runner.core.errors import SourceError
from llama_runner.system.hashing import hasher_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from llama_runner.convert.safetensors import Tensor
    from llama_runner.core.digest import Digest, Hasher

_PREFIX = "base_model.model."
_MARKS = ((".lora_A.weight", "a"), (".lora_B.weight", "b"), (".lora_embedding_A", "a"), (".lora_embedding_B", "b"))
_MATRIX = 2
_SHOWN = 5
_LARGEST = 3.4e38
"""Numbers of 32 bits are not greater."""


def unknown_tensors_error(directory: Path, names: list[str]) -> SourceError:
    """Return the error for tensors that llama.cpp has no adapters for."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return SourceError(
        f"{directory}: an adapter of these tensors cannot be converted: {', '.join(names[:_SHOWN])}{more}",
        hint="llama.cpp applies LoRA to matrices of the model; train without modules_to_save, DoRA and biases",
    )


@dataclass
class _Pair:
    parts: dict[str, Tensor] = field(default_factory=dict)


def convert_adapter(
    directory: Path,
    destination: Path,
    *,
    name: str,
    base: AdapterBase,
    new_hasher: Callable[[int], Hasher] = hasher_for,
    on_progress: Callable[[int, int], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Digest:
    """Write the adapter in a PEFT directory as a GGUF file and return its digest.

    ``name`` is the directory's name for the metadata; ``new_hasher`` is as in `gguf_writer.write`. Raises a
    ``SourceError`` for a bad source.
    """
    source = ModelDirectory(directory)
    settings = source.object(SETTINGS, purpose="the adapter's settings")
    with reading(source.path(ADAPTER)):
        shard = safetensors.read_shard(source.path(ADAPTER))
    stored = tuple(sorted(shard.tensors, key=lambda tensor: tensor.offset))
    planned = tuple(_planned(directory, stored, base))
    if not planned:
        raise BrokenShard(source.path(ADAPTER), "it has no tensors")
    values = KeyValues(base.architecture)
    total = sum(prod(each.shape) for each in _whole_matrices(planned))
    parameters = general_metadata.Parameters(-total, total, 0, 0)  # negative: the size of the model is not known by it
    general_metadata.write(values, source, name=name, parameters=parameters, kind="adapter")
    values.float32("adapter.lora.alpha", _alpha(settings))
    if tokens := settings.get("alora_invocation_tokens"):
        values.unsigned("adapter.alora.invocation_tokens", tokens)
    values.uint32("general.quantization_version", 2)
    start = gguf_writer.encode_header(values, planned)
    written = gguf_writer.write(
        destination, start, planned, [shard], new_hasher=new_hasher, on_progress=on_progress, cancelled=cancelled
    )
    return written.digest


def _alpha(settings: dict[str, Any]) -> float:
    alpha = settings.get("lora_alpha")
    if isinstance(alpha, bool) or not isinstance(alpha, (int, float)) or not abs(alpha) <= _LARGEST:
        raise BadHyperparameter("lora_alpha", f"is {shown(alpha)}, a number of 32 bits is expected")
    return float(alpha)


def _whole_matrices(planned: tuple[PlannedTensor, ...]) -> Iterator[PlannedTensor]:
    """Yield tensors with the shapes that the script counts parameters by: ``b`` with the last dimension of ``a``."""
    width = 0
    for tensor in planned:
        if tensor.name.endswith(".lora_a"):
            width = tensor.shape[-1]
        elif tensor.name.endswith(".lora_b"):
            yield PlannedTensor(tensor.name, (*tensor.shape[:-1], width), "F32")
        else:
            yield tensor


def _planned(directory: Path, tensors: tuple[Tensor, ...], base: AdapterBase) -> Iterator[PlannedTensor]:
    """Yield the tensors of the output: norms first, then the pairs, both in the order of the file."""
    names = name_map(base.architecture, base.blocks)
    pairs: dict[str, _Pair] = {}
    unknown: list[str] = []
    for tensor in tensors:
        plain = _base_name(tensor.name)
        if plain in base.left_out or ".base_layer.weight" in tensor.name:
            continue
        part = next((part for mark, part in _MARKS if mark in tensor.name), None)
        target = names.get_name(key=plain, try_suffixes=SUFFIXES)
        if target is None or tensor.dtype not in ITEM_BYTES or tensor.dtype == "F64":
            unknown.append(tensor.name)
        elif part is not None and len(tensor.shape) == _MATRIX:
            pairs.setdefault(plain, _Pair()).parts[part] = tensor
        elif part is None and ("_layernorm" in tensor.name or ".norm" in tensor.name) and len(tensor.shape) == 1:
            shift = base.norm_shift if plain.endswith("norm.weight") else 0.0
            yield PlannedTensor(target, tensor.shape, "F32", (TensorPart(tensor, shift=shift),))
        else:
            unknown.append(tensor.name)
    unknown += [name for name, pair in pairs.items() if not _is_pair(pair)]
    if unknown:
        raise unknown_tensors_error(directory, unknown)
    for plain, pair in pairs.items():
        target = str(names.get_name(key=plain, try_suffixes=SUFFIXES))
        yield from _pair(target, plain, pair, base)


def _base_name(name: str) -> str:
    name = name.replace(_PREFIX, "")
    for mark, _ in _MARKS:
        name = name.replace(mark, ".weight")
    return name


def _is_pair(pair: _Pair) -> bool:
    a, b = pair.parts.get("a"), pair.parts.get("b")
    return a is not None and b is not None and a.shape[0] == b.shape[1] and all((*a.shape, *b.shape))


def _pair(target: str, plain: str, pair: _Pair, base: AdapterBase) -> Iterator[PlannedTensor]:
    a, b = pair.parts["a"], pair.parts["b"]
    heads = base.rotated(plain)
    if heads and b.shape[0] % (2 * heads):
        raise BadHyperparameter("num_attention_heads", f"is {heads}, and {plain} has {b.shape[0]} rows")
    rows = for_rope(b.shape[0], heads) if heads else None
    turned = target.startswith("token_embd.")
    shape = (a.shape[1], a.shape[0]) if turned else a.shape
    yield PlannedTensor(f"{target}.lora_a", shape, "F32", (TensorPart(a, width=a.shape[1], transposed=turned),))
    yield PlannedTensor(f"{target}.lora_b", b.shape, "F32", (TensorPart(b, width=b.shape[1], rows=rows),))
