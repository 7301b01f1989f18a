"""Writes to a stream in a background thread, so that a slow or blocked reader does not block the program."""

from __future__ import annotations

import io
import threading
import time
from collections import deque
from contextlib import suppress
from typing import IO, Any

LIMIT = 1 << 20
"""Maximum bytes in the queue."""

PATIENCE_S = 1.0
"""Default of the seconds that ``write`` waits for space before it drops lines, and ``flush`` for progress."""

_CHUNK = 4096
"""Bytes of one write: a pipe with this much space takes them at once."""

_IDLE_S = 5.0
_POLL_S = 0.05


class BackgroundWriter:
    """A binary stream that does not block for long, over one that may. Thread-safe.

    If ``LIMIT`` bytes are queued and none is written for ``patience`` seconds, whole lines are dropped until half of
    the queue is written; then a line with their number is written. After an error of the stream nothing is written.
    """

    def __init__(self, stream: IO[bytes], *, patience: float = PATIENCE_S) -> None:
        self._patience = patience
        with suppress(OSError, ValueError):
            stream.flush()
        # a thread that is blocked in a buffered stream holds its lock, which the interpreter needs when it exits
        self._stream: Any = getattr(stream, "raw", stream)
        self._blocks: deque[bytes] = deque()
        self._size = self._dropped = 0
        self._failed = self._dropping = False
        self._at_line_end = True
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    @classmethod
    def over(cls, stream: IO[bytes] | BackgroundWriter) -> BackgroundWriter:
        """Return a writer over a stream; the stream itself if it is one."""
        return stream if isinstance(stream, BackgroundWriter) else cls(stream)

    def write(self, block: bytes) -> None:
        """Queue a block; does nothing after an error of the stream."""
        with self._changed:
            if self._failed or not block:
                return
            if not self._dropping and not self._changed.wait_for(lambda: self._has_room(block), self._patience):
                self._dropping = True
            if self._dropping and (self._failed or self._size > LIMIT // 2 or b"\n" not in block):
                self._dropped += block.count(b"\n")
                return
            if self._dropping:
                rest = block[block.index(b"\n") + 1 :]
                self._dropped += 1
                self._append_dropped_notice()
                block = rest
            self._append(block)

    def flush(self, patience: float = PATIENCE_S) -> None:
        """Wait until everything is written, or nothing was written for ``patience`` seconds."""
        with self._changed:
            if self._dropping and not self._failed:
                self._append_dropped_notice()
            while self._size and not self._failed and self._wait_for_progress(self._size, patience):
                pass

    def _wait_for_progress(self, before: int, patience: float) -> bool:
        """Wait until fewer than ``before`` bytes are queued; return False after ``patience`` seconds."""
        return self._changed.wait_for(lambda: self._failed or self._size < before, patience)

    def _has_room(self, block: bytes) -> bool:
        return self._failed or not self._size or self._size + len(block) <= LIMIT

    def _append_dropped_notice(self) -> None:
        begin = b"" if self._at_line_end else b"\n"
        self._append(begin + b"llama-runner: %d lines are not shown here; the log has them\n" % self._dropped)
        self._dropping, self._dropped = False, 0

    def _append(self, block: bytes) -> None:
        if not block:
            return
        self._blocks.append(block)
        self._size += len(block)
        self._at_line_end = block.endswith(b"\n")
        self._changed.notify_all()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while True:
            with self._changed:
                if not self._changed.wait_for(lambda: self._blocks, _IDLE_S):
                    self._thread = None
                    return
                block = memoryview(self._blocks.popleft())
            try:
                while block:
                    count = self._write_some(block)
                    block = block[count:]
                    with self._changed:
                        self._size -= count
                        self._changed.notify_all()
            except Exception:  # noqa: BLE001 - the stream is unusable, and this thread has no caller to tell
                with self._changed:
                    self._failed, self._size, self._thread = True, 0, None
                    self._blocks.clear()
                    self._changed.notify_all()
                return

    def _write_some(self, block: memoryview) -> int:
        chunk = bytes(block[:_CHUNK])
        # other processes may write to the same pipe: end at a line end, if possible
        chunk = chunk[: chunk.rfind(b"\n") + 1] or chunk
        if not isinstance(self._stream, io.RawIOBase):
            self._stream.write(chunk)
            self._stream.flush()
            return len(chunk)
        count: int | None = self._stream.write(chunk)
        if count is None:  # the stream is non-blocking and full
            time.sleep(_POLL_S)
        return count or 0
