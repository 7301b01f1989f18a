"""A search for the options that make a model fastest on a machine. Pure but for what it is given to measure with."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING

from llama_runner.core.immutable_values import Value

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

Settings = dict[str, str]
"""llama-server's options and their values; what is not in it is its default."""

Axis = tuple[Settings, ...]
"""Settings that exclude each other, to be tried one after the other."""

MARGIN = 1.02
"""How many times as fast as the default something must be to count as faster: less is noise."""

_ROUNDS = 3
_DUEL_SHARE = 0.3
"""Of the budget: kept to compare the best with the default once more, in turns."""


class TuneOutcome(Value):
    """What the search found. Scores are tokens per second, None where the server could not do it."""

    settings: Settings
    """Empty: nothing beats the default."""
    score: float
    default: float
    tried: tuple[tuple[Settings, float | None], ...]
    finished: bool
    """Whether everything was tried; else the budget was spent."""


def axes(cores: int, processors: int, kv_types: Sequence[str]) -> list[Axis]:
    """Return what is tried: threads, batches, flash attention, types of the KV cache; the likeliest to matter first.

    ``cores`` and ``processors`` are the physical cores and the hardware threads that this process may use.
    """
    threads = sorted({max(1, cores // 2), max(1, cores - 1), processors} - {cores})
    return [
        tuple({"--threads": str(count)} for count in threads),
        tuple({"--flash-attn": word} for word in ("on", "off")),
        tuple({"--ubatch-size": str(size)} for size in (128, 256, 1024)),
        tuple({"--batch-size": str(size)} for size in (512, 4096)),
        tuple({"--cache-type-k": kind, "--cache-type-v": kind} for kind in kv_types),
    ]


def search(
    tried_axes: Sequence[Axis],
    measure: Callable[[Settings], float | None],
    *,
    budget: float,
    clock: Callable[[], float] = time.monotonic,
    tell: Callable[[Settings, float | None], object] = lambda _settings, _score: None,
) -> TuneOutcome:
    """Try one axis after the other, keep what is faster, and compare the best with the default again at the end.

    ``budget`` is in seconds: after it nothing new is begun. What does not beat the default clearly is not returned.
    """
    began = clock()
    tried: list[tuple[Settings, float | None]] = []

    def score(settings: Settings) -> float:
        found = measure(settings)
        tried.append((settings, found))
        tell(settings, found)
        return found or 0.0

    default = best_score = score({})
    best: Settings = {}
    finished = True
    for axis in tried_axes:
        base = best
        for change in axis:
            if clock() - began > budget * (1 - _DUEL_SHARE):
                finished = False
                break
            candidate = {**base, **change}
            found = score(candidate)
            if found > best_score * MARGIN:
                best, best_score = candidate, found
    if not best:
        return TuneOutcome({}, default, default, tuple(tried), finished)
    ours, theirs = [best_score], [default]
    for _ in range(_ROUNDS):  # in turns, so that what slows the machine down slows both
        theirs.append(score({}))
        ours.append(score(best))
        if clock() - began > budget:
            break
    fast, usual = statistics.median(ours[1:]), statistics.median(theirs[1:])
    if fast <= usual * MARGIN:
        return TuneOutcome({}, usual, usual, tuple(tried), finished)
    return TuneOutcome(best, fast, usual, tuple(tried), finished)


def settings_text(settings: Mapping[str, str]) -> str:
    """Return settings as one would type them."""
    return " ".join(f"{option} {value}" for option, value in settings.items()) or "the default"
