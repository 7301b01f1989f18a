"""Arguments of a command, and how they become arguments of ``Runner``. Does not load click."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_runner.request import model_and_build_options
from llama_runner.serving.llama_server import option_definitions as server_definitions

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from llama_runner.config.layers import Resolved
    from llama_runner.serving.llama_server.launch_spec import ServerOptions

PROGRAMS = tuple(option.name for option in (*model_and_build_options.PROGRAMS, *model_and_build_options.BUILD))
"""The keywords among the options of the programs."""
REMOTE = tuple(option.name for option in model_and_build_options.REMOTE)
"""The keywords among the options of remote stores."""

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


_META = "llama_runner.arguments"


class Arguments(dict[str, Any]):
    """Values of the parameters of a command by name, with the defaults of those that were not given."""

    def __init__(self, values: Mapping[str, Any], given: Iterable[str], extra: tuple[str, ...] = ()) -> None:
        super().__init__(values)
        self.given = frozenset(given)
        """Names of the parameters that the command line has."""
        self.extra = extra
        """Words for llama-server: those after ``--``, and before them those that were taken from the others."""
        self.declared: Resolved | None = None
        """What a declared name stands for; None where the command line has none."""
        self.config: str | None = None
        """The configuration file that declares it."""


def arguments_of_click(values: Mapping[str, Any]) -> Arguments:
    """Return the arguments of the command that click calls now; ``arguments_of`` finds them in it."""
    import click  # noqa: PLC0415 - it is loaded already
    from click.core import ParameterSource  # noqa: PLC0415 - as above

    context = click.get_current_context()
    sources = {name: context.get_parameter_source(name) for name in context.params}
    given = (name for name, source in sources.items() if source not in (None, ParameterSource.DEFAULT))
    found = context.meta[_META] = Arguments(values, given, context.obj or ())
    return found


def arguments_of(values: Mapping[str, Any]) -> Arguments:
    """Return values as arguments, with what is known of the command line of the current command."""
    if isinstance(values, Arguments):
        return values
    import click  # noqa: PLC0415 - it is loaded already

    known: Arguments | None = click.get_current_context().meta.get(_META)
    if known is None:
        return arguments_of_click(values)
    found = Arguments(values, known.given, known.extra)
    found.declared, found.config = known.declared, known.config
    return found


def keywords(options: Mapping[str, Any]) -> dict[str, Any]:
    """Take the arguments of ``Runner.prepare`` out of a command's options."""
    read = [option for option in model_and_build_options.ARTIFACTS if option.reader == "artifacts"]
    asked = {
        o.name: not options[o.argument] if o.is_negated else options[o.argument]
        for o in read
        if o.name != "force_step" and o.argument in options
    }
    asked["force"] = ("all",) if options["force"] else options["force_step"]
    return {"model": options["model"], **asked} if "model" in options else asked


def server_options(values: Mapping[str, Any], *, fixed: tuple[str, ...] = ()) -> ServerOptions:
    """Take the ``ServerOptions`` out of a command's options.

    Variables of llama-server change neither the options that were given nor those of ``fixed``.
    """
    from llama_runner.serving.llama_server.launch_spec import ServerOptions  # noqa: PLC0415
    from llama_runner.store import layout  # noqa: PLC0415 - not for --help

    options = arguments_of(values)
    refused = None
    if options["api_key"] not in (None, "auto"):
        refused = "a key among the arguments is seen by all; use LLAMA_API_KEY or --api-key-file"
    elif not INFORMATION.isdisjoint(options.extra):
        refused = "what llama-server says of itself is printed by: llama-runner run -- --help"
    if refused is not None:
        import click  # noqa: PLC0415 - only for an error

        raise click.UsageError(refused)
    read = {option.name: options[option.argument] for option in server_definitions.SERVER}
    declared = options.declared
    if options["llama_env"]:
        named = (option.name for option in server_definitions.SERVER if option.argument in options.given)
        fixed = (*named, *(declared.values if declared else ()), *fixed)
    else:
        fixed = ()
    asked = ServerOptions(extra=options.extra, fixed=fixed, names=declared.names if declared else (), **read)
    if options["profile"] is None:
        return asked
    from llama_runner.serving import tuned_profiles  # noqa: PLC0415 - only for a profile

    return tuned_profiles.apply(
        tuned_profiles.read(layout.profiles(layout.find_root(options["root"])), options["profile"]), asked
    )
