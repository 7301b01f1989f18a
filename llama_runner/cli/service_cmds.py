"""``service``: the system starts a server, or the gateway of a configuration."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from llama_runner.cli import shared_options as shared
from llama_runner.cli.arguments import arguments_of
from llama_runner.cli.declared_model_arguments import about_config, config_path, is_declared, take_declared
from llama_runner.cli.escape_control_characters import say
from llama_runner.cli.runner_that_prints import runner_for

if TYPE_CHECKING:
    from llama_runner.api import Runner
    from llama_runner.config.prepare_declared_models import Deployment
    from llama_runner.request.install_service import Service, Services
    from llama_runner.serving.llama_server.launch_spec import ServerOptions

    Serving = Literal["run", "up", "gateway"]
    """The command that the unit runs."""
    Check = Literal["users", "port"] | None
    """What is checked before the unit is written: all that the command would refuse; ``port``: its address too."""


@click.group()
def service() -> None:
    """Let the system start a server, or the gateway.

    By a systemd user unit, or a launchd agent on macOS.
    """


_words = click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[OPTIONS AND MODEL OF run]…")
_name = shared.option(
    "--name", metavar="NAME", help="Name of the service.", default_text="that of the model, or gateway"
)
_serving = shared.together(
    shared.option(
        "--up",
        "serving",
        flag_value="up",
        help="Serve the declared models as `up` does; the words are those of `up`.",
    ),
    shared.option(
        "--gateway",
        "serving",
        flag_value="gateway",
        help="Serve them as `gateway` does, which prepares a model when it is asked for.",
    ),
)
_json = shared.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
_AS_THEY_ARE = {"ignore_unknown_options": True, "help_option_names": ["-h", "--help"]}


@service.command(context_settings=_AS_THEY_ARE)
@_name
@shared.option("--force", is_flag=True, help="Overwrite a unit of that name; accept a port that is in use.")
@_json
@_serving
@_words
def install(name: str | None, force: bool, as_json: bool, serving: Serving | None, words: tuple[str, ...]) -> None:
    """Write a unit and print how to start it.

    It is for a server or, with --up or --gateway, for the declared models. What `run`, `up` or `gateway` would refuse
    is refused first.
    """
    services, made = _service(serving or "run", name, words, check="users" if force else "port")
    services.install(made, force=force)
    if as_json:
        click.echo(json.dumps(made.to_json()))
        return
    say(f"written   {made.path}", f"start     {made.start}", f"stop      {made.stop}")
    say(*(f"note      {text}" for text in made.advice))


@service.command(context_settings=_AS_THEY_ARE)
@_name
@shared.option("--system", is_flag=True, help="A systemd unit of the system that runs as this user; root installs it.")
@_json
@_serving
@_words
def show(name: str | None, system: bool, as_json: bool, serving: Serving | None, words: tuple[str, ...]) -> None:
    """Print the unit that install would write, or an installed one."""
    found = None if system or serving else _installed(name, words)
    if found is None:
        _, found = _service(serving or "run", name, words, system=system)
    if as_json:
        click.echo(json.dumps(found.to_json()))
        return
    click.echo(found.text, nl=False)
    if system:
        say(f"install   … | sudo tee {found.path}", f"start     {found.start}", f"stop      {found.stop}", err=True)


def _installed(name: str | None, words: tuple[str, ...]) -> Service | None:
    """Return the installed service that ``service show`` names; None where the words are those of ``run``."""
    from llama_runner.core.errors import SourceError  # noqa: PLC0415 - not for --help
    from llama_runner.request.install_service import ServiceRefused  # noqa: PLC0415
    from llama_runner.sources.resolve_source import open_source  # noqa: PLC0415

    if name is not None:
        return None if words else _services().find(name)
    if len(words) != 1 or words[0].startswith("-"):
        return None
    try:
        return _services().find(words[0])
    except ServiceRefused:
        if words[0].partition(":")[0] != "demo" and not is_declared(words[0]):
            with suppress(SourceError):
                open_source(words[0])
                return None
            raise
        return None


@service.command()
@_json
@click.argument("name", cls=shared.CompletedArgument)
def uninstall(name: str, as_json: bool) -> None:
    """Remove a unit and print how to stop its server."""
    removed = _services().remove(name)
    if as_json:
        click.echo(json.dumps(removed.to_json()))
        return
    say(f"removed   {removed.path}", f"stop      {removed.stop}")


def _service(
    serving: Serving, name: str | None, words: tuple[str, ...], *, check: Check = None, system: bool = False
) -> tuple[Services, Service]:
    """Return the services, and the one for these words, which must be such that the command takes them."""
    if serving == "run":
        return _of_run(name, words, check=check, system=system)
    return _of_declared(serving, name, words, check=check, system=system)


def _of_run(name: str | None, words: tuple[str, ...], *, check: Check, system: bool) -> tuple[Services, Service]:
    from llama_runner.cli.run_cmd import run  # noqa: PLC0415 - not for --help

    extra = click.get_current_context().obj or ()
    context = run.make_context("llama-runner run", list(words), obj=extra)
    with context:
        given = arguments_of(context.params)
        take_declared(given)
        options = shared.server_options(given)
        words = (*words, *(f"--config={path}" for path in about_config(given).values() if not given["config"]))
    if options.api_key:
        raise click.UsageError("a key that is made anew at each start is of no use; use --api-key-file")
    if given["detach"]:
        raise click.UsageError("the system holds it: leave --detach out")
    sources = ("model", "hf_model", "gguf_path", "safetensors_dir")
    source = next((str(given[of]) for of in sources if given[of]), "demo" if given["demo"] else None)
    if source is None:
        raise click.UsageError("say which model, as for run")
    runner = runner_for(given)
    command = (*words, *(("--", *extra) if extra else ()))
    named = name or Path(source).name
    made = runner.services.of_command(command, name=named, inherit_environment=given["llama_env"], system=system)
    if check is not None:
        runner.check(server=options, **shared.keywords(given))
    if check == "port":
        _check_port(runner, options)
    return runner.services, made


def _of_declared(
    serving: Literal["up", "gateway"], name: str | None, words: tuple[str, ...], *, check: Check, system: bool
) -> tuple[Services, Service]:
    from llama_runner.cli import up_cmds  # noqa: PLC0415 - not for --help
    from llama_runner.config.errors import no_config_error  # noqa: PLC0415

    if click.get_current_context().obj:
        raise click.UsageError(f"{serving} takes no options after --")
    context = getattr(up_cmds, serving).make_context(f"llama-runner {serving}", list(words))
    given = context.params
    for flag in ("detach", "dry_run"):
        if given.get(flag):
            raise click.UsageError(f"the system holds it: leave --{flag.replace('_', '-')} out")
    with context:
        path = config_path(given)
    if path is None:
        raise no_config_error()
    words = words if given["config"] else (*words, f"--config={path}")
    runner = runner_for(given)
    deployment = runner.deployment(*given["names"], config=path, locked=given["locked"])
    one = deployment.is_one_server and serving == "up" and not (given["listen"] or given["log_prompts"])
    if check == "port":
        _check_variables(path, runner)
    if check is not None:
        _check_server(runner, deployment, check) if one else _check_gateway(serving, deployment, given, check)
    made = runner.services.of_command(
        words,
        name=name or (next(iter(deployment.models)) if one else "gateway"),
        system=system,
        command=serving,
        kind="server" if one else "gateway",
    )
    return runner.services, made


def _check_variables(path: Path, runner: Runner) -> None:
    """Raise ``UsageError`` if the file uses a variable of the shell that the service would not have."""
    from llama_runner.config.config import Config  # noqa: PLC0415 - not for --help
    from llama_runner.config.errors import ConfigError  # noqa: PLC0415
    from llama_runner.core.errors import UsageError  # noqa: PLC0415
    from llama_runner.serving.systemd_and_launchd_units import variables  # noqa: PLC0415

    of_system = {name: os.environ[name] for name in ("HOME", "USER", "LOGNAME", "SHELL") if name in os.environ}
    try:
        Config.load(path, environment={**of_system, **variables(os.environ, runner.root, llama_env=False)})
    except ConfigError as error:
        raise UsageError(
            f"the service would not have the variables of this shell: {error}",
            hint="write the value into the file, or use --force and set the variable in the unit",
        ) from None


def _check_server(runner: Runner, deployment: Deployment, check: Check) -> None:
    """Raise what ``up`` would end with for a single model, as far as it is known before any work."""
    [(name, model)] = deployment.models.items()
    runner.check(model.source, server=model.server, **deployment.keywords(name))
    if check == "port":
        _check_port(runner, model.server)


def _check_gateway(serving: Serving, deployment: Deployment, given: dict[str, Any], check: Check) -> None:
    """Raise what the gateway would end with before it is ready and, for ``up``, what hinders preparing the models."""
    from llama_runner.cli.up_cmds import load_gateway  # noqa: PLC0415 - not for --help

    arguments = deployment.gateway_arguments(given["listen"], log_prompts=given["log_prompts"])
    load_gateway().check(arguments, ports=check == "port")
    if serving == "up":
        deployment.check()


def _check_port(runner: Runner, options: ServerOptions) -> None:
    from llama_runner.serving.port_check import check_port  # noqa: PLC0415 - not for --help

    check_port(options.host, options.port, runner.servers)


def _services() -> Services:
    return runner_for({"root": None}).services
