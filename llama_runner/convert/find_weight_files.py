"""Finds the shards of a checkpoint and their tensors, and checks them against the index.

Choice and order of the weights are the official script's: shards sorted by name, and the tensors of each sorted by
name.
"""

from __future__ import annotations

from pathlib import PurePath
from typing import TYPE_CHECKING

from llama_runner.convert.errors import (
    BrokenShard,
    UnreadableFile,
    absent_shard_error,
    duplicate_tensor_error,
    index_mismatch_error,
    no_weights_error,
    only_pickles_error,
    reading,
)
from llama_runner.convert.safetensors import Shard, Tensor, read_shard
from llama_runner.core.printable_text import printable

if TYPE_CHECKING:
    from pathlib import Path

    from llama_runner.convert.model_directory import ModelDirectory

INDEX = "model.safetensors.index.json"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
NOT_WEIGHTS = frozenset({"training_args.bin", "optimizer.bin", "optimizer.pt", "scheduler.pt", "rng_state.pth"})


def find_shards(source: ModelDirectory) -> tuple[Shard, ...]:
    """Return all shards, with their headers read and checked against the index."""
    index = _index(source)
    names = sorted(set(index.values())) if index is not None else _weights(source)
    shards = tuple(read(source.path(name)) for name in names)
    found: dict[str, Tensor] = {}
    for tensor in (tensor for shard in shards for tensor in shard.tensors):
        if tensor.name in found:
            raise duplicate_tensor_error(tensor.name, (found[tensor.name].path.name, tensor.path.name))
        found[tensor.name] = tensor
    if index is not None and set(index) != set(found):
        missing, extra = sorted(set(index) - set(found)), sorted(set(found) - set(index))
        raise index_mismatch_error(source.path(INDEX), missing=missing, extra=extra)
    return shards


def read(path: Path) -> Shard:
    """Read one header; raises ``SourceError``, for a rejected file with the reason of the safetensors library."""
    try:
        with reading(path):
            return read_shard(path)
    except BrokenShard as error:
        raise BrokenShard(path, error.problem, reference=_refusal(path)) from error


def _refusal(path: Path) -> str:
    """Return the safetensors library's reason for rejecting a file; empty if it accepts it."""
    from safetensors import SafetensorError, safe_open  # noqa: PLC0415 - only for an error's text

    try:
        with safe_open(path, framework="numpy"):  # reads the header only
            return ""
    except (SafetensorError, OSError, ValueError) as error:
        return printable(str(error), limit=200)


def _weights(source: ModelDirectory) -> list[str]:
    with reading(source.directory):
        names = sorted(path.name for path in source.directory.iterdir())
    weights = [name for name in names if name.startswith("model") and name.endswith(".safetensors")]
    if weights:
        return weights
    pickles = [name for name in names if name.endswith(PICKLES) and name not in NOT_WEIGHTS]
    if pickles:
        raise only_pickles_error(pickles)
    raise no_weights_error(source.directory)


def _index(source: ModelDirectory) -> dict[str, str] | None:
    """Return the index as a dict from tensor to shard; None for a model in one file."""
    table = _table(source)
    if table is not None and (absent := [name for name in sorted(set(table.values())) if not source.has(name)]):
        _weights(source)  # where there are no safetensors at all, that is the better fact to tell
        raise absent_shard_error(source.path(INDEX), absent)
    return table


def named_by_index(source: ModelDirectory) -> list[str]:
    """Return the shards that the index names, present or not; empty for a model in one file."""
    return sorted(set((_table(source) or {}).values()))


def _table(source: ModelDirectory) -> dict[str, str] | None:
    if not source.has(INDEX):
        return None
    table = source.optional_object(INDEX).get("weight_map")
    if not isinstance(table, dict) or not table or not all(isinstance(name, str) for name in table.values()):
        raise UnreadableFile(source.path(INDEX), "its weight_map is not a table from tensor to shard")
    for name in sorted(set(table.values())):
        if PurePath(name).name != name or not name.endswith(".safetensors"):
            raise UnreadableFile(source.path(INDEX), f"it names {name!r}, which is not a shard beside it")
    return table
