"""Which rows of a stored tensor make a tensor of the output, and in which order.

All that checkpoints ask for is regular: heads whose rows are interleaved for RoPE, queries taken out of a fused
matrix, every other row, all rows from the third on. So it is told as nested steps, a few numbers for any size.
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
    """Row numbers: the sum of ``start`` and, per ``(count, step)``, a multiple of the step; the last runs fastest."""

    steps: tuple[tuple[int, int], ...]
    start: int = 0

    @property
    def count(self) -> int:
        """How many rows."""
        return prod(count for count, _ in self.steps)

    @property
    def unit(self) -> int:
        """How many rows belong together: those of one step of the first kind."""
        return prod(count for count, _ in self.steps[1:])

    def numbers(self) -> NDArray[Any]:
        """The rows' numbers, in the order of the output."""
        found: NDArray[Any] = np.full(1, self.start, dtype=np.int64)
        for count, step in self.steps:
            found = (found[:, None] + np.arange(count, dtype=np.int64) * step).reshape(-1)
        return found


def for_rope(rows: int, heads: int) -> Rows:
    """All rows, reordered in each head: llama.cpp rotates neighbours, Hugging Face the two halves of a head."""
    size = rows // heads
    return Rows(((heads, size), (size // 2, 1), (2, size // 2)))


def part(size: int, *, start: int, of: int, items: int = 1) -> Rows:
    """``size`` rows from ``start`` on, of each of ``items`` that have ``of`` rows."""
    return Rows(((items, of), (size, 1)), start)


def every(step: int, count: int, *, start: int = 0) -> Rows:
    """``count`` rows, each ``step`` after the one before."""
    return Rows(((count, step),), start)
