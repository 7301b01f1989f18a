"""Options that several commands share, made from their definitions, and how they become arguments of ``Runner``."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from llama_runner.cli.declared_models import declared_in, takes_declared
from llama_runner.core.sizes import parse_size
from llama_runner.request import artifact_options, run_options
from llama_runner.serving.llama_server import server_options as server_definitions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from click.shell_completion import CompletionItem

    from llama_runner.core.option import Option
    from llama_runner.serving.llama_server.launch_spec import ServerOptions

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


store = made_from(run_options.STORE)
device = made_from(option for option in artifact_options.PROGRAMS if option.name == "device")
sha256 = made_from(option for option in artifact_options.PROGRAMS if option.name == "sha256")
building = made_from(artifact_options.BUILD)
remote = made_from(artifact_options.REMOTE)
programs = made_from((*artifact_options.PROGRAMS, *artifact_options.BUILD))
model = together(
    click.argument("model", required=False, cls=CompletedArgument),
    made_from(artifact_options.ARTIFACTS),
    takes_declared,
)
compute = made_from(server_definitions.COMPUTE)
profile = made_from(run_options.PROFILE)
server = made_from((*server_definitions.SERVER, *run_options.PROFILE))
keeping = made_from(run_options.LIFE_CYCLE)

PROGRAMS = tuple(option.name for option in (*artifact_options.PROGRAMS, *artifact_options.BUILD))
"""The keywords among the options ``programs``."""
REMOTE = tuple(option.name for option in artifact_options.REMOTE)
"""The keywords among the options ``remote``."""


def keywords(options: dict[str, Any]) -> dict[str, Any]:
    """Take the arguments of ``Runner.prepare`` out of a command's options."""
    read = [option for option in artifact_options.ARTIFACTS if option.reader == "artifacts"]
    asked = {o.name: options[o.argument] for o in read if o.name != "force_step" and o.argument in options}
    asked["projector"] = not options["no_projector"]
    asked["force"] = ("all",) if options["force"] else options["force_step"]
    return {"model": options["model"], **asked} if "model" in options else asked


INFORMATION = frozenset(("-h", "--help", "--usage", "--version", "--list-devices"))
"""Options with which llama-server prints something and ends."""

UNASKED = {
    "host": "127.0.0.1",
    "port": 0,
    "canary": False,
    "api_key": None,
    "insecure": False,
    "purpose": "text",
} | dict.fromkeys(("api_key_file", "tls_cert", "tls_key", "profile"))
"""Where a server is started that only the command itself asks."""


def _fixed(context: click.Context, options: dict[str, Any]) -> tuple[str, ...]:
    """Return the options that variables of llama-server do not change: those given, and where only we connect."""
    if not options["llama_env"]:
        return ()
    sources = {option.name: context.get_parameter_source(option.argument) for option in server_definitions.SERVER}
    given = [name for name, source in sources.items() if source not in (None, ParameterSource.DEFAULT)]
    given += declared.values if (declared := declared_in(context)) else ()
    return (*given, *(name for name in ("host", "port") if sources[name] is None))


def server_options(options: dict[str, Any]) -> ServerOptions:
    """Take the ``ServerOptions`` out of a command's options."""
    from llama_runner.serving.llama_server.launch_spec import ServerOptions  # noqa: PLC0415
    from llama_runner.store import layout  # noqa: PLC0415 - not for --help

    if options["api_key"] not in (None, "auto"):
        raise click.UsageError("a key among the arguments is seen by all; use LLAMA_API_KEY or --api-key-file")
    read = {option.name: options[option.argument] for option in server_definitions.SERVER}
    context = click.get_current_context()
    if not INFORMATION.isdisjoint(context.obj or ()):
        raise click.UsageError("what llama-server says of itself is printed by: llama-runner run -- --help")
    names = declared.names if (declared := declared_in(context)) else ()
    asked = ServerOptions(extra=context.obj or (), fixed=_fixed(context, options), names=names, **read)
    if options["profile"] is None:
        return asked
    from llama_runner.serving import profiles  # noqa: PLC0415 - only for a profile

    return profiles.apply(profiles.read(layout.profiles(layout.find_root(options["root"])), options["profile"]), asked)
