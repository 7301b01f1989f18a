"""Selects and orders the rows of a stored tensor.

All selections in checkpoints are regular: rows interleaved for RoPE, queries of a fused matrix, every other row, all
rows from the third on. They are described by nested steps, a few numbers for any size.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Rows:
    """Row numbers: ``start`` plus a multiple of each step (``(count, step)`` pairs); the last pair varies fastest."""

    steps: tuple[tuple[int, int], ...]
    start: int = 0

    @property
    def count(self) -> int:
        """Number of rows."""
        return prod(count for count, _ in self.steps)

    @property
    def unit(self) -> int:
        """Number of consecutive rows of the first step."""
        return prod(count for count, _ in self.steps[1:])

    def numbers(self) -> NDArray[Any]:
        """Return the row numbers in the order of the output."""
        found: NDArray[Any] = np.full(1, self.start, dtype=np.int64)
        for count, step in self.steps:
            found = (found[:, None] + np.arange(count, dtype=np.int64) * step).reshape(-1)
        return found


def for_rope(rows: int, heads: int) -> Rows:
    """Return all rows, reordered in each head: llama.cpp rotates neighbours, Hugging Face the two halves of a head."""
    size = rows // heads
    return Rows(((heads, size), (size // 2, 1), (2, size // 2)))


def part(size: int, *, start: int, of: int, items: int = 1) -> Rows:
    """Return ``size`` rows from ``start``, of each of ``items`` that have ``of`` rows."""
    return Rows(((items, of), (size, 1)), start)


def every(step: int, count: int, *, start: int = 0) -> Rows:
    """Return ``count`` rows with distance ``step``."""
    return Rows(((count, step),), start)
