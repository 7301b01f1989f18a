"""Commands about servers that run in the background, and about services of the system."""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llama_runner.cli import options as shared
from llama_runner.cli.streams import PrintableBytes, say
from llama_runner.core.printable import printable, printable_message
from llama_runner.core.redaction import redacted
from llama_runner.system.files import open_regular, read_bounded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from llama_runner.api import Runner

_POLL_S = 0.2
_BLOCK = 1 << 16
_LARGEST_UNIT = 1 << 20
_COLUMNS = ("name", "state", "url", "pid", "age", "memory", "VRAM", "slots", "tokens/s", "llama.cpp")


@click.command()
@shared.store
def ps(**given: Any) -> None:
    """List the servers that run: state, age, memory, slots that are busy, tokens per second (with -- --metrics).

    Also those in the background that failed, and why, until they are stopped or started again.
    """
    from llama_runner.serving.errors import OutOfReach  # noqa: PLC0415 - not for --help
    from llama_runner.serving.registry import elsewhere  # noqa: PLC0415

    runner = _runner(given)
    found = runner.running()
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
    for server in elsewhere(runner.servers):
        say(f"note      {OutOfReach(server)}", err=True)


def _row(server: dict[str, Any]) -> tuple[str, ...]:
    from llama_runner.cli import render  # noqa: PLC0415 - not for --help
    from llama_runner.core.sizes import size_text  # noqa: PLC0415

    def told(value: Any, text: Callable[[Any], str] = str) -> str:
        return "-" if value is None else text(value)

    slots = None if server["slots"] is None else f"{server['slots_busy']} of {server['slots']} busy"
    return (
        server["alias"],
        told(server["state"]),
        server["url"],
        told(server["pid"]),
        told(server["age_s"], render.age),
        told(server["rss"], size_text),
        told(server["vram"], render.vram),
        told(slots),
        told(server["tokens_per_second"], "{:.1f}".format),
        told(server["build"]),
    )


@click.command()
@shared.store
@click.argument("server", required=False)
@click.option("-f", "--follow", is_flag=True, help="Go on with what it says, until it ends or Ctrl-C.")
@click.option("-n", "--lines", type=click.IntRange(0), default=100, show_default=True, help="The last ones.")
def logs(**given: Any) -> None:
    """Print what a server said, named as status shows it; without a name the one that runs, or ran last."""
    from llama_runner.serving.server_control import log_of  # noqa: PLC0415 - not for --help

    runner = _runner(given)
    path, runs = log_of(runner.servers, runner.root, given["server"])
    out = PrintableBytes(sys.stdout)
    with open_regular(path) as file:
        out.write(b"".join(_last_lines(file, given["lines"])))
        out.flush()
        for block in _follow(path, file, runs) if given["follow"] else ():
            out.write(block)
            out.flush()


def _last_lines(file: Any, count: int) -> list[bytes]:
    """Return the last lines of a file; it is read from its end."""
    end = at = file.seek(0, os.SEEK_END)
    ends = 0
    while at > 0 and ends <= count:
        at = max(0, at - _BLOCK)
        file.seek(at)
        ends += file.read(min(_BLOCK, end - at)).count(b"\n")
    file.seek(at)
    return file.read(end - at).splitlines(keepends=True)[-count:] if count else []


def _follow(path: Path, file: Any, runs: Callable[[], bool]) -> Iterator[bytes]:
    """Yield what is added, also when the log is set aside and begun anew."""
    try:
        while True:
            alive = runs()  # looked at first: what it said before its end is still to be read
            yield from _rest(file)
            with suppress(FileNotFoundError):
                if path.stat().st_ino != os.fstat(file.fileno()).st_ino:
                    yield from _rest(file)
                    file.close()
                    file = open_regular(path)
                    continue
            if not alive:
                return
            time.sleep(_POLL_S)
    finally:
        file.close()


def _rest(file: Any) -> Iterator[bytes]:
    while block := file.read(_BLOCK):
        yield block


@click.command()
@shared.store
@click.argument("server", required=False)
@click.option("--all", "every", is_flag=True, help="All servers of this root.")
def stop(**given: Any) -> None:
    """End a running server, named by its model, URL or process id as status shows them, or all.

    A name of several servers is an error that lists their URLs. A server that has failed is forgotten.
    """
    if bool(given["server"]) == given["every"]:
        raise click.UsageError("name one server, or use --all")
    stopped = _runner(given).stop(given["server"])
    if given["as_json"]:
        click.echo(json.dumps(stopped))
    for about in () if given["as_json"] else stopped:
        ended = about["state"] != "failed"
        say(
            f"stopped   {about['alias']} at {about['url']}, process {about['pid']}"
            if ended
            else f"forgotten {about['alias']}: it had failed"
        )


