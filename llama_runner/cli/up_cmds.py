"""``up``, ``down``, ``reload``, ``gateway`` and ``ui``: the declared models together."""

from __future__ import annotations

import json
import os
import shlex
import sys
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from llama_runner.cli import shared_options as shared
from llama_runner.cli import text_output
from llama_runner.cli.declared_model_arguments import config_path
from llama_runner.cli.escape_control_characters import say, unblock_streams
from llama_runner.cli.help import GroupedCommand
from llama_runner.cli.runner_that_prints import runner_for
from llama_runner.config.errors import no_config_error
from llama_runner.core.printable_text import printable
from llama_runner.serving.gateway_process import page_address
from llama_runner.serving.listed_server import ServerEntry
from llama_runner.system.platforms import IS_MACOS, IS_WINDOWS

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

    from llama_runner.config.prepare_declared_models import Deployment

_LOCKED = shared.option("--locked", is_flag=True, help="Fail if anything differs from the lock file.")
_LISTEN = shared.option(
    "--listen",
    multiple=True,
    metavar="ADDRESS",
    help="Address of the gateway: HOST:PORT, or the path of a UNIX socket. May be repeated.",
    default_text="that of the configuration, or 127.0.0.1:8080",
)
_LOG_PROMPTS = shared.option(
    "--log-prompts", is_flag=True, help="Write prompts and answers to the log of the gateway; never keys."
)
_DETACH = shared.option("--detach", is_flag=True, help="Run in the background and return once it is ready.")


@click.command(cls=GroupedCommand, examples=("llama-runner up", "llama-runner up --dry-run", "llama-runner up qwen"))
@shared.store
@click.argument("names", nargs=-1, cls=shared.CompletedArgument, metavar="[NAME]...")
@shared.option("--dry-run", is_flag=True, help="Show which steps would run for all models, and change nothing.")
@_LOCKED
@_DETACH
@_LISTEN
@_LOG_PROMPTS
@shared.option(
    "--open", is_flag=True, help="Open the page of the gateway in the browser; it then serves a single model too."
)
def up(**given: Any) -> None:
    """Prepare the declared models and serve them.

    One model is served by its own server, several by the gateway. What models share is made once. With NAMEs only
    those; else every model of llama-runner.toml.
    """
    path = _config(given)
    runner = runner_for(given, events=given["as_json"] and not given["dry_run"])
    deployment = runner.deployment(*given["names"], config=path, locked=given["locked"])
    if given["dry_run"]:
        found = deployment.plan()
        say(json.dumps(found.to_json())) if given["as_json"] else say(*text_output.deployment_plan(found))
    elif deployment.is_one_server and not (given["listen"] or given["log_prompts"] or given["open"]):
        _run_one(given, deployment)
    elif given["detach"]:
        more = {name: given[name] for name in ("locked", "listen", "log_prompts")}
        entry = runner.up(*given["names"], config=path, gateway=given["open"], **more)
        _tell(entry, given)
        if given["open"] and not given["as_json"]:
            _open(page_address(entry["urls"]))
    else:
        deployment.prepare(runner.prepare)
        _serve(deployment, given)


@click.command(cls=GroupedCommand, examples=("llama-runner gateway", "llama-runner gateway --listen 127.0.0.1:11434"))
@shared.store
@click.argument("names", nargs=-1, cls=shared.CompletedArgument, metavar="[NAME]...")
@_LOCKED
@_DETACH
@_LISTEN
@_LOG_PROMPTS
def gateway(**given: Any) -> None:
    """Serve the declared models behind one endpoint; each is prepared and loaded when it is asked for.

    Clients use the APIs of OpenAI, Anthropic or Ollama. Needs the extra llama-runner[gateway].
    """
    path = _config(given)
    runner = runner_for(given)
    deployment = runner.deployment(*given["names"], config=path, locked=given["locked"])
    if given["detach"]:
        _tell(deployment.start_gateway(given["listen"], log_prompts=given["log_prompts"]), given)
    else:
        _serve(deployment, given)


