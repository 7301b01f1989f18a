"""Parses the usual command lines of ``run``, ``plan``, ``prepare`` and ``status`` without click.

Click takes a third of the time of a command that has nothing to do. This parser accepts only words whose meaning is
beyond doubt: one MODEL, options in their exact spelling, and values that do not begin with a dash. For every other
command line ``parse`` returns None, and click parses it: it knows help, errors, options of llama-server, earlier
spellings and completion. A property test holds that both give the same arguments.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from llama_runner.cli.arguments import Arguments
from llama_runner.core.immutable_values import Value
from llama_runner.core.sizes import parse_size
from llama_runner.request.lifecycle_options import OPTIONS, PROFILE, STORE
from llama_runner.request.model_and_build_options import ARTIFACTS
from llama_runner.serving.llama_server.option_definitions import SERVER
from llama_runner.system.platforms import IS_WINDOWS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llama_runner.core.option_definition import Option

_DIGITS = 18
"""Maximum digits of a number; a longer one is left to click."""
_LONGEST_S = 1e9
"""Maximum of a number of seconds, as of ``options.SECONDS``."""


class Command(Value):
    """A command that this parser knows."""

    module: str
    """The module in ``cli`` that has a function of the command's name, which takes the arguments."""
    options: tuple[Option, ...]
    takes_model: bool = True
    """Whether one word may be a MODEL."""
    starts_server: bool = True
    """Whether words after ``--`` are for llama-server."""
    others: tuple[tuple[str, Any], ...] = ()
    """Defaults of options that are left to click."""


COMMANDS = {
    "run": Command("serve_model", OPTIONS, others=(("print_diagnostics", False),)),
    "plan": Command("plan_model", (*STORE, *ARTIFACTS, *SERVER, *PROFILE)),
    "prepare": Command("plan_model", (*STORE, *ARTIFACTS), starts_server=False, others=(("with_sha256", False),)),
    "status": Command("show_status", STORE, takes_model=False, starts_server=False),
}


class _Unclear(Exception):
    """Click has to parse the command line."""


def parse(words: Sequence[str]) -> Arguments | None:
    """Return the arguments of a command line that begins with the name of a command; None: click has to parse it."""
    command = COMMANDS.get(words[0]) if words else None
    if command is None or IS_WINDOWS or "_LLAMA_RUNNER_COMPLETE" in os.environ:  # click expands * on Windows
        return None
    try:
        return _parsed(command, words[1:])
    except _Unclear:
        return None


def _parsed(command: Command, words: Sequence[str]) -> Arguments:
    flags = {flag: option for option in command.options for flag in option.flags}
    values = {**dict(command.others), **{each.argument: _default(each) for each in command.options}}
    if command.takes_model:
        values["model"] = None
    given: set[str] = set()
    rest = iter(words)
    for word in rest:
        if word == "--":
            break
        if word.startswith("-"):
            name, equals, text = word.partition("=")
            option = flags.get(name)
            if option is None or (equals and (option.kind == "flag" or not name.startswith("--"))):
                raise _Unclear  # -q=x gives -q the value =x
            argument = option.argument
            if option.kind == "flag":
                values[argument] = True
            else:
                value = _value(option, text if equals else next(rest, ""))
                values[argument] = (*values[argument], value) if option.kind == "list" else value
        else:
            argument = "model"
            if not word or argument in given or not command.takes_model:
                raise _Unclear
            values[argument] = word
        given.add(argument)
    extra = tuple(rest)
    if extra and not command.starts_server:
        raise _Unclear
    return Arguments(values, given, extra)


def _default(option: Option) -> Any:
    """Return the value of an option that is not given."""
    match option.kind:
        case "flag":
            return False
        case "list":
            return ()
        case "number" if option.default is not None:
            return float(str(option.default))
    return option.default


def _value(option: Option, text: str) -> Any:
    """Return the value that a text stands for."""
    if text[:1] in ("", "-"):
        raise _Unclear
    match option.kind:
        case "text" | "file" | "directory" | "list":
            return text
        case "choice" | "integer or word" if text in option.choices:
            return text
        case "integer" | "integer or word" if text.isascii() and text.isdigit() and len(text) <= _DIGITS:
            return _in_range(option, int(text))
        case "number" if text.isascii() and text.replace(".", "", 1).isdigit() and float(text) <= _LONGEST_S:
            return float(text)
        case "size":
            try:
                return parse_size(text)
            except ValueError:
                raise _Unclear from None
    raise _Unclear


def _in_range(option: Option, number: int) -> int:
    if (option.least is not None and number < option.least) or (option.most is not None and number > option.most):
        raise _Unclear
    return number
