"""What a command that fails prints: text for people, or with ``--json`` one object for programs."""

from __future__ import annotations

import sys
from contextlib import suppress
from io import StringIO
from typing import IO, TYPE_CHECKING, Literal

from llama_runner.cli.escape_control_characters import has_colour, styled
from llama_runner.core.errors import ExitCode, Interrupted, LlamaRunnerError
from llama_runner.core.printable_text import printable_lines, printable_message
from llama_runner.core.url_redaction import redacted

if TYPE_CHECKING:
    from collections.abc import Sequence

    import click

Form = Literal["text", "document", "event"]
"""``document``: an object on stderr; ``event``: the last event on stdout."""


def form_of(words: Sequence[str], *, prints_events: bool) -> Form:
    """Return the form for a command with these words, which may be wrong."""
    if "--json" not in words:
        return "text"
    return "event" if prints_events else "document"


def report(error: LlamaRunnerError, form: Form = "text") -> int:
    """Print an error and return the exit status."""
    if form != "text":
        return _print_object(str(error), error.hint, error.code, form)
    stream = sys.stderr
    with suppress(OSError, ValueError, AttributeError):  # the exit status says it too
        text = _labelled("error:", f" {error}\n", "red", stream)
        text += _labelled("hint:", f" {error.hint}\n", "cyan", stream) if error.hint else ""
        stream.write("interrupted\n" if isinstance(error, Interrupted) else styled(text))
    return error.code


def report_usage(error: click.ClickException, form: Form = "text") -> int:
    """Print a wrong usage, or the help of a group without a command."""
    import click  # noqa: PLC0415 - not where another parser understood the words

    stream = sys.stderr
    if click.unstyle(error.message).startswith("Usage: "):
        text = error.message if has_colour(stream) else click.unstyle(error.message)
        error.message = styled(text)  # type: ignore[misc]  # final since click 8.3
        error.show()
        return ExitCode.USAGE
    if isinstance(error, click.NoSuchOption) and error.ctx is not None:
        from llama_runner.cli.llama_server_options import closest  # noqa: PLC0415 - only for a mistake

        flags = [flag for each in error.ctx.command.params for flag in each.opts]
        error.possibilities = closest(error.option_name, flags)  # type: ignore[misc]  # as above
    # what was typed may be a URL with a password
    error.message = printable_message(redacted(error.message))  # type: ignore[misc]  # as above
    if form != "text":
        context = getattr(error, "ctx", None)
        hint = None if context is None else f"{context.command_path} --help"
        return _print_object(error.format_message(), hint, ExitCode.USAGE, form)
    buffer = StringIO()
    error.show(buffer)
    said = error.format_message()
    usage = printable_lines(click.unstyle(buffer.getvalue()).removesuffix(f"Error: {said}\n"))
    with suppress(OSError, ValueError, AttributeError):
        stream.write(styled(f"{usage}{_labelled('Error:', f' {said}', 'red', stream)}\n"))
    return ExitCode.USAGE


def _print_object(text: str, hint: str | None, code: int, form: Form) -> int:
    import json  # noqa: PLC0415 - only for programs

    said = {"error": text, "hint": hint, "code": code}
    stream = sys.stderr if form == "document" else sys.stdout
    with suppress(OSError, ValueError, AttributeError):
        stream.write(json.dumps(said if form == "document" else {"event": "error", **said}) + "\n")
    return code


def _labelled(label: str, text: str, colour: str, stream: IO[str]) -> str:
    """Return a line that is safe to print, with a label that is in colour on a terminal."""
    if has_colour(stream):
        import click  # noqa: PLC0415 - as above

        label = click.style(label, fg=colour, bold=True)
    return label + printable_lines(text)
