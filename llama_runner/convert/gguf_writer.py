"""Writes a GGUF file from a plan, in chunks, and hashes it while writing.

Two threads read and cast chunks, a third writes them in order, a fourth hashes them and lets the system begin to bring
them to the disk, so that the caller's fsync has little left to wait for. Memory does not grow with the model, and is
used again for each chunk. Shards are read into buffers and not mapped: a shard that is truncated meanwhile is then an
error, where a mapping would kill the process.
"""

from __future__ import annotations

import queue
import threading
from collections import Counter, deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from llama_runner.convert.cut_tensor_into_chunks import chunks_of
from llama_runner.convert.errors import SourceChanged, reading
from llama_runner.convert.gguf_metadata import encode_string
from llama_runner.convert.safetensors import Stamp
from llama_runner.core.errors import Interrupted
from llama_runner.system.files import open_regular
from llama_runner.system.hashing import hasher_for
from llama_runner.system.platforms import allocate_file, read_at, start_write_back

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from io import BufferedReader, FileIO
    from pathlib import Path

    from numpy.typing import NDArray
    from typing_extensions import Self

    from llama_runner.convert.cut_tensor_into_chunks import ChunkData
    from llama_runner.convert.gguf_metadata import KeyValues
    from llama_runner.convert.safetensors import Shard
    from llama_runner.convert.tensor_plan import PlannedTensor
    from llama_runner.core.digest import Digest, Hasher

ALIGNMENT = 32
WAITING = 3  # chunks that may wait to be hashed
WORKERS = 2
AHEAD = 4  # chunks that are being made, or made and not yet written
BUFFERS = WAITING + AHEAD + 2  # with one being hashed and one being written, a buffer that comes round again is free
KEPT = 8 << 20  # bytes of a result up to which its memory is kept for the next one
WRITE_BACK = 32 << 20  # bytes after which the system is told to write them to the disk
GGML_TYPES = {"F32": 0, "F16": 1, "Q8_0": 8, "BF16": 30, "MXFP4": 39}
VERSION = 3


def encode_header(values: KeyValues, planned: Sequence[PlannedTensor]) -> bytes:
    """Return the bytes before the data: magic, version, counts, metadata, tensor table, padding."""
    parts = [b"GGUF", VERSION.to_bytes(4, "little")]
    parts += [len(planned).to_bytes(8, "little"), len(values).to_bytes(8, "little"), values.encode()]
    offset = 0
    for tensor in planned:
        dimensions = b"".join(size.to_bytes(8, "little") for size in reversed(tensor.shape))
        parts += [encode_string(tensor.name), len(tensor.shape).to_bytes(4, "little"), dimensions]
        parts += [GGML_TYPES[tensor.dtype].to_bytes(4, "little"), offset.to_bytes(8, "little")]
        offset += padded(tensor.nbytes)
    data = b"".join(parts)
    return data + bytes(padded(len(data)) - len(data))


