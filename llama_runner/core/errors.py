"""The base class of all errors that llama_runner reports to the user, and one subclass for each exit status.

The exit statuses themselves are in ``exit_codes``; errors with a cause of their own are in ``errors.py`` of a package.

A cause has a class of its own if the class is caught somewhere, is public, or has attributes that other code reads.
For other causes a function ``…_error`` beside the raising code returns the error. The message states the fact, then
the value; the hint says what to do. ``KeyError`` and ``ValueError`` are bugs of this package and keep their traceback.
"""

from __future__ import annotations

from typing import Any

from llama_runner.core.exit_codes import ExitCode as ExitCode  # noqa: PLC0414 - its documented place
from llama_runner.core.printable_text import printable_message
from llama_runner.core.url_redaction import redacted

_LONGEST = 1 << 15
"""Maximum length of a message or hint in characters; the output of a failed program has a few thousand."""


class Wording:
    """Whether errors name options by their flags, as they do while a command runs, or by the keywords of Python."""

    flags = False


class LlamaRunnerError(Exception):
    """Base class of the errors that a user can act on.

    ``str(error)`` is the fact with its value, in lower case and without a full stop. ``hint`` says what to do, or is
    None. ``code`` is the exit status of the command line. Both texts are safe to print: control characters of foreign
    values are escaped and credentials in URLs are removed. The attributes of subclasses hold the unchanged values.
    """

    code: int = ExitCode.STEP

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(_shown(message))
        self.hint = None if hint is None else _shown(hint)
        if self.hint is not None and hasattr(self, "add_note"):  # Python 3.11: a traceback ends with the hint
            self.add_note(f"hint: {self.hint}")

    def __reduce__(self) -> tuple[Any, ...]:
        """Support copying and pickling, as the constructors of subclasses take other arguments than the message."""
        return _rebuild, (type(self), self.args, self.__dict__)


def _shown(text: str) -> str:
    """Return a text that is safe to print, shortened to ``_LONGEST`` characters."""
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


class NeedsForce(UsageError):
    """What would be removed is protected; who insists removes it."""


class SourceError(LlamaRunnerError):
    """The model source cannot be used. Raised before any step runs."""

    code = ExitCode.SOURCE


class DownloadError(LlamaRunnerError):
    """A download failed, or its digest is wrong."""

    code = ExitCode.DOWNLOAD


class ToolError(LlamaRunnerError):
    """A required program is missing or unusable."""

    code = ExitCode.TOOL


class NoBlake3(ToolError):
    """A digest is a BLAKE3, and the package is not installed."""

    def __init__(self) -> None:
        super().__init__("the digest is a BLAKE3, and the package blake3 is not installed", hint="pip install blake3")


class StepError(LlamaRunnerError):
    """A step of the pipeline failed."""

    code = ExitCode.STEP


class StoreError(LlamaRunnerError):
    """The store cannot be read or written: disk full, read-only, locked."""

    code = ExitCode.STORE
    no_room: bool = False
    """Whether the disk is full."""


class ServerError(LlamaRunnerError):
    """llama-server cannot be started, stopped unexpectedly, or does not answer."""

    code = ExitCode.SERVER


class Interrupted(LlamaRunnerError):
    """The user interrupted the command."""

    code = ExitCode.INTERRUPTED

    def __init__(self) -> None:
        super().__init__("interrupted", hint="run the same command again to go on")
