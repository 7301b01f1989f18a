"""Copies what a server prints to its log and the terminal; keeps the last lines and parses the port."""

from __future__ import annotations

import os
import re
import threading
import time
from collections import deque
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from llama_runner.serving.server_log import Log
    from llama_runner.system.background_writer import BackgroundWriter

_TAIL = 20
_LINE = 1000
_BURST = 4 * _TAIL
_PORTS = 8

_LISTENS = r"(?:^|\s)\w+: (?:server is )?listening on https?://\S+:(\d{1,5})(?: - starting the main loop)?$"
"""The line that llama-server prints when it listens; the words in brackets are those of earlier versions."""

_COLOUR = r"\x1b\[[\d;]*m"


class Output:
    """What a server has printed so far.

    ``heard`` is set once a line says that it listens, and at the end. A line may also be made up, by the name of a file
    that is printed: ``ports`` are all that were named, the last first. The caller checks which is the server's.
    """

    def __init__(self) -> None:
        self.tail: deque[str] = deque(maxlen=_TAIL)
        self.ports: deque[int] = deque(maxlen=_PORTS)
        self.heard = threading.Event()
        self.listen = True
        """Whether lines are still searched for ports."""
        self.spoke_at = time.monotonic()

    def copy(self, stream: IO[bytes], log: Log, terminal: BackgroundWriter | None) -> None:
        """Copy until the end of the stream, and close it and the log."""
        rest = b""
        while block := os.read(stream.fileno(), 1 << 16):
            self.spoke_at = time.monotonic()
            log.write(block)
            if terminal is not None:
                terminal.write(block)
            text = rest + block
            if self.listen and b"listening on " in text:
                *lines, rest = text.split(b"\n")
            else:  # of a burst only the last lines can become part of the tail
                *lines, rest = text.rsplit(b"\n", _BURST)
                del lines[: 1 - _BURST]  # what is before them, as one
            for line in lines:
                self._hear(line)
            rest = rest[-_LINE:]
        self._hear(rest)
        self.heard.set()  # who waits for a line waits for the end too
        stream.close()
        log.close()
        if terminal is not None:
            terminal.flush()

    def _hear(self, said: bytes) -> None:
        line = said[-_LINE:].decode("utf-8", "replace").rstrip()
        if line:
            self.tail.append(line)
        if self.listen and "listening on " in line:
            if match := re.search(_LISTENS, re.sub(_COLOUR, "", line)):  # compiled here, not at every start
                self.ports.appendleft(int(match[1]))
            self.heard.set()
