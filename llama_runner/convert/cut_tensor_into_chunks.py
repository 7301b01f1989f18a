"""Cuts a tensor of the output into chunks that any thread can make independently.

A chunk is a function of a `Reader`. There are three kinds: bytes in stored order, rows in another order, and transposed
matrices. Memory for a chunk does not depend on the tensor's size, except for transposed matrices.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from llama_runner.convert.cast_numbers import LAYOUT, cast, not_finite
from llama_runner.convert.dequantize import EncodedTensor
from llama_runner.convert.tensor_types import BLOCKS, ITEM_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path
    from typing import Protocol

    from numpy.typing import NDArray

    from llama_runner.convert.safetensors import Tensor
    from llama_runner.convert.tensor_plan import PlannedTensor, TensorPart

    class Reader(Protocol):
        """Reads shards."""

        def read(self, path: Path, ranges: Sequence[tuple[int, int]]) -> NDArray[np.uint8]:
            """The bytes of some ranges (offset and size), one after the other."""

        def memory(self, size: int) -> NDArray[np.uint8]:
            """Undefined bytes for the result of one chunk."""

    Chunk = Callable[[Reader], "ChunkData"]

CHUNK = 2 << 20  # bytes read; measured: the fastest of 256 KiB to 8 MiB, by a little
TILE = 16 << 20  # of a matrix that is transposed, which is read again for each
SPARSE = 4  # where fewer than one in so many rows are wanted, only those are read


@dataclass(frozen=True)
class ChunkData:
    """Bytes of a chunk, and the number of infinities and NaNs if the type has 16 bits."""

    data: memoryview
    not_finite: int = 0


def chunks_of(planned: PlannedTensor) -> Iterator[Chunk]:
    """Yield all chunks of a tensor in order."""
    if not planned.pieces:
        yield partial(_values, planned.values)
    for piece in planned.pieces:
        if piece.transposed:
            yield from _transposed(piece, planned.dtype, planned.shape[-1])
        elif piece.rows is not None or piece.order is not None or isinstance(piece.source, EncodedTensor):
            yield from _rows(piece, planned.dtype)
        else:
            yield from _bytes(piece, planned.dtype)
    elements, unit = BLOCKS[planned.dtype]
    size = planned.zeros // elements * unit
    for start in range(0, size, CHUNK):
        yield partial(_zeros, min(CHUNK, size - start))


def _zeros(size: int, reader: Reader) -> ChunkData:
    del reader
    return ChunkData(np.zeros(size, dtype=np.uint8).data)


def _values(values: Sequence[float], reader: Reader) -> ChunkData:
    del reader
    return ChunkData(np.asarray(values, dtype="<f4").view(np.uint8).data)


def _bytes(piece: TensorPart, dtype: str) -> Iterator[Chunk]:
    size, unit = piece.source.nbytes, BLOCKS[dtype][0] * ITEM_BYTES[piece.source.dtype]
    step = max(1, CHUNK // unit) * unit
    for start in range(0, size, step):
        yield partial(_stored, piece, dtype, (piece.source.offset + start, min(step, size - start)))


def _stored(piece: TensorPart, dtype: str, place: tuple[int, int], reader: Reader) -> ChunkData:
    return _converted(reader.read(piece.source.path, [place]).view(LAYOUT[piece.source.dtype]), piece, dtype, reader)


def _rows(piece: TensorPart, dtype: str) -> Iterator[Chunk]:
    source = piece.source
    numbers = piece.rows.numbers() if piece.rows is not None else np.arange(source.elements // piece.width)
    unit = piece.rows.unit if piece.rows is not None else 1
    if isinstance(source, EncodedTensor):
        step = max(1, source.chunk // source.row_bytes)
    else:
        step = max(1, CHUNK // (piece.width * ITEM_BYTES[source.dtype]))
    if step >= unit:  # whole units, so that none is read twice
        step = step // unit * unit
    for start in range(0, len(numbers), step):
        yield partial(_reordered, piece, dtype, numbers[start : start + step])


def _reordered(piece: TensorPart, dtype: str, numbers: NDArray[Any], reader: Reader) -> ChunkData:
    matrix = _gather(piece, numbers, reader)
    if piece.order is not None:
        matrix = matrix.take(piece.order.numbers(), axis=1)
    return _converted(matrix.reshape(-1), piece, dtype, reader)


def _transposed(piece: TensorPart, dtype: str, height: int) -> Iterator[Chunk]:
    """Yield transposed matrices of ``height`` rows each."""
    source = piece.source
    numbers = piece.rows.numbers() if piece.rows is not None else np.arange(source.elements // piece.width)
    columns = range(piece.width)[piece.columns or slice(None)]
    step = max(1, TILE // (height * ITEM_BYTES[source.dtype]))
    for first in range(0, len(numbers), height):
        for start in range(0, len(columns), step):
            chosen = columns[start : start + step]
            yield partial(_transposed_rows, piece, dtype, numbers[first : first + height], chosen)


def _transposed_rows(piece: TensorPart, dtype: str, numbers: NDArray[Any], columns: range, reader: Reader) -> ChunkData:
    matrix = _gather(piece, numbers, reader)[:, columns.start : columns.stop : columns.step]
    return _converted(np.ascontiguousarray(matrix.T).reshape(-1), piece, dtype, reader)


def _gather(piece: TensorPart, numbers: NDArray[Any], reader: Reader) -> NDArray[Any]:
    """Return rows of a stored tensor by their numbers."""
    source, low, high = piece.source, int(numbers.min()), int(numbers.max()) + 1
    steady = bool((np.diff(numbers) == 1).all())
    if isinstance(source, EncodedTensor):
        return _combined(source, numbers, reader) if not steady else source.rows(low, high, reader)
    size = piece.width * ITEM_BYTES[source.dtype]
    if steady or high - low <= SPARSE * len(numbers):
        data = reader.read(source.path, [(source.offset + low * size, (high - low) * size)])
        matrix: NDArray[Any] = data.view(LAYOUT[source.dtype]).reshape(high - low, piece.width)
        return matrix if steady else matrix.take(numbers - low, axis=0)
    return _scattered(source, numbers, size, reader).reshape(len(numbers), piece.width)


def _combined(source: EncodedTensor, numbers: NDArray[Any], reader: Reader) -> NDArray[Any]:
    """Return non-contiguous rows; distant ones are computed one by one."""
    low, high = int(numbers.min()), int(numbers.max()) + 1
    if high - low <= SPARSE * len(numbers):
        return source.rows(low, high, reader).take(numbers - low, axis=0)
    runs = np.split(numbers, np.flatnonzero(np.diff(numbers) != 1) + 1)
    return np.concatenate([source.rows(int(run[0]), int(run[-1]) + 1, reader) for run in runs])


def _scattered(source: Tensor, numbers: NDArray[Any], size: int, reader: Reader) -> NDArray[Any]:
    runs = np.split(numbers, np.flatnonzero(np.diff(numbers) != 1) + 1)
    ranges = [(source.offset + int(run[0]) * size, len(run) * size) for run in runs]
    found: NDArray[Any] = reader.read(source.path, ranges).view(LAYOUT[source.dtype])
    return found


def _converted(numbers: NDArray[Any], piece: TensorPart, dtype: str, reader: Reader) -> ChunkData:
    stored = piece.source.dtype
    cast_numbers = cast(numbers, stored, dtype, shift=piece.shift, decay=piece.decay, memory=reader.memory)
    count = not_finite(cast_numbers) if dtype == "F16" and stored != "F16" else 0
    return ChunkData(cast_numbers.view(np.uint8).data, count)
