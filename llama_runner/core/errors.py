"""The one root of everything that llama_runner reports as the user's or the world's fault.

A class exists where somebody catches it, where it is public, or where others read its attributes. Other causes are
functions called ``…_error`` beside the code that meets them; each returns an error with its text: the fact first, then
the value; the way out is the hint. ``KeyError`` and ``ValueError`` are bugs of ours and keep their traceback.
"""

from __future__ import annotations

from typing import Any

from llama_runner.core.printable import printable_message
from llama_runner.core.redaction import redacted

_LONGEST = 1 << 15
"""Characters of a text; the last lines of a program have a few thousand."""


class ExitCode:
    """Exit statuses of the command line; an error class names the one it ends with."""

    DONE = 0
    USAGE = 2
    SOURCE = 3
    DOWNLOAD = 4
    TOOL = 5
    STEP = 6
    STORE = 7
    SERVER = 8
    INTERRUPTED = 130


class LlamaRunnerError(Exception):
    """Something that the user can understand and act on.

    ``str(error)`` is the fact with its value, in lower case and without a full stop at the end; ``hint``
    is the way out, or None where there is none; ``code`` is the exit status of the command line. Both texts are
    safe to print, whatever foreign values they contain, and credentials in URLs are removed; the attributes of
    subclasses hold the values as they are.
    """

    code: int = ExitCode.STEP

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(_shown(message))
        self.hint = None if hint is None else _shown(hint)
        if self.hint is not None and hasattr(self, "add_note"):  # Python 3.11: a traceback ends with the hint
            self.add_note(f"hint: {self.hint}")

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle text and attributes; the constructors of subclasses take other arguments than the text."""
        return _rebuild, (type(self), self.args, self.__dict__)


def _shown(text: str) -> str:
    """Return a text that is safe to show; a foreign value in it may be of any length."""
    found = printable_message(redacted(text[: 2 * _LONGEST]))
    return found if len(found) <= _LONGEST else found[:_LONGEST] + "…"


def _rebuild(kind: type[LlamaRunnerError], args: tuple[object, ...], facts: dict[str, object]) -> LlamaRunnerError:
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(facts)
    return error


class UsageError(LlamaRunnerError):
    """The request contradicts itself or names something that does not exist."""

    code = ExitCode.USAGE


class SourceError(LlamaRunnerError):
    """The model source cannot be used; found before any work was done."""

    code = ExitCode.SOURCE


class DownloadError(LlamaRunnerError):
    """Bytes could not be fetched, or are not the ones that were asked for."""

    code = ExitCode.DOWNLOAD


class ToolError(LlamaRunnerError):
    """A program that is needed is missing or unusable."""

    code = ExitCode.TOOL


class StepError(LlamaRunnerError):
    """A step of the pipeline failed."""

    code = ExitCode.STEP


class StoreError(LlamaRunnerError):
    """The store cannot be read or written: disk full, read-only, locked."""

    code = ExitCode.STORE


class ServerError(LlamaRunnerError):
    """llama-server cannot be started, or stopped when it should not have."""

    code = ExitCode.SERVER


class Interrupted(LlamaRunnerError):
    """The user asked to stop."""

    code = ExitCode.INTERRUPTED

    def __init__(self) -> None:
        super().__init__("interrupted", hint="run the same command again to go on")
