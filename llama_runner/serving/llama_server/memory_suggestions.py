"""Suggests launches that fit into memory, by estimating smaller ones."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from llama_runner.core.immutable_values import Value
from llama_runner.serving.errors import DoesNotFit
from llama_runner.serving.llama_server.memory_by_fit_params import HOST, lacking
from llama_runner.system import hardware

if TYPE_CHECKING:
    from collections.abc import Callable

    from llama_runner.serving.llama_server.launch_spec import ServerSpec
    from llama_runner.serving.llama_server.memory_by_fit_params import Need, Question, Room

_STEP = 256
"""llama.cpp rounds a context up to a multiple of this."""
_LARGEST = 1 << 20
_LEAST_FITTED = "4096"
"""The context that ``--fit`` does not go below."""
_NEAR = 1.05
_LAYERS = 999
_SMALLEST = 8
"""No quantization is smaller than this part of what is served."""


class Way(Value):
    """A launch that would fit: its options, and the question that was estimated."""

    options: str
    question: Question


def refusal(
    spec: ServerSpec, asked: Question, ask: Callable[[Question], Need | None], need: Need, room: Room, missing: int
) -> DoesNotFit | None:
    """Return the error for a server that does not fit, with ways out; None if llama-server makes it fit by itself.

    ``ask`` returns what another launch would need, None where that is not known.
    """

    def fits(other: Question) -> bool:
        answer = ask(other)
        if answer is None:
            return False
        return not lacking(answer.replace(beside=answer.beside + missing), room, spills=other.spills)

    if asked.ctx_size == "0" and asked.spills and need.devices and fits(asked.replace(ctx_size=_LEAST_FITTED)):
        return None
    lacks = lacking(need, room, spills=asked.spills)
    ways = [] if spec.force_memory else [way.options for way in ways_out(asked, lacks, fits)]
    if (size := largest_model(need, lacks)) is not None:
        ways.append(f"a quantization of at most {size / 2**30:.1f} GiB")
    return DoesNotFit(spec.alias, lacks, total=hardware.total_memory(), parts=need.parts, ways=ways)


def ways_out(asked: Question, lacks: tuple[tuple[str, int, int], ...], fits: Callable[[Question], bool]) -> list[Way]:
    """Return what would fit instead, by changing one thing each. ``fits`` has said so of every one. Pure."""
    ways = []
    if context := _context(asked, fits):
        ways.append(Way(f"--ctx-size {context.ctx_size}", context))
    if asked.type_k in (None, "f16", "bf16", "f32"):
        for kind in ("q8_0", "q4_0"):
            if fits(quantized := asked.replace(type_k=kind, type_v=kind)):
                ways.append(Way(f"-- -ctk {kind} -ctv {kind}", quantized))
                break
    if asked.slots not in ("0", "1") and fits(one := asked.replace(slots="1")):
        ways.append(Way("-- -np 1", one))
    if any(name != HOST for name, _, _ in lacks) and (layers := _layers(asked, fits)):
        ways.append(Way(f"--gpu-layers {layers.gpu_layers}", layers))
    return ways


def largest_model(need: Need, lacks: tuple[tuple[str, int, int], ...]) -> int | None:
    """Return how many bytes the weights may have for the rest to fit; None if no quantization is that small."""
    left = need.weights - sum(wanted - free for _, wanted, free in lacks)
    return left if left * _SMALLEST >= need.weights else None


def _context(asked: Question, fits: Callable[[Question], bool]) -> Question | None:
    """Return about the largest context that fits, a multiple of 256 tokens; by bisection of its logarithm."""
    given = int(asked.ctx_size) if asked.ctx_size.isdigit() else 0
    low, high = _STEP, given or _LARGEST
    if high <= low or not fits(asked.replace(ctx_size=str(low))):
        return None
    while high > low * _NEAR and high - low > _STEP:
        middle = max(low + _STEP, int(math.sqrt(low * high)) // _STEP * _STEP)
        low, high = (middle, high) if fits(asked.replace(ctx_size=str(middle))) else (low, middle)
    return asked.replace(ctx_size=str(low))


def _layers(asked: Question, fits: Callable[[Question], bool]) -> Question | None:
    """Return with how many layers on the GPUs it fits: as many as llama-server finds, or else a number."""
    automatic = asked.replace(gpu_layers="auto")
    if automatic.spills and fits(automatic):
        return automatic
    given = asked.gpu_layers or ""
    low, high = 0, int(given) if given.isdigit() else _LAYERS
    if not fits(asked.replace(gpu_layers="0")):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(asked.replace(gpu_layers=str(middle))) else (low, middle)
    return asked.replace(gpu_layers=str(low))
