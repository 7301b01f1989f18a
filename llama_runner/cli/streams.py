"""Standard output and standard error of the command line: whatever is written to them is safe to print.

Names of files, metadata of models, answers of servers and the output of programs come from elsewhere. Their control
characters could move the cursor, hide lines or forge them. They are written as escapes, also where the output is a
file: it may be shown on a terminal later.
"""

from __future__ import annotations

import codecs
import sys
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any

import click

from llama_runner.core.printable import printable, printable_lines

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_ERASE_LINE = "\r\x1b[K"


def say(*lines: str, err: bool = False) -> None:
    """Print lines for people. A line end within one of them, part of a foreign value, is printed as an escape."""
    click.echo(joined(lines), err=err)


def joined(lines: Iterable[str]) -> str:
    """Return lines as one text, each of them on one line."""
    return "\n".join(map(printable, lines))


class PrintableStream:
    """A text stream that writes through to another one; see the module."""

    def __init__(self, stream: IO[str]) -> None:
        self.raw = stream
        self.encoding = "utf-8"
        """What click looks at: it would go around a stream of ASCII."""
        self._encoding = getattr(stream, "encoding", None) or "utf-8"

    def write(self, text: str) -> int:
        """Write text with its line ends and tabs; other control characters become escapes."""
        shown = printable_lines(text)
        if self._encoding != "utf-8":
            shown = shown.encode(self._encoding, "backslashreplace").decode(self._encoding)
        self.raw.write(shown)
        return len(text)

    def erase_line(self) -> None:
        """Move to the start of the line of a terminal, and clear it."""
        self.raw.write(_ERASE_LINE)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.raw, name)


class PrintableBytes:
    """A stream of bytes in UTF-8, the output of a program, that is written to a text stream."""

    def __init__(self, stream: IO[str] | PrintableStream) -> None:
        self._stream = stream if isinstance(stream, PrintableStream) else PrintableStream(stream)
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")

    def write(self, block: bytes) -> int:
        """Write bytes; a character may continue in the next block."""
        self._stream.write(self._decoder.decode(block))
        return len(block)

    def flush(self) -> None:
        """Write what is buffered."""
        self._stream.flush()


@contextmanager
def printable_streams() -> Iterator[None]:
    """Replace ``sys.stdout`` and ``sys.stderr`` for the duration of a command."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (stream and PrintableStream(stream) for stream in before)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
