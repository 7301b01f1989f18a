"""What samples amount to: figures of one level of load, and how two results compare. Pure."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from llama_runner.benchmark.load_generator import Sample

Figures = dict[str, Any]
SHARES = (50, 95, 99)


def percentile(values: Sequence[float], share: int) -> float | None:
    """Return the least value that ``share`` percent of the values do not exceed; None of none."""
    if not values:
        return None
    return sorted(values)[max(0, math.ceil(share / 100 * len(values)) - 1)]


def figures(samples: Sequence[Sample], clients: int, seconds: float) -> Figures:
    """Return the figures of one level. Latencies in seconds; errors are in no other figure."""
    good = [sample for sample in samples if sample.error is None]
    tokens = sum(sample.tokens for sample in good)
    return {
        "concurrency": clients,
        "requests": len(samples),
        "errors": dict(Counter(sample.error for sample in samples if sample.error is not None)),
        "seconds": round(seconds, 3),
        "prompt_tokens": sum(sample.prompt_tokens for sample in good),
        "tokens": tokens,
        "tokens_per_second": round(tokens / seconds, 2) if seconds else 0.0,
        "requests_per_second": round(len(good) / seconds, 3) if seconds else 0.0,
        "first_token_s": _spread(sample.first for sample in good if sample.first is not None),
        "latency_s": _spread(sample.whole for sample in good),
    }


def _spread(values: Iterable[float]) -> dict[str, float | None]:
    known = list(values)
    return {f"p{share}": _rounded(percentile(known, share)) for share in SHARES}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 5)


def compare(now: Sequence[Figures], before: Sequence[Figures]) -> list[Figures]:
    """Return, for each level that both results have, what the new figures are of the old ones: 1.1 is a tenth more."""
    old = {level["concurrency"]: level for level in before}
    return [
        {
            "concurrency": level["concurrency"],
            "tokens_per_second": _ratio(level["tokens_per_second"], old[level["concurrency"]]["tokens_per_second"]),
            "first_token_s": _ratio(level["first_token_s"]["p50"], old[level["concurrency"]]["first_token_s"]["p50"]),
            "latency_s": _ratio(level["latency_s"]["p50"], old[level["concurrency"]]["latency_s"]["p50"]),
        }
        for level in now
        if level["concurrency"] in old
    ]


def _ratio(now: float | None, before: float | None) -> float | None:
    return round(now / before, 3) if now is not None and before else None