@click.command(cls=GroupedCommand, examples=("llama-runner ui", "llama-runner ui --no-open"))
@shared.store
@_LISTEN
@shared.option("--no-open", is_flag=True, help="Print the address and open no browser.")
def ui(**given: Any) -> None:
    """Open the page that manages models in the browser.

    The gateway serves it; where none runs for the configuration, one is started in the background. Without a
    configuration file an empty one is written to the root.
    """
    load_gateway()
    path = config_path(given)
    entry = runner_for(given).ui(config=path, listen=given["listen"])
    page = page_address(entry["urls"])
    if path is None and not given["as_json"]:
        say(f"created   {entry['config']}")
    _tell(ServerEntry({**entry, "page": page}), {**given, "config": entry["config"]})
    if not (given["no_open"] or given["as_json"]):
        _open(page)


def _open(page: str) -> None:
    """Open an address in the browser of the user, where this is a session with a screen or ``BROWSER`` is set."""
    has_screen = IS_MACOS or IS_WINDOWS or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
    if has_screen or os.environ.get("BROWSER"):
        import webbrowser  # noqa: PLC0415 - only then

        webbrowser.open(page)


@click.command(cls=GroupedCommand)
@shared.store
def down(**given: Any) -> None:
    """Stop what runs for the configuration: its servers and its gateway.

    The file is not read, so that it may have mistakes or be gone.
    """
    stopped = runner_for(given).down(config=config_path(given))
    if given["as_json"]:
        click.echo(json.dumps(stopped))
    elif stopped:
        say(*(f"stopped   {each.alias} at {each.url}, process {each.pid}" for each in stopped))
    else:
        say("nothing runs for this configuration", err=True)


@click.command(cls=GroupedCommand)
@shared.store
def reload(**given: Any) -> None:
    """Let what runs follow a change of the configuration.

    Only models whose launch changed are stopped and started again.
    """
    for each in runner_for(given).reload(config=_config(given)):
        _tell(each, given)


def _config(given: dict[str, Any]) -> Path:
    found = config_path(given)
    if found is None:
        raise no_config_error()
    return found


def _tell(entry: ServerEntry, given: dict[str, Any]) -> None:
    if given["as_json"]:
        click.echo(json.dumps({name: value for name, value in entry.items() if name != "launch"}))
        return
    if entry.get("page"):
        say(f"page      {entry['page']}")
    say(f"ready     {' '.join(entry.get('urls') or [entry.url])}", f"process   {entry.pid}", f"log       {entry.log}")
    if entry.get("models"):
        say(f"models    {', '.join(map(printable, entry['models']))}")
    places = [word for name in ("config", "root") if given.get(name) for word in (f"--{name}", str(given[name]))]
    say(printable(f"stop      {shlex.join(['llama-runner', 'down', *places])}"))


def _run_one(given: dict[str, Any], deployment: Deployment) -> None:
    """Serve one model as ``run`` does."""
    from llama_runner.cli.run_cmd import run  # noqa: PLC0415 - only then

    [name] = deployment.models
    more = {name: given[name] for name in ("root", "as_json", "detach", "locked")}
    click.get_current_context().invoke(run, model=name, config=str(deployment.config.path), **more)


def _serve(deployment: Deployment, given: dict[str, Any]) -> None:
    """Serve with the gateway in this process, until a signal."""
    gateway = load_gateway()
    unblock_streams()
    arguments = deployment.gateway_arguments(given["listen"], log_prompts=given["log_prompts"])
    gateway.serve(arguments, None if given["as_json"] else partial(_show, opens=given.get("open", False)))


def load_gateway() -> ModuleType:
    """Return the module of the gateway's process. Raises the error of a missing extra."""
    try:
        from llama_runner.gateway import main_process  # noqa: PLC0415 - loads aiohttp
    except ModuleNotFoundError as error:
        from llama_runner.config.errors import no_gateway_error  # noqa: PLC0415 - only then

        raise no_gateway_error(error.name) from None
    return main_process


def _show(line: str, *, opens: bool) -> None:
    """Print the events of the gateway that concern the user. All of them, and the requests, are in its log."""
    said = json.loads(line)
    match said.get("event"):
        case "gateway_ready":
            say(*(f"ready     {url}" for url in said["urls"]), f"models    {', '.join(map(printable, said['models']))}")
            if opens:  # some browsers block whoever starts them
                threading.Thread(target=_open, args=[page_address(said["urls"])], daemon=True).start()
        case "warned" | "reload_failed":
            say(f"warning: {said.get('text') or said.get('error')}", err=True)
            if said.get("hint"):
                say(f"hint: {said['hint']}", err=True)
        case "load_failed" | "model_died":
            say(f"warning: {said['model']}: {said['text']}", err=True)
    sys.stdout.flush()