def padded(size: int) -> int:
    """Return the next multiple of the alignment."""
    return -(-size // ALIGNMENT) * ALIGNMENT


@dataclass(frozen=True)
class WriteResult:
    """Digest of the file, and the number of infinities and NaNs per tensor."""

    digest: Digest
    not_finite: Mapping[str, int]


def write(
    destination: Path,
    start: bytes,
    planned: Sequence[PlannedTensor],
    shards: Iterable[Shard],
    *,
    new_hasher: Callable[[int], Hasher] = hasher_for,
    on_progress: Callable[[int, int], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> WriteResult:
    """Write the file. No file is left after an error or a cancellation.

    ``new_hasher`` returns the hasher for a file of so many bytes.
    """
    total = len(start) + sum(padded(tensor.nbytes) for tensor in planned)
    file = destination.open("xb", buffering=0)  # an existing file is not ours to remove
    not_finite: Counter[str] = Counter()
    try:
        with file, ExitStack() as stack:
            allocate_file(file.fileno(), total)
            sources = _Sources(stack, shards)
            sink = stack.enter_context(_Sink(file, total, new_hasher(total), on_progress, cancelled))
            sink.write(start)
            left = 0
            for tensor, made in _in_order(stack, planned, sources):
                sink.write(made.data)
                not_finite[tensor.name] += made.not_finite
                left = (left or tensor.nbytes) - len(made.data)
                if not left:
                    sink.write(bytes(padded(tensor.nbytes) - tensor.nbytes))
            sources.check()
            return WriteResult(sink.finish(), +not_finite)
    except BaseException:
        destination.unlink(missing_ok=True)
        raise


def _in_order(
    stack: ExitStack, planned: Iterable[PlannedTensor], sources: _Sources
) -> Iterator[tuple[PlannedTensor, ChunkData]]:
    """Yield all chunks of all tensors; workers make them a little ahead."""
    workers = ThreadPoolExecutor(WORKERS, thread_name_prefix="cast")
    stack.callback(workers.shutdown, cancel_futures=True)
    ahead: deque[tuple[PlannedTensor, Future[ChunkData]]] = deque()
    every = ((tensor, chunk) for tensor in planned for chunk in chunks_of(tensor))
    for number, (made_of, chunk) in enumerate(every):
        if len(ahead) == AHEAD:
            first, future = ahead.popleft()
            yield first, future.result()
        ahead.append((made_of, workers.submit(chunk, sources.readers[number % BUFFERS])))
    for first, future in ahead:
        yield first, future.result()


class Reader:
    """Reads shards into one buffer; that and the memory of the result are free again when its chunk is hashed."""

    def __init__(self, files: Mapping[Path, BufferedReader | FileIO]) -> None:
        self._files = files
        self._buffer = self._result = np.empty(0, dtype=np.uint8)

    def memory(self, size: int) -> NDArray[np.uint8]:
        """Return undefined bytes for the result of a chunk; valid until the next call."""
        if size > KEPT:
            return np.empty(size, dtype=np.uint8)
        if len(self._result) < size:
            self._result = np.empty(size, dtype=np.uint8)
        return self._result[:size]

    def read(self, path: Path, ranges: Sequence[tuple[int, int]]) -> NDArray[np.uint8]:
        """Return ranges (offset, size) of a shard, concatenated; valid until the next call."""
        size = sum(size for _, size in ranges)
        if len(self._buffer) < size:
            self._buffer = np.empty(size, dtype=np.uint8)
        data = self._buffer[:size]
        rest, descriptor = data.data, self._files[path].fileno()
        for offset, length in ranges:
            place = offset
            while place < offset + length:
                with reading(path):
                    count = read_at(descriptor, rest[: offset + length - place], place)
                if not count:
                    raise SourceChanged(path)
                rest, place = rest[count:], place + count
        return data


class _Sources:
    """Open shards, with as many readers as there are buffers."""

    def __init__(self, stack: ExitStack, shards: Iterable[Shard]) -> None:
        self._shards = {shard.path: shard for shard in shards}
        self._files: dict[Path, BufferedReader] = {}
        for path in self._shards:
            with reading(path):
                self._files[path] = stack.enter_context(open_regular(path))
        self.readers = [Reader(self._files) for _ in range(BUFFERS)]
        self.check()

    def check(self) -> None:
        """Raise `SourceChanged` if a shard is no longer the file whose header was read."""
        for path, shard in self._shards.items():
            try:
                now = Stamp.of(path)
            except OSError as error:
                raise SourceChanged(path) from error
            opened = Stamp.of(self._files[path].fileno())
            if not (now.is_same(shard.stamp) and opened.is_same(shard.stamp)):
                raise SourceChanged(path)


class _Sink:
    """Output file, hashed by a second thread in the order of writing."""

    def __init__(
        self,
        file: FileIO,
        total: int,
        hasher: Hasher,
        on_progress: Callable[[int, int], None] | None,
        cancelled: Callable[[], bool] | None,
    ) -> None:
        self._file, self._total, self._written = file, total, 0
        self._on_progress, self._cancelled = on_progress, cancelled
        self._hasher = hasher
        self._queue: queue.Queue[bytes | memoryview | None] = queue.Queue(maxsize=WAITING)
        self._thread = threading.Thread(target=self._work, name="hash", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def write(self, data: bytes | memoryview) -> None:
        """Write all data and queue it for hashing; it must not change before that is done."""
        if not data:
            return
        if self._cancelled is not None and self._cancelled():
            raise Interrupted
        rest = memoryview(data)
        while rest:
            rest = rest[self._file.write(rest) :]
        self._queue.put(data)
        self._written += len(data)
        if self._on_progress is not None:
            self._on_progress(self._written, self._total)

    def finish(self) -> Digest:
        """Wait for the hashing of the last chunk; return the digest."""
        self._stop()
        assert self._written == self._total, "a rule's rows do not make up its shape"
        return self._hasher.digest()

    def _stop(self) -> None:
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()

    def _work(self) -> None:
        hashed = begun = 0
        while (data := self._queue.get()) is not None:
            self._hasher.update(data)
            hashed += len(data)
            if hashed - begun >= WRITE_BACK:
                start_write_back(self._file.fileno(), begun, hashed - begun)
                begun = hashed