@click.command()
@shared.store
@click.argument("server")
def restart(**given: Any) -> None:
    """End a server that was started with run --detach and start it anew: same model, port, key."""
    about = _runner(given).restart(given["server"])
    if given["as_json"]:
        click.echo(json.dumps(about))
    else:
        say(f"restarted {about['alias']} at {about['url']}, process {about['pid']}")


@click.group()
def service() -> None:
    """Let the system start a server: a systemd user unit, or a launchd agent on macOS."""


_service_words = click.argument("run_options", nargs=-1, type=click.UNPROCESSED, metavar="[OPTIONS AND MODEL OF run]…")
_service_name = click.option("--name", help="Of the service; default: made from the model.")
_AS_THEY_ARE = {"ignore_unknown_options": True, "help_option_names": ["-h", "--help"]}


@service.command(context_settings=_AS_THEY_ARE)
@_service_name
@_service_words
def install(name: str | None, run_options: tuple[str, ...]) -> None:
    """Write the unit for llama-runner run with these options, and say how to start it."""
    from llama_runner.serving import system_service  # noqa: PLC0415 - not for --help

    path, text = _unit(name, run_options)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", errors="surrogateescape")
    start, stop = system_service.commands(path)
    say(f"written   {path}", f"start     {start}", f"stop      {stop}")


@service.command(context_settings=_AS_THEY_ARE)
@_service_name
@_service_words
def show(name: str | None, run_options: tuple[str, ...]) -> None:
    """Print the unit that install would write; with --name alone the one that is installed."""
    from llama_runner.serving import system_service  # noqa: PLC0415 - not for --help

    if name is not None and not run_options:
        path = system_service.where(name, os.environ)
        if not path.exists():
            raise click.UsageError(f"no service called {name!r} is installed: there is no {path}")
        click.echo(read_bounded(path, _LARGEST_UNIT).decode("utf-8", "replace"), nl=False)
        return
    click.echo(_unit(name, run_options)[1], nl=False)


@service.command()
@click.argument("name")
def uninstall(name: str) -> None:
    """Remove a unit; a server that it started is ended by the command that this prints."""
    from llama_runner.serving import system_service  # noqa: PLC0415 - not for --help

    path = system_service.where(name, os.environ)
    if not path.exists():
        raise click.UsageError(f"no service called {name!r} is installed: there is no {path}")
    path.unlink()
    say(f"removed   {path}", f"stop      {system_service.commands(path)[1]}")


def _unit(name: str | None, words: tuple[str, ...]) -> tuple[Path, str]:
    """Return where a unit belongs and its text; the words must be such that ``run`` takes them."""
    from llama_runner.cli.run_cmd import run  # noqa: PLC0415 - not for --help
    from llama_runner.serving import system_service  # noqa: PLC0415 - not for --help
    from llama_runner.store.layout import find_root  # noqa: PLC0415 - not for --help
    from llama_runner.system.processes import python_module  # noqa: PLC0415 - as above

    extra = click.get_current_context().obj or ()
    given = run.make_context("llama-runner run", list(words), obj=extra).params
    if shared.server_options(given).api_key:
        raise click.UsageError("a key that is made anew at each start is of no use; use --api-key-file")
    if os.environ.get("LLAMA_API_KEY"):
        raise click.UsageError("a unit holds no key, so LLAMA_API_KEY would not reach it; use --api-key-file")
    if any(redacted(word) != word for word in (*words, *extra)):
        raise click.UsageError("a unit can be read by others, so no URL in it may have a password or a token")
    if given["detach"]:
        raise click.UsageError("the system holds it: leave --detach out")
    sources = ("model", "hf_model", "gguf_path", "safetensors_dir")
    source = next((str(given[of]) for of in sources if given[of]), "demo" if given["demo"] else None)
    if source is None:
        raise click.UsageError("say which model, as for run")
    name = name or Path(source).name
    script = Path(sys.executable).with_name("llama-runner")
    program = [str(script)] if script.exists() else list(python_module("llama_runner"))
    argv = [*program, "run", *words, *(["--", *extra] if extra else [])]
    variables = system_service.variables(os.environ, find_root(given["root"]), llama_env=given["llama_env"])
    for word in (name, *argv, str(Path.cwd()), *variables.values()):
        if printable(word) != word:
            raise click.UsageError(
                f"a service cannot have control characters or other than UTF-8 in its command: {word!a}"
            )
    return system_service.where(name, os.environ), system_service.unit(name, argv, Path.cwd(), variables)


def _runner(given: dict[str, Any]) -> Runner:
    from llama_runner.api import Runner  # noqa: PLC0415 - not for --help
    from llama_runner.cli import render  # noqa: PLC0415

    return Runner(given["root"], on_event=render.Printer())
