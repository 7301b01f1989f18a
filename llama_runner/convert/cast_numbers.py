"""Casts stored numbers to the type of the output, with the rounding of the official script.

bfloat16 is the upper half of float32; rounding is to even and NaNs become quiet, as in ggml. If the type does not
change, bytes are copied, so a signalling NaN of a bfloat16 tensor stays one: the only bytes that differ from the
official script's, and only in broken weights.

Numbers are cast tile by tile into memory that is used again. An operation on one tile takes some hundred microseconds.
Two threads with operations of ten wait for each other's interpreter lock for half of the time, which costs more than
operands that stay in the second-level cache save.
"""

from __future__ import annotations

import threading
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

LAYOUT = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "MXFP4": "u1"}
INFINITE = 0x7C00  # float16's bits from which on there are no numbers, the sign aside
LEAST_NORMAL = 0x3880  # bfloat16's bits of the least normal float16
TOO_LARGE = 0x4780  # bfloat16's bits of the first number that no float16 has
Q8_BLOCK = 32  # numbers that share a scale
Q8_BYTES = 34
Q8_LARGEST = 127
BELOW_HALF = np.float32(0.49999997)  # added before cutting, it rounds half away from zero
SIGN = 0x80000000
TILE = 1 << 20  # numbers that are cast at once: those of a chunk in 16 bits
_WORDS = {2: (8, "<c16", "<u8"), 4: (4, "<c16", "<u4")}
"""By the bytes of a number: numbers of a word, and types of as many bytes as these have before and after."""


class _Scratch(threading.local):
    """Memory for intermediate results of one tile; each thread has its own and keeps it."""

    def __init__(self) -> None:
        self._buffers: dict[str, NDArray[np.uint8]] = {}

    def take(self, name: str, dtype: str, size: int) -> NDArray[Any]:
        """Return an array of ``size`` undefined numbers, valid until the thread takes ``name`` again."""
        needed = size * np.dtype(dtype).itemsize
        buffer = self._buffers.get(name)
        if buffer is None or len(buffer) < needed:
            buffer = self._buffers[name] = np.empty(needed, dtype=np.uint8)
        return buffer[:needed].view(dtype)


_scratch = _Scratch()


def cast(
    numbers: NDArray[Any],
    stored: str,
    wanted: str,
    *,
    shift: float = 0.0,
    decay: bool = False,
    memory: Callable[[int], NDArray[np.uint8]] | None = None,
) -> NDArray[Any]:
    """Cast numbers, or their bytes, from one type to another; returns the same memory if nothing changes.

    Flat, and for Q8_0 whole blocks, which come as bytes. With ``decay``, each number becomes minus its exponential
    before; then ``shift`` is added. ``memory`` returns so many bytes for the result; None: new ones.
    """
    numbers = numbers.view(LAYOUT[stored])
    if decay:
        numbers, stored = _decay(numbers, stored)
    if stored == wanted and not shift:
        return numbers
    size = _bytes_of(numbers.size, wanted)
    made = np.empty(size, dtype=np.uint8) if memory is None else memory(size)
    with np.errstate(all="ignore"):  # too large for 16 bits becomes infinite, as everywhere
        for start in range(0, numbers.size, TILE):
            tile, place = numbers[start : start + TILE], _bytes_of(start, wanted)
            _cast(tile, stored, wanted, shift, made[place : place + _bytes_of(tile.size, wanted)])
    return made if wanted == "Q8_0" else made.view(LAYOUT[wanted])


def _bytes_of(count: int, wanted: str) -> int:
    return count // Q8_BLOCK * Q8_BYTES if wanted == "Q8_0" else count * np.dtype(LAYOUT[wanted]).itemsize


def _cast(numbers: NDArray[Any], stored: str, wanted: str, shift: float, out: NDArray[np.uint8]) -> None:
    """Cast one tile into the bytes ``out``."""
    if wanted == "Q8_0":
        _to_q8_0(numbers, stored, shift, out)
    elif (stored, wanted, shift) == ("BF16", "F16", 0.0):
        _to_float16(numbers, out.view("<u2"))
    elif (stored, wanted, shift) == ("BF16", "F32", 0.0):
        _from_bfloat16(numbers, out.view("<u4"))
    elif wanted == "BF16":
        _to_bfloat16(_exact(numbers, stored, shift).astype("<f4", copy=False), out.view("<u2"))
    else:
        np.copyto(out.view(LAYOUT[wanted]), _exact(numbers, stored, shift), casting="same_kind")


def _exact(numbers: NDArray[Any], stored: str, shift: float) -> NDArray[Any]:
    """Return numbers in the type in which torch computes, shifted; valid until the next call in this thread.

    They are the same memory only if the type is the same.
    """
    exact = numbers
    if stored == "BF16":
        exact = _from_bfloat16(numbers, _scratch.take("exact", "<u4", numbers.size).reshape(numbers.shape))
    elif stored == "F64":
        exact = numbers.astype("<f4")  # the official script goes through float32, and so rounds twice
    return exact + exact.dtype.type(shift) if shift else exact


def _decay(numbers: NDArray[Any], stored: str) -> tuple[NDArray[Any], str]:
    """Return minus the exponentials and their type: float16 stays, all other types become float32.

    The exponential is computed in 64 bits, so that the result is the nearest number. torch's depends on the processor
    and is the next one for one float32 in a hundred.
    """
    kind = "F16" if stored == "F16" else "F32"
    with np.errstate(all="ignore"):
        return (-np.exp(_exact(numbers, stored, 0.0).astype("<f8"))).astype(LAYOUT[kind]), kind


