"""Reads encoded tensors (quantized, in several parts, or transposed) as plain matrices.

An `EncodedTensor` stands in the plan like a stored one, and computes any of its rows: 8-bit numbers times their scales,
integers of GPTQ and compressed-tensors, MXFP4 in llama.cpp's order, transposed matrices. The arithmetic is the official
script's: float32, with one rounding per number.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from math import prod
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from llama_runner.convert.cast_numbers import LAYOUT
from llama_runner.convert.errors import BrokenQuantization
from llama_runner.convert.safetensors import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import Protocol

    from numpy.typing import NDArray
    from typing_extensions import Self

    class Reader(Protocol):
        """Reads shards."""

        def read(self, path: Path, ranges: Sequence[tuple[int, int]]) -> NDArray[np.uint8]:
            """The bytes of some ranges (offset and size), one after the other, valid until the next call."""


WORD = 32  # bits that packed integers share
SCALES = ("F32", "F16", "BF16", "F8_E8M0")
EIGHT_BITS = ("F8_E4M3", "F8_E5M2", "I8")
MX_BLOCK = 32  # numbers that share an exponent
MX_BYTES = MX_BLOCK // 2


@dataclass(frozen=True)
class EncodedTensor(Tensor):
    """Tensor whose rows are computed from stored tensors; ``dtype`` and ``shape`` are those of its rows.

    ``offset``, ``nbytes`` and ``path`` are those of the largest of the stored tensors.
    """

    main: Tensor
    chunk: ClassVar[int] = 2 << 20  # bytes of rows to make at once

    @classmethod
    def of(cls, main: Tensor, name: str, dtype: str, shape: tuple[int, ...], **parts: Any) -> Self:  # noqa: ANN401
        """Make the tensor from ``main`` and the other ``parts``."""
        return cls(name, dtype, shape, main.offset, main.nbytes, main.path, main, **parts)

    @property
    def row_bytes(self) -> int:
        """Bytes of one computed row."""
        return self.shape[-1] * 4

    def rows(self, low: int, high: int, reader: Reader) -> NDArray[Any]:
        """Return rows ``low`` to ``high``, with all dimensions but the last flattened."""
        raise NotImplementedError


def _row_data(
    tensor: Tensor, low: int, high: int, reader: Reader, *, columns: slice | None = None
) -> NDArray[np.uint8]:
    """Return the bytes of rows of a stored tensor; ``columns`` selects a range of each row."""
    count = prod(tensor.shape[:-1])
    size = tensor.nbytes // count
    if columns is None:
        return reader.read(tensor.path, [(tensor.offset + low * size, (high - low) * size)]).reshape(high - low, size)
    width = columns.stop - columns.start
    starts = range(tensor.offset + low * size + columns.start, tensor.offset + high * size, size)
    return reader.read(tensor.path, [(start, width) for start in starts]).reshape(high - low, width)


def _floats(data: NDArray[np.uint8], dtype: str) -> NDArray[Any]:
    """Return scales as float32, as a copy."""
    if dtype == "BF16":
        wide: NDArray[Any] = np.left_shift(data.view("<u2"), np.uint32(16), dtype="<u4")
        return wide.view("<f4")
    if dtype in ("F8_E8M0", "F8_E4M3", "F8_E5M2"):
        return _table(dtype).take(data)
    numbers: NDArray[Any] = data.view(LAYOUT[dtype]).astype("<f4")
    return numbers


@cache
def _table(dtype: str) -> NDArray[Any]:
    """Return the float32 of each byte: OCP's FP8 (E4M3 without infinities, E5M2), E8M0, and signed integers."""
    codes = np.arange(256, dtype=np.uint8)
    if dtype == "I8":
        integers: NDArray[Any] = codes.view(np.int8).astype("<f4")
        return integers
    if dtype == "F8_E8M0":
        powers = np.ldexp(1.0, codes[:-1].astype(np.int32) - 127)
        return np.append(powers, np.nan).astype("<f4")
    if dtype == "F8_E5M2":
        halves: NDArray[Any] = (codes.astype("<u2") << np.uint16(8)).view("<f2").astype("<f4")
        return halves
    sign = np.where(codes & 0x80, np.float32(-1), np.float32(1))
    exponent, mantissa = (codes >> 3 & 15).astype(np.int32), (codes & 7).astype("<f4")
    size = np.where(exponent == 0, np.ldexp(mantissa, -9), np.ldexp(8 + mantissa, exponent - 10)).astype("<f4")
    numbers: NDArray[Any] = sign * size
    numbers.view("<u4")[[127, 255]] = 0x7FF00000, 0xFFF00000
    return numbers


