"""The speed of one model before it is here: llama-bench runs its tensors with random numbers in them.

A large model is measured with as many of its layers as fit ``LARGEST``, and the seconds grow with the bytes that are
read for a token. What was measured corrects the estimate of ``machine_speed.Rates``.
"""

from __future__ import annotations

import hashlib
import re
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from llama_runner.core.immutable_values import Value
from llama_runner.recommend.machine_speed import OF_THIS_MODEL, fingerprint, reads_of, seconds_of
from llama_runner.recommend.weightless_gguf import (
    VOCABULARY,
    fill_with_numbers,
    metadata_of,
    vocabulary_of,
    write_without_vocabulary,
)
from llama_runner.sources.gguf_header import read_header
from llama_runner.sources.gguf_without_weights import Shape, bytes_of, number_value
from llama_runner.system.files import open_regular, read_json, write_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from llama_runner.recommend.machine_speed import Rates
    from llama_runner.recommend.model_headers import Headers

LARGEST = 512 << 20
"""Bytes of a file that is measured: far more than the caches of a processor."""
DEEPEST = 512
"""Tokens of context that a model is measured behind, at most: they are read first."""
_TRY_S = 4.0
"""Seconds for which the speed is measured: where memory is shared with others, it is slow for seconds at a time."""
_LAYER = re.compile(r"blk\.(\d+)\.")
_OF_DRY_RUN = re.compile(r"^\[ *\d+/ *\d+\] (\S+) .*-> .*\((\w+)\)$", re.MULTILINE)


class Measured(Value):
    """What is measured: a model as its headers have it, with the type of each tensor in the quantization."""

    directory: Path
    """A directory for the file that llama-bench reads."""
    found: Headers
    types: Mapping[str, str]
    """By name of a tensor; the header's where it is not named."""
    size: int
    """Bytes of the whole model."""
    kv_bytes: int
    """Bytes of the cache for a token."""


def types_of(dry_run: str) -> dict[str, str]:
    """Return the type that each tensor gets, from what ``llama-quantize --dry-run`` prints. Pure."""
    return {name: kind.lower() for name, kind in _OF_DRY_RUN.findall(dry_run)}


def corrected(rates: Rates, model: Measured, context: int, *, program: Path, kept: Path, free: bool) -> Rates:
    """Return the rates with the correction for a model at half of a context; unchanged if it cannot be measured.

    It is measured for some seconds unless it is in the directory ``kept``, or the machine is not ``free``.
    """
    depth = min(context // 2, DEEPEST)
    reads = reads_of(model.found.headers)
    with suppress(OSError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError):
        seconds = _seconds(model, depth, program=program, kept=kept, free=free)
        if seconds is not None:
            estimated = rates.tokens_per_second(reads, model.size, depth * model.kv_bytes)
            return rates.replace(correction=1 / seconds / estimated, measured_by=rates.measured_by + OF_THIS_MODEL)
    return rates


def _seconds(model: Measured, depth: int, *, program: Path, kept: Path, free: bool) -> float | None:
    """Return the seconds that the whole model takes for a token; None if it cannot be measured."""
    file = model.directory / "tensors.gguf"
    shapes = [
        Shape(entry.name, entry.shape, model.types.get(entry.name, entry.type))
        for header in model.found.headers
        for entry in header.entries
    ]
    try:
        _write(file, model.found, shapes)
        part = read_header(file)
        with open_regular(file) as content:
            about = hashlib.sha256(content.read(part.data_start)).hexdigest()[:16]
        known = kept / f"{fingerprint(program)}-{about}-{depth}.json"
        seconds = None
        with suppress(OSError, ValueError, TypeError, LookupError):
            seconds = float(read_json(known)["seconds"])
        if seconds is None and free:
            fill_with_numbers(file)
            if (seconds := seconds_of(program, file, depth, for_s=_TRY_S)) is not None:
                with suppress(OSError):  # a root that cannot be written to is measured again each time
                    known.parent.mkdir(parents=True, exist_ok=True)
                    write_json(known, {"seconds": seconds, "made": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())})
        if seconds is None or not seconds > 0:
            return None
        of_part = reads_of((part,)).part * sum(entry.bytes for entry in part.entries)
        return seconds * reads_of(model.found.headers).part * model.size / of_part
    finally:
        file.unlink(missing_ok=True)


def _write(target: Path, found: Headers, shapes: Iterable[Shape]) -> None:
    """Write as many layers of a model as fit, and all tensors that belong to no layer."""
    first = found.headers[0]
    architecture, values = first.text("general.architecture") or "", metadata_of(found.path, first)
    by_layer: dict[int, list[Shape]] = {}
    for shape in shapes:
        match = _LAYER.match(shape.name)
        by_layer.setdefault(int(match[1]) if match else -1, []).append(shape)
    sizes = {layer: sum(map(bytes_of, tensors)) for layer, tensors in by_layer.items()}
    taken, room = by_layer.pop(-1, []), LARGEST - sizes.get(-1, 0)
    layers = sorted(by_layer)
    for layer in layers:
        room -= sizes[layer]
        if room < 0 and layer > 0:
            layers = layers[: layers.index(layer)]
            break
        taken += by_layer[layer]
    values[f"{architecture}.block_count"] = number_value(len(layers))
    write_without_vocabulary(target, architecture, values, taken, tokens=vocabulary_of(first) or VOCABULARY)