def _to_float16(numbers: NDArray[Any], out: NDArray[Any]) -> None:
    """Cast bfloat16 to float16: what is normal in both by moving bits, all else by a table."""
    bits = _scratch.take("bits", "<u2", numbers.size)
    np.left_shift(numbers, np.uint16(1), out=bits)
    np.subtract(bits, np.uint16(LEAST_NORMAL << 1), out=bits)  # less than that wraps around
    others = np.greater_equal(
        bits, np.uint16((TOO_LARGE - LEAST_NORMAL) << 1), out=_scratch.take("others", "?", numbers.size)
    )
    np.left_shift(numbers, np.uint16(3), out=out)  # the mantissa has three more bits
    np.add(out, np.uint16(0x4000), out=out)  # the exponent is 112 less
    np.bitwise_and(numbers, np.uint16(0x8000), out=bits)
    np.bitwise_or(out, bits, out=out)
    places = np.flatnonzero(others)
    if len(places) > numbers.size // 16:
        _float16_of_bfloat16().take(numbers, out=out, mode="wrap")  # no index is too large, and "raise" would copy
    elif len(places):
        out[places] = _float16_of_bfloat16()[numbers[places]]


@cache
def _float16_of_bfloat16() -> NDArray[Any]:
    """Return the float16 of every bfloat16, indexed by its bits."""
    every = np.arange(1 << 16, dtype="<u2")
    with np.errstate(all="ignore"):
        halves = _from_bfloat16(every, np.empty(every.size, dtype="<u4")).astype("<f2")
    bits: NDArray[Any] = halves.view("<u2")
    return bits


def not_finite(halves: NDArray[Any]) -> int:
    """Return the number of infinities and NaNs among float16 numbers."""
    bits = halves.view("<u2")
    if int(bits.view("<i2").max()) < INFINITE and int(bits.max()) < INFINITE | 0x8000:
        return 0
    return int(np.count_nonzero(~np.isfinite(halves)))


def _from_bfloat16(numbers: NDArray[Any], out: NDArray[Any]) -> NDArray[Any]:
    """Return bfloat16 as float32 in the memory of ``out``."""
    np.copyto(out, numbers)
    np.left_shift(out, np.uint32(16), out=out)
    single: NDArray[Any] = out.view("<f4")
    return single


def _to_bfloat16(numbers: NDArray[Any], out: NDArray[Any]) -> None:
    bits, rounded = numbers.view("<u4"), _scratch.take("rounded", "<u4", numbers.size)
    np.right_shift(bits, np.uint32(16), out=rounded)
    np.bitwise_and(rounded, np.uint32(1), out=rounded)
    np.add(rounded, np.uint32(0x7FFF), out=rounded)
    np.add(rounded, bits, out=rounded)
    np.right_shift(rounded, np.uint32(16), out=rounded)
    np.copyto(out, rounded, casting="unsafe")  # sixteen bits are left
    nan = np.isnan(numbers, out=_scratch.take("others", "?", numbers.size))
    if nan.any():
        out[nan] = (bits[nan] >> np.uint32(16)) | np.uint32(0x0040)


def _to_q8_0(numbers: NDArray[Any], stored: str, shift: float, out: NDArray[np.uint8]) -> None:
    """Quantize to ggml's Q8_0: per block of 32 numbers, a float16 scale and 32 signed bytes up to 127.

    The numbers are arranged in words of four or eight, so that the first words of all blocks come first, then the next
    words of all, and so on: numpy is slow at many short rows, and moves a word faster than each number alone.
    """
    if stored == "F64" or shift:
        numbers, stored = _exact(numbers, stored, shift).astype("<f4"), "F32"
    width, stored_word, made_word = _WORDS[numbers.itemsize]
    shape = (Q8_BLOCK // width, numbers.size // Q8_BLOCK)
    turned = _scratch.take("turned", stored_word, numbers.size // width).reshape(shape)
    np.copyto(turned, numbers.view(stored_word).reshape(shape[::-1]).T)

    bits = turned.view(f"<u{numbers.itemsize}")  # without the sign, they are ordered as the numbers are
    unsigned = _scratch.take("away", bits.dtype.str, numbers.size).reshape(bits.shape)
    np.bitwise_and(bits, bits.dtype.type((1 << 8 * numbers.itemsize - 1) - 1), out=unsigned)
    largest = np.maximum.reduce(unsigned, axis=0)
    while len(largest) > shape[1]:
        largest = np.maximum(largest[::2], largest[1::2])
    scales = _exact(largest.view(LAYOUT[stored]), stored, 0.0).astype("<f4") / np.float32(Q8_LARGEST)
    factors = np.where(scales == 0, np.float32(0), np.float32(1) / scales)

    scaled = _exact(turned.view(LAYOUT[stored]), stored, 0.0).astype("<f4", copy=False)
    np.multiply(scaled, factors.repeat(width), out=scaled)
    away = _scratch.take("away", "<u4", numbers.size).reshape(scaled.shape)
    np.bitwise_and(scaled.view("<u4"), np.uint32(SIGN), out=away)
    np.bitwise_or(away, BELOW_HALF.view("<u4"), out=away)  # away from zero, by almost a half: what is cut then rounds
    np.add(scaled, away.view("<f4"), out=scaled)
    made = _scratch.take("made", "i1", numbers.size).reshape(scaled.shape)
    np.copyto(made, scaled, casting="unsafe")
    packed = out.reshape(shape[1], Q8_BYTES)
    packed[:, :2].view("<f2")[:, 0] = scales
    np.copyto(packed[:, 2:].view(made_word), made.view(made_word).T)
