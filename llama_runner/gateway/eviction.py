"""Whether a model fits beside others, and which idle models are stopped for it. Pure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from llama_runner.gateway.scheduler_state import Sizes, Slot

_FLOOR_S = 0.1
"""Seconds added to the load time of a model when idle models are compared."""


def missing(slot: Slot, held: Collection[Slot], available: Sizes) -> Sizes:
    """Return the bytes that are missing at each place for a model beside others; empty: it fits."""
    found: Sizes = {}
    for place, wanted in (slot.need or {}).items():
        if wanted and place in available:
            over = wanted + sum((each.need or {}).get(place, 0) for each in held) - available[place]
            found |= {place: over} if over > 0 else {}
    return found


def needed_and_available(slot: Slot, lacks: Sizes) -> list[tuple[str, int, int]]:
    """Return, for each place where a model lacks memory, the bytes that it needs and those that there are for it."""
    need = slot.need or {}
    return [(place, need[place], need[place] - over) for place, over in lacks.items()]


def to_stop(
    slot: Slot, held: Collection[Slot], available: Sizes, *, since: float, wanted: Mapping[str, float], now: float
) -> list[Slot]:
    """Return the idle models whose memory is enough for one that was requested ``since``; none if it is not.

    ``wanted`` has the time of the oldest request that waits for each model: one that is wanted for longer stays. Models
    that were unused for long and load fast are stopped first.
    """
    staying = [each for each in held if each.phase != "stopping"]
    idle = [
        each
        for each in staying
        if each.is_idle and not each.policy.pin and wanted.get(each.policy.name, math.inf) >= since
    ]
    idle.sort(key=lambda each: (now - each.used_at + 1) / (each.load_seconds + _FLOOR_S))
    chosen: list[Slot] = []

    def suffices(stopped: list[Slot]) -> bool:
        return not missing(slot, [each for each in staying if each not in stopped], available)

    while idle and not suffices(chosen):
        chosen.append(idle.pop())
    if not suffices(chosen):
        return []
    for each in list(chosen):
        rest = [other for other in chosen if other is not each]
        chosen = rest if suffices(rest) else chosen
    return chosen
