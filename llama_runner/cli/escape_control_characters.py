"""Standard output and standard error of the command line: foreign control characters are escaped.

Names of files, metadata of models, answers of servers and the output of programs come from elsewhere. Their control
characters could move the cursor, hide lines or forge them. They are written as escapes, also where the output is a
file: it may be shown on a terminal later.
"""

from __future__ import annotations

import codecs
import os
import sys
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING, Any, TextIO, cast

from llama_runner.core.printable_text import printable, printable_lines
from llama_runner.system.background_writer import BackgroundWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_at_end: list[Callable[[], object]] = []


def at_end(function: Callable[[], object]) -> None:
    """Call a function when the command ends, before it is said how it ended. Click does that for its commands."""
    click = sys.modules.get("click")
    context = None if click is None else click.get_current_context(silent=True)
    (_at_end.append if context is None else context.call_on_close)(function)


def call_at_end() -> None:
    """Call what waits for the end of a command that click has not called."""
    while _at_end:
        _at_end.pop()()


def echo(text: str, *, err: bool = False) -> None:
    """Print a text and a line end at once, as ``click.echo`` does, without click. Nothing where there is no stream."""
    stream = sys.stderr if err else sys.stdout
    if stream is not None:
        stream.write(f"{text}\n")
        stream.flush()


def say(*lines: str, err: bool = False) -> None:
    """Print lines for people. A line end within one of them, part of a foreign value, is printed as an escape."""
    echo(joined(lines), err=err)


def joined(lines: Iterable[str]) -> str:
    """Return lines as one text, each of them on one line."""
    return "\n".join(map(printable, lines))


_styled: set[str] = set()
"""Texts of ours that were made safe before they were given colours."""


def styled(text: str) -> str:
    """Mark a text with colours as safe; its foreign parts must have been made printable."""
    _styled.add(text.strip("\n"))
    return text


def has_colour(stream: IO[str] | None) -> bool:
    """Whether to colour what is written to a stream; see no-color.org and bixense.com/clicolors."""
    if os.environ.get("NO_COLOR"):
        return False
    if any(os.environ.get(name, "0") not in ("", "0") for name in ("FORCE_COLOR", "CLICOLOR_FORCE")):
        return True
    return is_live(stream)


class PrintableStream:
    """A text stream that writes through to another one; see the module."""

    def __init__(self, stream: IO[str]) -> None:
        self.raw: IO[str] | UnblockedStream = stream
        self.encoding = "utf-8"
        """What click looks at: it would go around a stream of ASCII."""
        self._encoding = getattr(stream, "encoding", None) or "utf-8"

    def write(self, text: str) -> int:
        """Write text with its line ends and tabs; other control characters become escapes, but for ``styled`` texts."""
        shown = text if text.strip("\n") in _styled else printable_lines(text)
        if self._encoding != "utf-8":
            shown = shown.encode(self._encoding, "backslashreplace").decode(self._encoding)
        try:
            self.raw.write(shown)
        except OSError as error:
            self._name(error)
            raise
        return len(text)

    def flush(self) -> None:
        """Write what is buffered."""
        try:
            self.raw.flush()
        except OSError as error:
            self._name(error)
            raise

    def _name(self, error: OSError) -> None:
        """Add the name of the stream to an error of the system."""
        names = {"<stdout>": "standard output", "<stderr>": "standard error"}
        error.filename = error.filename or names.get(str(getattr(self.raw, "name", "")))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.raw, name)


def is_live(stream: IO[str] | None) -> bool:
    """Whether a stream is a terminal that moves its cursor."""
    return stream is not None and stream.isatty() and os.environ.get("TERM") != "dumb"


def terminal_of(stream: IO[str]) -> IO[str]:
    """Return the stream behind ours, which lets control characters through: for text that has no foreign ones."""
    while isinstance(stream, PrintableStream):
        stream = cast("IO[str]", stream.raw)
    return stream


class PrintableBytes:
    """A stream of bytes in UTF-8, the output of a program, that is written to a text stream."""

    def __init__(self, stream: IO[str] | PrintableStream) -> None:
        self._stream = stream if isinstance(stream, PrintableStream) else PrintableStream(stream)
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")

    def write(self, block: bytes) -> int:
        """Write bytes; a character may continue in the next block."""
        self._stream.write(self._decoder.decode(block).replace("\r\n", "\n"))  # as programs on Windows end a line
        return len(block)

    def flush(self) -> None:
        """Write what is buffered."""
        self._stream.flush()


class UnblockedStream:
    """A text stream over one that may block its writer: it is written in a thread of its own."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._writer = BackgroundWriter(stream.buffer)

    def write(self, text: str) -> int:
        """Write text as soon as the stream takes it."""
        self._writer.write(text.encode(self._stream.encoding or "utf-8", "backslashreplace"))
        return len(text)

    def flush(self) -> None:
        """Do nothing: nothing waits that could be written."""

    def drain(self) -> None:
        """Return once everything is written, or the stream takes nothing any more."""
        self._writer.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def unblock_streams() -> None:
    """Make writes return at once from now on, whether or not they are read: a server must not wait for a terminal."""
    for stream in (sys.stdout, sys.stderr):
        if not isinstance(stream, PrintableStream) or isinstance(stream.raw, UnblockedStream):
            continue
        if hasattr(stream.raw, "buffer"):  # a text in memory never blocks
            with suppress(OSError, ValueError):
                stream.flush()
            stream.raw = UnblockedStream(cast("TextIO", stream.raw))


@contextmanager
def printable_streams() -> Iterator[None]:
    """Replace ``sys.stdout`` and ``sys.stderr`` for the duration of a command."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (stream and PrintableStream(stream) for stream in before)
    ours = sys.stdout, sys.stderr
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
        for stream in ours:
            if isinstance(stream, PrintableStream) and isinstance(stream.raw, UnblockedStream):
                stream.raw.drain()
