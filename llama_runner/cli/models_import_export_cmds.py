"""``models export`` and ``models import``: transfer models between machines and from other programs."""

from __future__ import annotations

import json
import shlex
import sys
from typing import IO, TYPE_CHECKING, Any, Literal

import click

from llama_runner.cli import shared_options as shared
from llama_runner.cli.escape_control_characters import say, terminal_of
from llama_runner.cli.runner_that_prints import root_of
from llama_runner.core.errors import SourceError
from llama_runner.core.sizes import count_text, size_text
from llama_runner.library.foreign_programs import TOOLS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from llama_runner.library.bundle_export import Exported
    from llama_runner.library.file_import import ForeignModel, ImportedModel

_STREAM = "-"


@click.command()
@shared.store
@click.argument("model_names", nargs=-1, required=True, cls=shared.CompletedArgument, metavar="NAME…")
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
    found = root_of(given).models.export(
        *given["model_names"], output=stream or given["output"], programs=given["programs"]
    )
    if given["as_json"]:
        click.echo(json.dumps(found.to_json()))
    else:
        _tell_export(found)


def _standard_output(given: dict[str, Any]) -> IO[bytes]:
    if given["as_json"]:
        raise click.UsageError("--json and --output - both write to standard output; give one")
    if sys.stdout is not None and sys.stdout.isatty():
        raise click.UsageError("a bundle is not written to a terminal; give --output FILE, or a pipe")
    return _bytes_of(sys.stdout and terminal_of(sys.stdout))


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
@click.argument("words", nargs=-1, metavar="[PATH | NAME…]")
@shared.option(
    "--from",
    "tool",
    type=click.Choice(TOOLS),
    help="Import models of this program by name; without NAME, list them.",
)
@shared.option(
    "--path", metavar="DIR", help="With --from: the directory of that program.", default_text="its usual one"
)
@shared.option("--all", "everything", is_flag=True, help="With --from: import every model that can be imported.")
@shared.option("--name", metavar="NAME", help="Name of the model in the store, if not that of the file.")
@shared.option("--copy", is_flag=True, help="Copy the bytes instead of sharing them with the file.")
@shared.option("--move", is_flag=True, help="Remove the file after it was imported.")
def import_(**given: Any) -> None:
    """Take models from a bundle, a file or another tool.

    PATH is a file of `models export` (- is standard input), a GGUF file, or a directory of safetensors. Bytes are
    shared with the file by a clone (reflink) or a hard link. `run NAME` starts an imported model.
    """
    if given["copy"] and given["move"]:
        raise click.UsageError("--copy and --move exclude each other")
    if given["tool"] is not None:
        _import_from(given)
        return
    if given["path"] is not None or given["everything"]:
        raise click.UsageError("--path and --all belong to --from")
    if len(given["words"]) != 1:
        raise click.UsageError("name one PATH, or a program with --from")
    (path,) = given["words"]
    if path == _STREAM or _is_bundle(path):
        if given["name"] is not None or given["copy"] or given["move"]:
            raise click.UsageError("a bundle has its own names, and is read once; leave --name, --copy and --move out")
        _import_bundle(given, path)
    else:
        found = root_of(given).models.import_path(path, name=given["name"], how=_how(given))
        _tell_models(given, [found])


def _how(given: dict[str, Any]) -> Literal["link", "copy", "move"]:
    return "copy" if given["copy"] else "move" if given["move"] else "link"


def _is_bundle(path: str) -> bool:
    from llama_runner.library.bundle_reader import is_bundle  # noqa: PLC0415 - not for --help
    from llama_runner.store.layout import user_path  # noqa: PLC0415 - as above
    from llama_runner.system.files import read_head  # noqa: PLC0415 - as above

    file = user_path(path)
    try:
        head = read_head(file, 512)
    except OSError:  # a directory, or an unreadable file: the error is raised where it is opened
        return False
    return is_bundle(head) or (not head.startswith(b"GGUF") and file.suffix.lower() != ".gguf")


def _import_bundle(given: dict[str, Any], path: str) -> None:
    if path == _STREAM and sys.stdin is not None and sys.stdin.isatty():
        raise click.UsageError("a bundle is not read from a terminal; give a file, or a pipe")
    found = root_of(given).models.import_bundle(_bytes_of(sys.stdin) if path == _STREAM else path)
    if given["as_json"]:
        click.echo(json.dumps(found.to_json()))
        return
    say(*(f"imported  {path}" for path in found.artifacts), *(f"here      {path}" for path in found.here))
    if found.programs:
        say(f"programs  {found.programs}")
    say(f"models    {', '.join(found.models)}")


def _import_from(given: dict[str, Any]) -> None:
    """Import what another program keeps, or list it."""
    if given["name"] is not None:
        raise click.UsageError("--name is for a PATH; the models of a program keep their names")
    library, tool, where = root_of(given).models, given["tool"], given["path"]
    if not given["words"] and not given["everything"]:
        _tell_found(given, library.found_in(tool, path=where))
        return
    if given["words"] and given["everything"]:
        raise click.UsageError("give names, or --all")
    names, left = given["words"], []
    if given["everything"]:
        there = library.found_in(tool, path=where)
        names, left = [each.name for each in there if each.problem is None], [each for each in there if each.problem]
    for each in left:
        say(f"left      {each.name}   ({each.problem})", err=True)
    settings = {each.name: each for each in library.found_in(tool, path=where)} if tool == "ollama" else {}
    if not given["everything"]:
        _tell_models(given, library.import_from(tool, *names, path=where, how=_how(given)), settings)
        return
    found: list[ImportedModel] = []
    damaged: list[str] = []
    for name in names:
        try:
            found += library.import_from(tool, name, path=where, how=_how(given))
        except SourceError as error:  # the others are imported; an error of the store concerns them too
            damaged.append(name)
            say(f"failed    {name}: {error}", err=True)
    _tell_models(given, found, settings)
    if damaged:
        raise SourceError(f"{len(damaged)} of {len(names)} models were not imported", hint="the others were")


def _tell_found(given: dict[str, Any], found: Sequence[ForeignModel]) -> None:
    if given["as_json"]:
        click.echo(json.dumps({"found": [each.to_json() for each in found]}))
        return
    for each in found:
        about = [size_text(each.bytes), each.kind, *(["with a projector"] if each.projector else []), *each.settings]
        say(f"{each.name}   ({each.problem})" if each.problem else f"{each.name}   ({', '.join(about)})")
    say(f"{count_text(len(found), 'model')}; nothing is imported without a name or --all", err=True)


def _tell_models(
    given: dict[str, Any], found: Sequence[ImportedModel], there: Mapping[str, ForeignModel] | None = None
) -> None:
    if given["as_json"]:
        click.echo(json.dumps({"imported": [each.to_json() for each in found]}))
        return
    for each in found:
        say(*(f"imported  {path}   ({each.how})" for path in each.paths))
        say(f"run       llama-runner run {shlex.join([each.name, *_words(each.name, there)])}")
    if not found:
        say("there is nothing to import", err=True)


def _words(name: str, there: Mapping[str, ForeignModel] | None) -> list[str]:
    """Return the options of ``run`` that have the meaning of what a program keeps beside a model."""
    from llama_runner.library.ollama_store import launch_words  # noqa: PLC0415 - not for --help

    return launch_words(there[name].settings) if there and name in there else []
