"""Turns chunks of stored numbers into the type of the output, with the rounding of the official script.

bfloat16 is float32 without its lower half; it is rounded to even and NaNs are made quiet, as ggml does it. Where
the type stays the same the bytes are copied, so a signalling NaN of a bfloat16 tensor stays one: the only bytes
that differ from the official script's, and only in weights that are broken.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

LAYOUT = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}


def cast(data: NDArray[np.uint8], stored: str, wanted: str) -> NDArray[Any]:
    """Raw bytes of one type as numbers of another; the same memory where nothing has to be done."""
    numbers: NDArray[Any] = data.view(LAYOUT[stored])
    if stored == wanted:
        return numbers
    with np.errstate(all="ignore"):  # too large for 16 bits becomes infinite, as everywhere
        exact: NDArray[Any] = _from_bfloat16(numbers) if stored == "BF16" else numbers
        if stored == "F64":
            exact = exact.astype("<f4")  # the official script goes through float32, and so rounds twice
        if wanted == "BF16":
            return _to_bfloat16(exact.astype("<f4", copy=False))
        narrow: NDArray[Any] = exact.astype(LAYOUT[wanted], copy=False)
    return narrow


def _from_bfloat16(numbers: NDArray[Any]) -> NDArray[Any]:
    wide: NDArray[Any] = numbers.astype("<u4")
    wide <<= np.uint32(16)
    single: NDArray[Any] = wide.view("<f4")
    return single


def _to_bfloat16(numbers: NDArray[Any]) -> NDArray[Any]:
    bits = numbers.view("<u4")
    rounded: NDArray[Any] = bits + (np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1)))
    nan = (bits & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000)
    if nan.any():
        rounded[nan] = bits[nan] | np.uint32(0x00400000)
    upper: NDArray[Any] = (rounded >> np.uint32(16)).astype("<u2")
    return upper


def for_rope(rows: NDArray[Any], heads: int) -> NDArray[Any]:
    """Whole heads with their rows reordered: llama.cpp rotates neighbours, Hugging Face the two halves of a head.

    ``rows`` is two-dimensional; the result is a view, ``(heads, half, 2, columns)``.
    """
    view: NDArray[Any] = rows.reshape(heads, 2, rows.shape[0] // heads // 2, rows.shape[1]).swapaxes(1, 2)
    return view
