"""Casts stored numbers to the type of the output, with the rounding of the official script.

bfloat16 is the upper half of float32; rounding is to even and NaNs become quiet, as in ggml. If the type does not
change, bytes are copied, so a signalling NaN of a bfloat16 tensor stays one: the only bytes that differ from the
official script's, and only in broken weights.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

LAYOUT = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "MXFP4": "u1"}
INFINITE = 0x7C00  # float16's bits from which on there are no numbers, the sign aside
Q8_BLOCK = 32  # numbers that share a scale
Q8_LARGEST = 127
BELOW_HALF = np.float32(0.49999997)  # added before cutting, it rounds half away from zero
SIGN = 0x80000000
TILE = 1 << 16  # numbers that are cast at once: what is made on the way then stays in the processor's cache


def cast(numbers: NDArray[Any], stored: str, wanted: str, *, shift: float = 0.0) -> NDArray[Any]:
    """Cast numbers, or their bytes, from one type to another; returns the same memory if nothing changes.

    Flat, and for Q8_0 whole blocks, which come as bytes. ``shift`` is added before.
    """
    numbers = numbers.view(LAYOUT[stored])
    if stored == wanted and not shift:
        return numbers
    if (stored, wanted, shift) == ("BF16", "F16", 0.0):
        return _looked_up(numbers)
    with np.errstate(all="ignore"):  # too large for 16 bits becomes infinite, as everywhere
        if wanted not in ("BF16", "Q8_0"):
            return _cast(numbers, stored, wanted, shift)
        tiles = [_cast(numbers[start : start + TILE], stored, wanted, shift) for start in range(0, numbers.size, TILE)]
    return np.concatenate(tiles) if len(tiles) != 1 else tiles[0]


def _cast(numbers: NDArray[Any], stored: str, wanted: str, shift: float) -> NDArray[Any]:
    exact: NDArray[Any] = _from_bfloat16(numbers) if stored == "BF16" else numbers
    if stored == "F64":
        exact = exact.astype("<f4")  # the official script goes through float32, and so rounds twice
    if shift:
        exact = exact + exact.dtype.type(shift)
    if wanted == "Q8_0":
        return _to_q8_0(exact.astype("<f4", copy=False))
    if wanted == "BF16":
        return _to_bfloat16(exact.astype("<f4", copy=False))
    narrow: NDArray[Any] = exact.astype(LAYOUT[wanted], copy=False)
    return narrow


def _looked_up(numbers: NDArray[Any]) -> NDArray[Any]:
    """Cast bfloat16 to float16 by a table, which is three times as fast as computing it."""
    table, halves = _halves_of_bfloat16(), np.empty(numbers.size, dtype="<u2")
    for start in range(0, numbers.size, TILE):
        tile = slice(start, start + TILE)
        table.take(numbers[tile], out=halves[tile], mode="wrap")  # no index is too large, and "raise" would copy
    return halves.view("<f2")


@cache
def _halves_of_bfloat16() -> NDArray[Any]:
    """Return the float16 of every bfloat16, indexed by its bits."""
    with np.errstate(all="ignore"):
        halves = _from_bfloat16(np.arange(1 << 16, dtype="<u2")).astype("<f2")
    bits: NDArray[Any] = halves.view("<u2")
    return bits


def not_finite(halves: NDArray[Any]) -> int:
    """Return the number of infinities and NaNs among float16 numbers."""
    bits = halves.view("<u2")
    if int(bits.view("<i2").max()) < INFINITE and int(bits.max()) < INFINITE | 0x8000:
        return 0
    return int(np.count_nonzero(~np.isfinite(halves)))


def _from_bfloat16(numbers: NDArray[Any]) -> NDArray[Any]:
    wide: NDArray[Any] = np.left_shift(numbers, np.uint32(16), dtype="<u4")
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


def _to_q8_0(numbers: NDArray[Any]) -> NDArray[Any]:
    """Quantize to ggml's Q8_0: per block of 32 numbers, a float16 scale and 32 signed bytes up to 127."""
    largest = np.abs(numbers)
    for _ in range(Q8_BLOCK.bit_length() - 1):  # of neighbours, five times: numpy is slow at many short rows
        largest = np.maximum(largest[::2], largest[1::2])
    scales = largest / np.float32(Q8_LARGEST)
    factors = np.where(scales == 0, np.float32(0), np.float32(1) / scales)
    scaled = numbers * factors.repeat(Q8_BLOCK)
    away = scaled.view("<u4") & np.uint32(SIGN)  # from zero, by almost a half: what is cut off afterwards rounds
    away |= BELOW_HALF.view("<u4")
    scaled += away.view("<f4")
    packed = np.empty(len(scales), dtype=[("scale", "<f2"), ("numbers", f"V{Q8_BLOCK}")])
    packed["scale"] = scales
    packed["numbers"] = scaled.astype(np.int8).view(f"V{Q8_BLOCK}")
    return packed.view(np.uint8)
