"""``sessions``: conversations that the gateway keeps on disk: list, show, remove, prune, export, import."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from llama_runner.cli import shared_options as shared
from llama_runner.cli.escape_control_characters import say
from llama_runner.cli.gc_cmds import Duration
from llama_runner.cli.runner_that_prints import root_of
from llama_runner.core.errors import UsageError
from llama_runner.core.printable_text import printable
from llama_runner.core.sizes import count_text, size_text

if TYPE_CHECKING:
    from llama_runner.sessions.session_library import Session, SessionLibrary

_SHORT = 24
_TEXT = 200

_directory = shared.option(
    "--directory",
    type=click.Path(file_okay=False),
    metavar="DIR",
    help="Only the sessions below this directory.",
    default_text="all that were used with the root",
)
_key = shared.option(
    "--encryption-key", type=click.Path(), metavar="FILE", help="File with the key that histories are encrypted with."
)


@click.group()
def sessions() -> None:
    """List, show, remove, prune, export and import the sessions that the gateway keeps on disk."""


def _library(given: dict[str, Any]) -> SessionLibrary:
    return root_of(given).sessions.at(directory=given.get("directory"), encryption_key=given.get("encryption_key"))


@sessions.command("list")
@shared.store
@_directory
@_key
def list_(**given: Any) -> None:
    """List the sessions, the one that was used last first."""
    found = _library(given).list()
    if given["as_json"]:
        click.echo(json.dumps([each.to_json() for each in found]))
    elif not found:
        say("there are none", err=True)
    else:
        rows = [("session", "id", "key", "models", "tokens", "size", "last used"), *map(_row, found)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        say(*("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows))
        say(f"{count_text(len(found), 'session')}, {size_text(sum(each.bytes for each in found))}", err=True)


def _row(session: Session) -> tuple[str, ...]:
    return (
        session.session[:_SHORT],
        printable(session.id or "-", limit=40),
        printable(session.client or "-", limit=20),
        printable(", ".join(sorted({each.record.model for each in session.states})) or "-", limit=40),
        str(max((each.record.tokens for each in session.states), default=0)),
        size_text(session.bytes),
        time.strftime("%Y-%m-%d %H:%M", time.localtime(session.used)),
    )


@sessions.command()
@shared.store
@_directory
@_key
@click.argument("session")
def show(**given: Any) -> None:
    """Show a session: its states, and the turns of its history.

    SESSION is the id that the client gave, or the beginning of what `sessions list` shows.
    """
    found = _library(given).show(given["session"])
    if given["as_json"]:
        click.echo(json.dumps(found))
        return
    say(
        f"session   {found['session']}",
        f"id        {printable(found['id'] or '-')}",
        f"key       {printable(found['client'] or '-')}",
        f"directory {printable(found['directory'])}",
        f"size      {size_text(found['bytes'])}",
    )
    for state in found["states"]:
        encrypted = ", encrypted" if state["encrypted"] else ""
        say(f"state     {printable(state['model'])}: {state['tokens']} tokens, {size_text(state['bytes'])}{encrypted}")
    if found["turns"] is None:
        say("the history is encrypted: pass --encryption-key FILE", err=True)
    for turn in found["turns"] or ():
        after = f" after {turn['parent']}" if turn["parent"] else ""
        say(f"turn      {turn['id']}{after}" + ("" if turn["answer"] is not None else ", not answered"))
        for message in (*turn["input"], *(turn["answer"] or ())):
            text = message.get("content")
            shown = text if isinstance(text, str) else json.dumps(text)
            say(f"  {printable(str(message.get('role', '-')), limit=12)}: {printable(shown, limit=_TEXT)}")


@sessions.command()
@shared.store
@_directory
@click.argument("session")
@shared.option("--yes", is_flag=True, help="Delete it.")
def remove(**given: Any) -> None:
    """Delete the states and the history of a session. Without --yes, show what would be deleted."""
    library = _library(given)
    found = library.remove(given["session"]) if given["yes"] else library.find(given["session"])
    if given["as_json"]:
        click.echo(json.dumps({**found.to_json(), "removed": given["yes"]}))
    elif given["yes"]:
        say(f"removed session {found.session[:_SHORT]}, {size_text(found.bytes)}")
    else:
        say(f"session {found.session[:_SHORT]}, {size_text(found.bytes)}, would be removed: pass --yes")


@sessions.command()
@shared.store
@_directory
@shared.option("--max-size", type=shared.Size(), metavar="SIZE", help="Keep the newest states up to this size.")
@shared.option("--unused", type=Duration(), metavar="TIME", help="Delete states that were not used for so long.")
@shared.option("--histories", is_flag=True, help="Delete histories that were not used for so long, too.")
def prune(**given: Any) -> None:
    """Delete old states, and what a crash left. A conversation whose state is gone is read again."""
    if given["histories"] and given["unused"] is None:
        raise click.UsageError("--histories needs --unused TIME")
    found = _library(given).prune(max_size=given["max_size"], unused=given["unused"], histories=given["histories"])
    if given["as_json"]:
        click.echo(json.dumps({"removed": found.removed, "bytes": found.bytes}))
    else:
        say(f"removed {count_text(len(found.removed), 'file')}, {size_text(found.bytes)}")


@sessions.command()
@shared.store
@_directory
@_key
@click.argument("session")
@shared.option("-o", "--output", type=click.Path(dir_okay=False), metavar="FILE", help="Write to this new file.")
def export(**given: Any) -> None:
    """Write the history of a session as JSON.

    It goes to standard output, or to a file.
    """
    text = json.dumps(_library(given).export(given["session"]), indent=2) + "\n"
    if given["output"] is None:
        sys.stdout.write(text)
        return
    from llama_runner.system.atomic_output import new_file  # noqa: PLC0415 - only for a file

    path = _path(given["output"])
    try:
        with new_file(path) as unfinished:
            unfinished.chmod(0o600)
            unfinished.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write {given['output']}: {error.strerror or error}") from None
    if given["as_json"]:
        click.echo(json.dumps({"file": str(path)}))


def _path(text: str) -> Any:
    from pathlib import Path  # noqa: PLC0415 - as above

    return Path(text).absolute()


@sessions.command("import")
@shared.store
@_directory
@_key
@click.argument("file", type=click.Path(dir_okay=False))
@shared.option("--as", "as_id", metavar="ID", help="Give it another id, for clients of this machine that have no key.")
def import_(**given: Any) -> None:
    """Add a session that was exported. With --encryption-key it is encrypted."""
    found = _library(given).import_(given["file"], as_id=given["as_id"])
    if given["as_json"]:
        click.echo(json.dumps(found.to_json()))
    else:
        say(f"session {found.session[:_SHORT]}")