@dataclass(frozen=True)
class ScaledTensor(EncodedTensor):
    """8-bit numbers times scales; ``block`` is the rows and columns of one scale, None for whole rows."""

    scale: Tensor
    block: tuple[int, int] | None

    @classmethod
    def make(cls, name: str, weight: Tensor, scale: Tensor, block: tuple[int, int] | None) -> ScaledTensor:
        """Make the tensor; raises `BrokenQuantization` for a scale of another shape or type."""
        if weight.dtype not in EIGHT_BITS:
            raise BrokenQuantization(weight.name, f"has a scale but is stored as {weight.dtype}")
        _typed(scale, SCALES)
        wanted: tuple[tuple[int, ...], ...] = tuple((size, 1) if block is None else (size,) for size in weight.shape)
        if block is not None and len(weight.shape) >= len(block):
            wanted = (*wanted[:-2], *((-(-size // of),) for size, of in zip(weight.shape[-2:], block, strict=True)))
        shape = (*scale.shape, *[1] * (len(weight.shape) - len(scale.shape))) if block is None else scale.shape
        if len(shape) != len(wanted) or not all(size in allowed for size, allowed in zip(shape, wanted, strict=True)):
            text = f"has the shape {list(scale.shape)}, which does not fit {list(weight.shape)}"
            raise BrokenQuantization(scale.name, text if block is None else f"{text} in blocks of {list(block)}")
        return cls.of(weight, name, "F32", weight.shape, scale=scale, block=block)

    def rows(self, low: int, high: int, reader: Reader) -> NDArray[Any]:
        """Return the numbers times their scales, in float32."""
        scales = self._scales(np.arange(low, high), reader)
        numbers = _table(self.main.dtype).take(_row_data(self.main, low, high, reader))
        with np.errstate(all="ignore"):  # what is none stays none, what is too large becomes infinite, as everywhere
            numbers *= scales
        return numbers

    def _scales(self, rows: NDArray[Any], reader: Reader) -> NDArray[Any]:
        """Return one scale per row, or one per number."""
        width, height = self.shape[-1], self.shape[-2] if len(self.shape) > 1 else 1
        shape = (1, 1, *self.scale.shape, *[1] * (len(self.shape) - len(self.scale.shape)))
        tall, wide = shape[-2:]
        if self.block is not None:
            lines = rows // height * tall + rows % height // self.block[0]
        else:
            of, inside = rows // height, rows % height if tall > 1 else 0
            lines = (of if prod(shape[:-2]) > 1 else 0) * tall + inside + np.zeros_like(rows)
        first, last = int(lines.min()), int(lines.max()) + 1
        size = self.scale.nbytes // (prod(shape) // wide)
        data = reader.read(self.scale.path, [(self.scale.offset + first * size, (last - first) * size)])
        scales: NDArray[Any] = _floats(data, self.scale.dtype).reshape(last - first, wide)[lines - first]
        return scales if self.block is None else scales.repeat(self.block[1], axis=1)[:, :width]


def _typed(tensor: Tensor, dtypes: Sequence[str]) -> None:
    if tensor.dtype not in dtypes:
        raise BrokenQuantization(tensor.name, f"is stored as {tensor.dtype}, not as {' or '.join(dtypes)}")


def _shaped(tensor: Tensor, shape: tuple[int, ...], why: str) -> None:
    if tensor.shape != shape:
        raise BrokenQuantization(tensor.name, f"has the shape {list(tensor.shape)}, {list(shape)} is expected {why}")


def _unpacked(words: NDArray[Any], bits: int) -> NDArray[Any]:
    """Unpack unsigned integers from 32-bit words, lowest first: ``(rows, columns)`` to ``(rows, columns, several)``."""
    several = (*words.shape, WORD // bits)
    if bits in (4, 8):  # by far the most frequent, and bytes are quicker than shifts
        halves = np.ascontiguousarray(words).view(np.uint8)
        if bits == 4:  # noqa: PLR2004
            halves = np.stack((halves & 0x0F, halves >> 4), axis=-1)
        return halves.reshape(several)
    shifts = np.arange(WORD // bits, dtype="<u4") * np.uint32(bits)
    integers: NDArray[Any] = ((words[..., None] >> shifts) & np.uint32((1 << bits) - 1)).astype(np.uint8)
    return integers


def _dequantized(integers: NDArray[Any], zeros: NDArray[Any] | int, scales: NDArray[Any]) -> NDArray[Any]:
    """Return the integers minus zero points (exact in float32) times scales."""
    numbers: NDArray[Any] = integers.astype("<f4")
    numbers -= zeros
    with np.errstate(all="ignore"):
        numbers *= scales
    return numbers


@dataclass(frozen=True)
class GptqTensor(EncodedTensor):
    """GPTQ's integers: a word has several inputs of one output; ``index`` is the group of each input."""

    scales: Tensor
    zeros: Tensor
    index: Tensor
    bits: int
    offset_of_zeros: int
    chunk: ClassVar[int] = 8 << 20  # many, since each is a column of what is stored

    @classmethod
    def make(
        cls, name: str, weight: Tensor, *, scales: Tensor, zeros: Tensor, index: Tensor, bits: int, offset: int
    ) -> GptqTensor:
        """Make the tensor; raises `BrokenQuantization` for parts that do not match."""
        for tensor in (weight, zeros, index):
            _typed(tensor, ("I32",))
        _typed(scales, SCALES[:3])
        several = WORD // bits
        if len(weight.shape) != 2 or len(scales.shape) != 2 or not scales.shape[0]:  # noqa: PLR2004
            raise BrokenQuantization(weight.name, f"has the shape {list(weight.shape)} and scales {list(scales.shape)}")
        words, outputs = weight.shape
        groups = scales.shape[0]
        _shaped(index, (words * several,), f"with {bits} bits")
        _shaped(scales, (groups, outputs), f"beside {weight.name}")
        if outputs % several:
            raise BrokenQuantization(weight.name, f"has {outputs} outputs, no multiple of {several}")
        _shaped(zeros, (groups, outputs // several), f"with {bits} bits")
        shape = (outputs, words * several)
        return cls.of(
            weight, name, "F32", shape, scales=scales, zeros=zeros, index=index, bits=bits, offset_of_zeros=offset
        )

    def rows(self, low: int, high: int, reader: Reader) -> NDArray[Any]:
        """Return the rows of outputs: integers minus zero points, times scales."""
        (words, _), (groups, _) = self.main.shape, self.scales.shape
        several, size = WORD // self.bits, self.scales.nbytes // self.scales.elements
        index = _row_data(self.index, 0, 1, reader).view("<i4").reshape(-1).copy()
        if int(index.min()) < 0 or int(index.max()) >= groups:
            wrong = int(index.min()) if int(index.min()) < 0 else int(index.max())
            raise BrokenQuantization(self.index.name, f"names group {wrong}, of {groups}")
        first, last = low // several, -(-high // several)
        zeros = _row_data(self.zeros, 0, groups, reader, columns=slice(first * 4, last * 4)).view("<u4")
        zeros = _unpacked(zeros, self.bits).reshape(groups, -1)[:, low - first * several : high - first * several]
        zeros = zeros.T.astype("<f4") + np.float32(self.offset_of_zeros)
        scales = _row_data(self.scales, 0, groups, reader, columns=slice(low * size, high * size))
        scales = _floats(scales, self.scales.dtype).reshape(groups, -1).T
        columns = _row_data(self.main, 0, words, reader, columns=slice(low * 4, high * 4)).view("<u4")
        integers = _unpacked(np.ascontiguousarray(columns.T), self.bits).reshape(high - low, -1)
        length = len(index) // groups
        if length * groups == len(index) and np.array_equal(index, np.arange(len(index)) // length):
            parts = integers.reshape(high - low, groups, length)  # inputs in their order, which is quicker
            return _dequantized(parts, zeros[..., None], scales[..., None]).reshape(high - low, -1)
        return _dequantized(integers, zeros[:, index], scales[:, index])


@dataclass(frozen=True)
class PackedTensor(EncodedTensor):
    """Integers of compressed-tensors: words along rows, zero points along columns, scales per group."""

    scale: Tensor
    zeros: Tensor | None
    bits: int
    group: int

    @classmethod
    def make(
        cls, name: str, weight: Tensor, *, scale: Tensor, zeros: Tensor | None, bits: int, group: int | None
    ) -> PackedTensor:
        """Make the tensor; raises `BrokenQuantization` for parts that do not match."""
        _typed(weight, ("I32",))
        _typed(scale, SCALES[:3])
        several = WORD // bits
        if len(weight.shape) != 2 or len(scale.shape) != 2 or weight.shape[0] != scale.shape[0]:  # noqa: PLR2004
            text = f"has the shape {list(scale.shape)}, which does not fit {list(weight.shape)}"
            raise BrokenQuantization(scale.name, text)
        height, groups = scale.shape
        if group is None and groups == 1:
            group = weight.shape[1] * several  # as many as fit; rows are as long as that where words are full
        width = groups * (group or 0)
        if group is None or -(-width // several) != weight.shape[1]:
            text = f"has {weight.shape[1]} words of {bits} bits in a row, {groups} groups of {group} are expected"
            raise BrokenQuantization(weight.name, text)
        if zeros is not None:
            _typed(zeros, ("I32",))
            _shaped(zeros, (-(-height // several), groups), f"with {bits} bits")
        return cls.of(weight, name, "F32", (height, width), scale=scale, zeros=zeros, bits=bits, group=group)

    def rows(self, low: int, high: int, reader: Reader) -> NDArray[Any]:
        """Return the integers minus zero points, times scales."""
        groups, several = self.scale.shape[1], WORD // self.bits
        scales = _floats(_row_data(self.scale, low, high, reader), self.scale.dtype).reshape(high - low, groups, 1)
        zeros: NDArray[Any] | int = 1 << (self.bits - 1)
        if self.zeros is not None:
            first, last = low // several, -(-high // several)
            words = _row_data(self.zeros, first, last, reader).view("<u4")
            every = _unpacked(words, self.bits).transpose(0, 2, 1).reshape(-1, groups)
            zeros = every[low - first * several : high - first * several, :, None].astype("<f4")  # not in the buffer
        words = _row_data(self.main, low, high, reader).view("<u4")
        numbers = _unpacked(words, self.bits).reshape(high - low, -1)[:, : self.shape[-1]]
        return _dequantized(numbers.reshape(high - low, groups, self.group), zeros, scales).reshape(high - low, -1)


@dataclass(frozen=True)
class Mxfp4Tensor(EncodedTensor):
    """MXFP4 blocks of 32 numbers in llama.cpp's order: the exponent, then numbers i and i + 16 in one byte."""

    exponents: Tensor

    @classmethod
    def make(cls, name: str, blocks: Tensor, exponents: Tensor) -> Mxfp4Tensor:
        """Make the tensor; raises `BrokenQuantization` for parts that do not match."""
        _typed(blocks, ("U8",))
        _typed(exponents, ("U8",))
        if len(blocks.shape) < 3 or blocks.shape[-1] != MX_BYTES:  # noqa: PLR2004
            raise BrokenQuantization(blocks.name, f"has the shape {list(blocks.shape)}, no blocks of {MX_BYTES} bytes")
        _shaped(exponents, blocks.shape[:-1], f"beside {blocks.name}")
        shape = (*blocks.shape[:-2], blocks.shape[-2] * MX_BLOCK)
        return cls.of(blocks, name, "MXFP4", shape, exponents=exponents)

    @property
    def row_bytes(self) -> int:
        """Bytes of one row of whole blocks."""
        return self.shape[-1] // MX_BLOCK * (MX_BYTES + 1)

    def rows(self, low: int, high: int, reader: Reader) -> NDArray[Any]:
        """Return rows of whole blocks, as bytes."""
        many = self.shape[-1] // MX_BLOCK
        made = np.empty((high - low, many, MX_BYTES + 1), dtype=np.uint8)
        made[:, :, 0] = _row_data(self.exponents, low, high, reader)
        pairs = _row_data(self.main, low * many, high * many, reader).reshape(high - low, many, MX_BYTES)
        front, back = pairs[:, :, : MX_BYTES // 2], pairs[:, :, MX_BYTES // 2 :]
        made[:, :, 1::2] = front & 0x0F | back << 4  # the first number of each pair is in the lower half
        made[:, :, 2::2] = front >> 4 | back & 0xF0
        return made.reshape(high - low, -1)


@dataclass(frozen=True)
class Transposed(EncodedTensor):
    """Transposed matrices, one per expert; the numbers are unchanged."""

    chunk: ClassVar[int] = 4 << 20

    @classmethod
    def make(cls, name: str, stored: Tensor) -> Transposed:
        """Return the tensor with its last two dimensions exchanged."""
        return cls.of(stored, name, stored.dtype, (*stored.shape[:-2], stored.shape[-1], stored.shape[-2]))

    def rows(self, low: int, high: int, reader: Reader) -> NDArray[Any]:
        """Return columns of the stored tensor."""
        height, width = self.shape[-2:]
        size, found = self.main.nbytes // self.main.elements, []
        for number in range(low // height, -(-high // height)):
            start, stop = max(low - number * height, 0), min(high - number * height, height)
            place = slice(start * size, stop * size)
            columns = _row_data(self.main, number * width, (number + 1) * width, reader, columns=place)
            found.append(columns.view(LAYOUT[self.dtype]).T.copy())  # the next expert is read into the same buffer
        return np.concatenate(found)
