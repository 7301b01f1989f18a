"""Fuzz target: headers of safetensors files."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

from llama_runner.convert.safetensors import ITEM_BITS, read_shard
from tests.fuzz import mutate
from tests.fuzz.harness import Case, Finding, Target, decoded, encoded, explore

NUMBERS = (*range(-3, 70), 2**31, 2**63, 2**64, 2**200, -(2**63), True, 1.0, None, "8", float("nan"))


def _numbers(rng: Random, most: int) -> Any:
    return [rng.choice(NUMBERS) for _ in range(rng.randrange(most + 1))] if rng.random() < 0.95 else mutate.value(rng)


def _entry(rng: Random, start: int) -> tuple[Any, int]:
    """Return a tensor that begins where the one before it ends, sometimes wrong, and where it ends."""
    if rng.random() < 0.1:
        return mutate.value(rng), start
    dtype = rng.choice(list(ITEM_BITS))
    shape = [rng.randrange(5) for _ in range(rng.randrange(4))]
    count = 1
    for length in shape:
        count *= length
    end = start + count * ITEM_BITS[dtype] // 8
    entry: dict[str, Any] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
    if rng.random() < 0.3:
        entry[rng.choice(list(entry))] = rng.choice((_numbers(rng, 4), mutate.value(rng), rng.choice(("Q4", "", "F7"))))
    if rng.random() < 0.05:
        del entry[rng.choice(list(entry))]
    return entry, end


def generate(rng: Random) -> Case:
    """Make a header that is nearly right, with a length that may lie, and data."""
    header: dict[str, Any] = {}
    end = 0
    if rng.random() < 0.3:
        header["__metadata__"] = {"format": "pt"} if rng.random() < 0.5 else mutate.value(rng)
    for number in range(rng.randrange(5)):
        header[mutate.text(rng) if rng.random() < 0.3 else f"t{number}"], end = _entry(rng, end)
    try:
        text = json.dumps(header).encode() + b" " * rng.randrange(3)
    except (ValueError, RecursionError):
        text = b"{}"
    if rng.random() < 0.2:
        text = mutate.raw(rng, text)
    length = rng.choice((0, 1, 2**32, 2**63, 2**64 - 1, len(text) - 1)) if rng.random() < 0.1 else len(text)
    data = bytes(end if end < 4096 else 0) + rng.choice((b"", b"", b"", b"x"))
    content = max(length, 0).to_bytes(8, "little") + text + data
    return {"content": decoded(mutate.raw(rng, content) if rng.random() < 0.1 else content)}


def check(case: Case, scratch: Path) -> None:
    """Read the header; every tensor lies inside of the file."""
    path = scratch / "model.safetensors"
    path.write_bytes(encoded(case["content"]))
    shard = read_shard(path)
    size = path.stat().st_size
    if not all(0 < tensor.offset <= tensor.offset + tensor.nbytes <= size for tensor in shard.tensors):
        raise Finding("a tensor lies outside of the file")


TARGET = Target("safetensors_header", generate, check)


def run(seconds: float, seed: int) -> dict[str, Any]:
    """Run the target; see `harness.explore`."""
    return explore(TARGET, seconds, seed)
