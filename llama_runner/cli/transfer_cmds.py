"""Commands that carry models from one machine or program to another: ``models export`` and ``models import``."""

from __future__ import annotations

import json
import sys
from typing import IO, TYPE_CHECKING, Any

import click

from llama_runner.cli import options as shared
from llama_runner.cli.safe_output import say, terminal_of
from llama_runner.core.sizes import size_text

if TYPE_CHECKING:
    from llama_runner.library.bundle_export import Exported
    from llama_runner.library.bundle_import import Imported
    from llama_runner.root import Root

_LOCK_TIMEOUT_S = 600.0
_STREAM = "-"


@click.command()
@shared.store
@click.argument("names", nargs=-1, required=True, cls=shared.CompletedArgument, metavar="NAME…")
@shared.option(
    "--output",
    "-o",
    required=True,
    metavar="FILE",
    help="File to write; compressed if it ends with .zst. - is standard output.",
)
@shared.option("--programs", is_flag=True, help="Add the programs of llama.cpp that a run uses here.")
def export(**given: Any) -> None:
    """Write models into one file, for a machine without network.

    The file holds the models with their records and pins. The same models give the same bytes. There, `models import`
    takes it, and `run NAME --offline` starts the model.
    """
    stream = _standard_output(given) if given["output"] == _STREAM else None
    found = _root_of(given).models.export(*given["names"], output=stream or given["output"], programs=given["programs"])
    if given["as_json"]:
        click.echo(json.dumps(found.to_json()))
    else:
        _tell_export(found)


def _standard_output(given: dict[str, Any]) -> IO[bytes]:
    if given["as_json"]:
        raise click.UsageError("--json and --output - both write to standard output; give one")
    if sys.stdout.isatty():
        raise click.UsageError("a bundle is not written to a terminal; give --output FILE, or a pipe")
    return _bytes_of(terminal_of(sys.stdout))


def _bytes_of(stream: IO[str] | None) -> IO[bytes]:
    found: IO[bytes] | None = getattr(stream, "buffer", None)
    if found is None:
        raise click.UsageError("there is no standard stream to read or write; name a file")
    return found


def _tell_export(found: Exported) -> None:
    say(f"exported  {', '.join(found.models)}", err=True)
    if found.programs:
        say(f"programs  {found.programs}", err=True)
    say(f"sha256    {found.sha256}", err=True)
    say(f"wrote     {found.output or 'to standard output'}   ({size_text(found.bytes)})", err=True)


@click.command("import")
@shared.store
@click.argument("path", metavar="FILE")
def import_(**given: Any) -> None:
    """Take models from a file that `models export` wrote; - is standard input.

    What is damaged or does not agree with its records is refused, and nothing of it is kept.
    """
    source = _bytes_of(sys.stdin) if given["path"] == _STREAM else given["path"]
    found = _root_of(given).models.import_bundle(source)
    if given["as_json"]:
        click.echo(json.dumps(found.to_json()))
    else:
        _tell_import(found)


def _tell_import(found: Imported) -> None:
    say(*(f"imported  {path}" for path in found.artifacts), *(f"here      {path}" for path in found.here))
    if found.programs:
        say(f"programs  {found.programs}")
    say(f"models    {', '.join(found.models)}")


def _root_of(given: dict[str, Any]) -> Root:
    """Return the root that a command works on, with progress on stderr."""
    from llama_runner.cli.text_output import Printer  # noqa: PLC0415 - not for --help
    from llama_runner.root import Root  # noqa: PLC0415 - as above

    return Root(given["root"], on_event=Printer(), lock_timeout=_LOCK_TIMEOUT_S)
