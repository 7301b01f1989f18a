"""Commands about servers that run in the background, and about services of the system."""

from __future__ import annotations

import json
import re
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llama_runner.cli import shared_options as shared
from llama_runner.cli.arguments import arguments_of
from llama_runner.cli.declared_model_arguments import about_config, is_declared, server_name, take_declared
from llama_runner.cli.escaped_output import PrintableBytes, say
from llama_runner.core.printable_text import printable, printable_message

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from llama_runner.api import Runner
    from llama_runner.request.system_services import Service, Services

_COLUMNS = ("name", "state", "url", "pid", "age", "memory", "VRAM", "slots", "tokens/s", "llama.cpp")


@click.command()
@shared.store
def ps(**given: Any) -> None:
    """List the running servers.

    Shows state, age, memory, busy slots, and tokens per second of a server that was started with -- --metrics. Servers
    in the background that failed are listed with the reason until they are stopped or started again.
    """
    found = _runner(given).running()
    if given["as_json"]:
        click.echo(json.dumps(found))
        return
    rows = [_COLUMNS, *map(_row, found)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows if found else ():
        say("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
    for server in found:
        if server["failure"]:
            log = "" if server["log"] in server["failure"] else f"\nfull log: {server['log']}"
            click.echo(printable_message(f"failed    {printable(server['alias'])}: {server['failure']}{log}"))
    if not found:
        say("none runs", err=True)


def _row(server: dict[str, Any]) -> tuple[str, ...]:
    from llama_runner.cli import text_output  # noqa: PLC0415 - not for --help
    from llama_runner.core.sizes import size_text  # noqa: PLC0415

    def told(value: Any, text: Callable[[Any], str] = str) -> str:
        return "-" if value is None else text(value)

    slots = None if server["slots"] is None else f"{server['slots_busy']} of {server['slots']} busy"
    row = (
        server["alias"],
        told(server["state"]),
        "-" if re.search(r":0(?=/|$)", server["url"]) else server["url"],  # one that never had a port
        told(server["pid"]),
        told(server["age_s"], text_output.age),
        told(server["rss"], size_text),
        told(server["vram"], text_output.vram),
        told(slots),
        told(server["tokens_per_second"], "{:.1f}".format),
        told(server["build"]),
    )
    return tuple(map(printable, row))


@click.command()
@shared.store
@click.argument("server", cls=shared.CompletedArgument, required=False)
@shared.option("-f", "--follow", is_flag=True, help="Print what is added, until the server ends or Ctrl-C.")
@shared.option("-n", "--lines", type=click.IntRange(0), default=100, help="Number of last lines to print.")
def logs(**given: Any) -> None:
    """Print the log of a server.

    SERVER is a name, the beginning of one, a URL or a process id as `ps` shows them, also of a server that has ended;
    without it, the server that is running, or ran last. With --json each line is an object.
    """
    blocks = _runner(given).log(server_name(given)).read(lines=given["lines"], follow=given["follow"])
    if given["as_json"]:
        for line in _lines(blocks):
            click.echo(json.dumps({"line": line.decode("utf-8", "backslashreplace")}))
            sys.stdout.flush()
        return
    out = PrintableBytes(sys.stdout)
    for block in blocks:
        out.write(block)
        out.flush()


def _lines(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield whole lines as they come, and what is left at the end."""
    rest = b""
    for block in blocks:
        *lines, rest = (rest + block).split(b"\n")
        yield from lines
    if rest:
        yield rest


@click.command()
@shared.store
@click.argument("server", cls=shared.CompletedArgument, required=False)
@shared.option("--all", "every", is_flag=True, help="Stop all servers of this root.")
@shared.option("--forget", is_flag=True, help="Remove entries of containers or machines that are gone; stops nothing.")
def stop(**given: Any) -> None:
    """Stop a server, or all.

    SERVER is a name, the beginning of one, a URL or a process id as `ps` shows them. What means several servers is an
    error that lists their URLs. A server that failed is no longer listed.
    """
    if bool(given["server"]) == given["every"]:
        raise click.UsageError("name one server, or use --all")
    runner = _runner(given)
    stopped = (runner.forget if given["forget"] else runner.stop)(server_name(given))
    if given["as_json"]:
        click.echo(json.dumps(stopped))
    for about in () if given["as_json"] else stopped:
        if given["forget"]:
            say(f"forgotten {about['alias']} at {about['url']}, of host {about.get('host', 'unknown')}")
        elif about["state"] == "failed":
            say(f"forgotten {about['alias']}: it had failed")
        else:
            say(f"stopped   {about['alias']} at {about['url']}, process {about['pid']}")


@click.command()
@shared.store
@click.argument("server", cls=shared.CompletedArgument)
def restart(**given: Any) -> None:
    """Restart a server of the background, or start one that failed or was stopped.

    It has the same model and port afterwards, one that runs also the same key. One that could not start again is not
    stopped. Servers are started in the background by `run --detach`.
    """
    about = _runner(given).restart(server_name(given) or "")
    if given["as_json"]:
        click.echo(json.dumps(about))
    else:
        say(f"restarted {about['alias']} at {about['url']}, process {about['pid']}")


@click.group()
def service() -> None:
    """Let the system start a server.

    By a systemd user unit, or a launchd agent on macOS.
    """


_service_words = click.argument("run_options", nargs=-1, type=click.UNPROCESSED, metavar="[OPTIONS AND MODEL OF run]…")
_service_name = shared.option("--name", metavar="NAME", help="Name of the service.", default_text="that of the model")
_service_json = shared.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
_AS_THEY_ARE = {"ignore_unknown_options": True, "help_option_names": ["-h", "--help"]}


@service.command(context_settings=_AS_THEY_ARE)
@_service_name
@shared.option("--force", is_flag=True, help="Overwrite a unit of that name; accept a port that is in use.")
@_service_json
@_service_words
def install(name: str | None, force: bool, as_json: bool, run_options: tuple[str, ...]) -> None:
    """Write the unit of a server and print how to start it.

    What `run` would refuse is refused first.
    """
    services, made = _service(name, run_options, check="users" if force else "port")
    services.install(made, force=force)
    if as_json:
        click.echo(json.dumps(made.to_json()))
        return
    say(f"written   {made.path}", f"start     {made.start}", f"stop      {made.stop}")
    say(*(f"note      {text}" for text in made.advice))


@service.command(context_settings=_AS_THEY_ARE)
@_service_name
@shared.option("--system", is_flag=True, help="A systemd unit of the system that runs as this user; root installs it.")
@_service_json
@_service_words
def show(name: str | None, system: bool, as_json: bool, run_options: tuple[str, ...]) -> None:
    """Print the unit that install would write, or an installed one."""
    found = None if system else _installed(name, run_options)
    if found is None:
        _, found = _service(name, run_options, system=system)
    if as_json:
        click.echo(json.dumps(found.to_json()))
        return
    click.echo(found.text, nl=False)
    if system:
        say(f"install   … | sudo tee {found.path}", f"start     {found.start}", f"stop      {found.stop}", err=True)


def _installed(name: str | None, words: tuple[str, ...]) -> Service | None:
    """Return the installed service that ``service show`` names; None where the words are those of ``run``."""
    from llama_runner.core.errors import SourceError  # noqa: PLC0415 - not for --help
    from llama_runner.request.system_services import ServiceRefused  # noqa: PLC0415
    from llama_runner.sources.resolve_source import open_source  # noqa: PLC0415

    if name is not None:
        return None if words else _services(None).find(name)
    if len(words) != 1 or words[0].startswith("-"):
        return None
    try:
        return _services(None).find(words[0])
    except ServiceRefused:
        if words[0].partition(":")[0] != "demo" and not is_declared(words[0]):
            with suppress(SourceError):
                open_source(words[0])
                return None
            raise
        return None


@service.command()
@_service_json
@click.argument("name", cls=shared.CompletedArgument)
def uninstall(name: str, as_json: bool) -> None:
    """Remove a unit and print how to stop its server."""
    removed = _services(None).remove(name)
    if as_json:
        click.echo(json.dumps(removed.to_json()))
        return
    say(f"removed   {removed.path}", f"stop      {removed.stop}")


def _service(
    name: str | None, words: tuple[str, ...], *, check: str | None = None, system: bool = False
) -> tuple[Services, Service]:
    """Return the services, and the one for these words, which must be such that ``run`` takes them.

    ``check``: what ``run`` looks at before its work is looked at too, the port only where it says ``port``.
    """
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
    runner = _runner(given)
    command = (*words, *(("--", *extra) if extra else ()))
    named = name or Path(source).name
    made = runner.services.of_command(command, name=named, inherit_environment=given["llama_env"], system=system)
    if check is not None:
        runner.check(server=options, **shared.keywords(given))
    if check == "port":
        from llama_runner.serving.port_check import check_port  # noqa: PLC0415 - not for --help

        check_port(options.host, options.port, runner.servers)
    return runner.services, made


def _services(root: str | None) -> Services:
    return _runner({"root": root}).services


def _runner(given: dict[str, Any]) -> Runner:
    from llama_runner.api import Runner  # noqa: PLC0415 - not for --help
    from llama_runner.cli import text_output  # noqa: PLC0415

    return Runner(given["root"], on_event=text_output.Printer(), lock_timeout=given.get("lock_timeout", 0.0))
