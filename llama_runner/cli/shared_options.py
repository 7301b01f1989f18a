"""Options that several commands share, made from their definitions."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import click

from llama_runner.cli.arguments import PROGRAMS, REMOTE, keywords, server_options
from llama_runner.cli.declared_model_arguments import takes_declared
from llama_runner.core.sizes import parse_size
from llama_runner.request import lifecycle_options, model_and_build_options
from llama_runner.serving.llama_server import option_definitions as server_definitions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from click.shell_completion import CompletionItem

    from llama_runner.core.option_definition import Option

__all__ = ["PROGRAMS", "REMOTE", "keywords", "server_options"]  # commands find them here too

_LARGEST = 1 << 63

Command = Any
"""A function being made into a click command."""


class NumberOr(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.2
    """A whole number that is not negative, or one of a few words."""

    name = "number"

    def __init__(self, *words: str, least: int = 0) -> None:
        self.words, self.least = words, least

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        """See click."""
        if value in self.words or isinstance(value, int):
            return value  # type: ignore[no-any-return]
        try:
            number = int(value)
        except ValueError:
            number = -1
        if not self.least <= number < _LARGEST:
            expected = " or ".join([f"a number from {self.least} up", *map(repr, self.words)])
            self.fail(f"{value!r} is not {expected}", param, ctx)
        return number

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        """See click."""
        del param, ctx
        return "|".join(["N", *self.words])


class Number(click.FloatRange):
    """A number that is finite; ``nan`` and ``inf`` are refused."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """See click."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number", param, ctx)
        return number


SECONDS = Number(0, 1e9)
"""How long something may take."""


class Size(click.ParamType):  # type: ignore[type-arg]  # as above
    """A number of bytes, as ``parse_size`` reads it."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """See click."""
        if isinstance(value, int):
            return value
        try:
            return parse_size(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def together(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Return a decorator that adds options in their order."""

    def add(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add


class CompletedArgument(click.Argument):
    """An argument whose values a shell completes by its name."""

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """See click."""
        from llama_runner.cli.completion import values  # noqa: PLC0415 - for shells only

        return values(self, ctx, incomplete)


class CompletedOption(click.Option):
    """An option whose values a shell completes by its name or kind."""

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """See click."""
        from llama_runner.cli.completion import values  # noqa: PLC0415 - for shells only

        return values(self, ctx, incomplete) or super().shell_complete(ctx, incomplete)


class _Option(CompletedOption):
    """An option whose help is the text of its definition and nothing more."""

    def get_help_extra(self, ctx: click.Context) -> Any:
        """See click: ranges and defaults are part of the text where they matter."""
        del ctx
        return {}


def option(*flags: str, help: str, default_text: str | None = None, **more: Any) -> Callable[[Command], Command]:  # noqa: A002 - as of click
    """Return a decorator that adds an option of one command. Its default is added to the help, as is or in words."""
    default = more.get("default")
    told = default_text or (f"{default:g}" if isinstance(default, float) else default)
    text = f"{help.removesuffix('.')} (default: {told})." if told else help
    if isinstance(more.get("type"), click.IntRange):
        more.setdefault("metavar", "N")
    return click.option(*flags, cls=_Option, help=text, **more)


def made_from(definitions: Iterable[Option]) -> Callable[[Command], Command]:
    """Return a decorator that adds the options that are defined so."""
    return together(*map(_option, definitions))


def _option(defined: Option) -> Callable[[Command], Command]:
    more: dict[str, Any] = {"metavar": defined.metavar or ("FILE" if defined.kind == "file" else None)}
    match defined.kind:
        case "flag":
            more = {"is_flag": True}
        case "list":
            more["multiple"] = True
        case "directory":
            more["metavar"] = "DIR"
        case "choice":
            more["type"] = click.Choice(defined.choices)
        case "integer":
            more["type"] = click.IntRange(_int(defined.least), _int(defined.most))
        case "number":
            more["type"] = SECONDS
        case "size":
            more["type"] = Size()
        case "integer or word":
            more["type"] = NumberOr(*defined.choices, least=_int(defined.least) or 0)
    if defined.kind not in ("flag", "list") and defined.default is not None:
        more["default"] = defined.default
    flags = (*defined.flags, *defined.old_flags, defined.argument)
    return click.option(*flags, cls=_Option, help=defined.help_text, **more)


def _int(number: float | None) -> int | None:
    return None if number is None else int(number)


store = made_from(lifecycle_options.STORE)
device = made_from(option for option in model_and_build_options.PROGRAMS if option.name == "device")
with_sha256 = option(
    "--with-sha256", is_flag=True, help="Compute the SHA-256 of the result if its record lacks it, and record it."
)
sha256 = made_from(option for option in model_and_build_options.PROGRAMS if option.name == "sha256")
building = made_from(model_and_build_options.BUILD)
remote = made_from(model_and_build_options.REMOTE)
programs = made_from((*model_and_build_options.PROGRAMS, *model_and_build_options.BUILD))
model = together(
    click.argument("model", required=False, cls=CompletedArgument),
    made_from(model_and_build_options.ARTIFACTS),
    takes_declared,
)
compute = made_from(server_definitions.COMPUTE)
profile = made_from(lifecycle_options.PROFILE)
server = made_from((*server_definitions.SERVER, *lifecycle_options.PROFILE))
keeping = made_from(lifecycle_options.LIFE_CYCLE)
