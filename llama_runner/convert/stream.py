"""Writes a GGUF file from a plan, in chunks: memory does not grow with the model, and the file is read by no one again.

The SHA-256 is computed by a second thread from the chunks as they are written. Shards are read into buffers
rather than mapped: a shard that is cut short while it is read is then an error, where a mapping would kill the
process. What stands in the chunks is `cast`'s business, what is written the plan's.
"""

from __future__ import annotations

import hashlib
import os
import queue
import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np

from llama_runner.convert.cast import cast, for_rope
from llama_runner.convert.errors import SourceChanged
from llama_runner.convert.keyvalues import encode_string
from llama_runner.convert.safetensors import Stamp
from llama_runner.convert.tensors import ITEM_BYTES
from llama_runner.core.errors import Interrupted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from io import FileIO
    from pathlib import Path

    from numpy.typing import NDArray
    from typing_extensions import Self

    from llama_runner.convert.keyvalues import KeyValues
    from llama_runner.convert.safetensors import Shard
    from llama_runner.convert.tensors import Planned

ALIGNMENT = 32
CHUNK = 2 << 20  # measured: the fastest of 256 KiB to 8 MiB, by a little
WAITING = 3  # chunks that may wait to be hashed
BUFFERS = WAITING + 3  # with one being hashed and one being filled, a buffer that comes round again is free
GGML_TYPES = {"F32": 0, "F16": 1, "BF16": 30}
VERSION = 3


def head(values: KeyValues, planned: Sequence[Planned]) -> bytes:
    """Everything before the data: magic, version, counts, metadata, the table of tensors, padding."""
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
    """The next multiple of the alignment."""
    return -(-size // ALIGNMENT) * ALIGNMENT


def write(
    destination: Path,
    start: bytes,
    planned: Sequence[Planned],
    shards: Iterable[Shard],
    *,
    on_progress: Callable[[int, int], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> str:
    """Write the file and return its SHA-256 in hex. On any error, and when cancelled, no file is left."""
    total = len(start) + sum(padded(tensor.nbytes) for tensor in planned)
    file = destination.open("xb", buffering=0)  # an existing file is not ours to remove
    try:
        with file, ExitStack() as stack:
            sources = _Sources(stack, shards)
            sink = stack.enter_context(_Sink(file, total, on_progress, cancelled))
            sink.write(start)
            for tensor in planned:
                for chunk in _chunks(tensor, sources):
                    sink.write(chunk)
                sink.write(bytes(padded(tensor.nbytes) - tensor.nbytes))
            sources.check()
            return sink.finish()
    except BaseException:
        destination.unlink(missing_ok=True)
        raise


def _chunks(tensor: Planned, sources: _Sources) -> Iterator[memoryview]:
    """The bytes of one tensor of the output, a chunk at a time."""
    if tensor.source is None:
        yield _bytes(np.asarray(tensor.values, dtype="<f4"))
        return
    stored = tensor.source.dtype
    rows = tensor.shape[0] if tensor.heads else 1
    unit = tensor.source.nbytes // tensor.heads if tensor.heads else ITEM_BYTES[stored]
    step = max(1, CHUNK // max(unit, 1)) * unit
    for start in range(0, tensor.source.nbytes, max(step, 1)):
        size = min(step, tensor.source.nbytes - start)
        data = sources.read(tensor.source.path, tensor.source.offset + start, size)
        numbers = cast(data, stored, tensor.dtype)
        if tensor.heads:
            heads = size // unit
            columns = tensor.elements // rows
            numbers = np.ascontiguousarray(for_rope(numbers.reshape(-1, columns), heads))
        yield _bytes(numbers)


def _bytes(numbers: NDArray[Any]) -> memoryview:
    return numbers.reshape(-1).view(np.uint8).data


class _Sources:
    """The open shards. Reads into a ring of buffers, of which each is used again only after it was hashed."""

    def __init__(self, stack: ExitStack, shards: Iterable[Shard]) -> None:
        self._shards = {shard.path: shard for shard in shards}
        self._files: dict[Path, FileIO] = {}
        for path in self._shards:
            self._files[path] = stack.enter_context(path.open("rb", buffering=0))
        self._buffers = [np.empty(0, dtype=np.uint8) for _ in range(BUFFERS)]
        self._turn = 0
        self.check()

    def read(self, path: Path, offset: int, size: int) -> NDArray[np.uint8]:
        """Bytes of a shard, valid until as many others have been read as there are buffers."""
        self._turn = (self._turn + 1) % BUFFERS
        if len(self._buffers[self._turn]) < size:
            self._buffers[self._turn] = np.empty(max(size, CHUNK), dtype=np.uint8)
        data = self._buffers[self._turn][:size]
        rest = data.data
        file = self._files[path]
        file.seek(offset)
        while rest:
            count = file.readinto(rest)
            if not count:
                raise SourceChanged(path)
            rest = rest[count:]
        return data

    def check(self) -> None:
        """Raise `SourceChanged` unless every shard is still the file whose header was read."""
        for path, shard in self._shards.items():
            try:
                now = Stamp.of(path.stat())
            except OSError as error:
                raise SourceChanged(path) from error
            if now != shard.stamp or Stamp.of(os.fstat(self._files[path].fileno())) != shard.stamp:
                raise SourceChanged(path)


class _Sink:
    """The file that is written, hashed by a second thread in the order of writing."""

    def __init__(
        self,
        file: FileIO,
        total: int,
        on_progress: Callable[[int, int], None] | None,
        cancelled: Callable[[], bool] | None,
    ) -> None:
        self._file, self._total, self._written = file, total, 0
        self._on_progress, self._cancelled = on_progress, cancelled
        self._hash = hashlib.sha256()
        self._queue: queue.Queue[bytes | memoryview | None] = queue.Queue(maxsize=WAITING)
        self._thread = threading.Thread(target=self._work, name="sha256", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def write(self, data: bytes | memoryview) -> None:
        """Write all of it, and hand it on to be hashed; it must not change before that is done."""
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

    def finish(self) -> str:
        """Wait for the last chunk; the digest in hex."""
        self._stop()
        return self._hash.hexdigest()

    def _stop(self) -> None:
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()

    def _work(self) -> None:
        while (data := self._queue.get()) is not None:
            self._hash.update(data)
