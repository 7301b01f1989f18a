"""Commands about servers that run in the background: ``ps``, ``logs``, ``stop``, ``restart``."""

from __future__ import annotations

import json
import re
import sys
from typing import TYPE_CHECKING, Any

import click

from llama_runner.cli import shared_options as shared
from llama_runner.cli.declared_model_arguments import server_name
from llama_runner.cli.escape_control_characters import PrintableBytes, say
from llama_runner.core.printable_text import printable, printable_message

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from llama_runner.api import Runner

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
            click.echo(json.dumps({"line": line.removesuffix(b"\r").decode("utf-8", "backslashreplace")}))
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


def _runner(given: dict[str, Any]) -> Runner:
    from llama_runner.api import Runner  # noqa: PLC0415 - not for --help
    from llama_runner.cli import text_output  # noqa: PLC0415

    return Runner(given["root"], on_event=text_output.Printer(), lock_timeout=given.get("lock_timeout", 0.0))
