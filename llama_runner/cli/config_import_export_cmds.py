"""``config import`` and ``config export``: configurations of other tools."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llama_runner.cli import shared_options as shared
from llama_runner.cli.declared_model_arguments import config_path
from llama_runner.cli.escape_control_characters import say
from llama_runner.cli.runner_that_prints import runner_for
from llama_runner.core.errors import UsageError

if TYPE_CHECKING:
    from llama_runner.config.export_models import Exported
    from llama_runner.config.import_report import Imported, ImportedItem
    from llama_runner.config.server_flags import ServerFlags

IMPORTS = ("modelfile", "llama-swap", "ini", "hugind", "compose", "command")
EXPORTS = ("llama-swap", "ini")
"""Those of ``config.import_file`` and ``config.export_file``, which are not loaded for --help."""


@click.command("import")
@shared.store
@click.argument("words", nargs=-1, metavar="[FILE | -- COMMAND…]")
@shared.option(
    "--format", "format_name", type=click.Choice(IMPORTS), help="Format of FILE.", default_text="found by the content"
)
@shared.option("--name", metavar="NAME", help="Name of the model, where FILE has one model.")
@shared.option("--output", "-o", metavar="FILE", help="Write a new file.", default_text="standard output")
@shared.option("--into", metavar="FILE", help="Add the models to this configuration file; its comments stay.")
@shared.option("--force", is_flag=True, help="With --into: replace models of the same name.")
def import_(**given: Any) -> None:
    """Turn the configuration of another tool into ours.

    FILE is a Modelfile of Ollama, a file of llama-swap or Hugind, a preset file of llama.cpp, a docker-compose.yml, or
    a script that starts llama-server; - is standard input. A command line may follow `--`: `config import --
    llama-server -m FILE -c 8192`. Standard error says line by line what was taken and what was not. Nothing in the
    file is run, and secrets are not written.
    """
    if given["output"] is not None and given["into"] is not None:
        raise click.UsageError("--output and --into exclude each other")
    if given["force"] and given["into"] is None:
        raise click.UsageError("--force belongs to --into")
    from llama_runner.config.import_report import ImportFailed  # noqa: PLC0415 - not for --help

    try:
        found = _imported(given, click.get_current_context().obj or ())
    except ImportFailed as error:
        _tell(error.items)
        raise
    written = _write(given, found, given["words"][0] if given["words"] else "the command line")
    if given["as_json"]:
        click.echo(json.dumps({**found.to_json(), "written": written and str(written)}))
        return
    if written is None:
        from llama_runner.config.write_imported import file_text  # noqa: PLC0415 - not for --help

        click.echo(file_text(found), nl=False)
    _tell(found.items)
    left = len(found.not_taken)
    where = "" if written is None else f" into {written}"
    say(f"imported {', '.join(found.models)} from {found.format}{where}; {left} parts not taken", err=True)


def _imported(given: dict[str, Any], extra: tuple[str, ...]) -> Imported:
    from llama_runner.config.import_file import import_file, import_text, import_words  # noqa: PLC0415 - not for --help

    target = given["into"] or given["output"]
    about = {
        "name": given["name"],
        "target": Path.cwd() if target is None else Path(target).absolute().parent,
        "flags": _flags(given["root"]),
    }
    if extra:
        if given["words"] or given["format_name"] is not None:
            raise click.UsageError("give a FILE or a command line, not both; a command line has no --format")
        return import_words(extra, **about)
    if len(given["words"]) != 1:
        raise click.UsageError("name one FILE, or write a command line after `--`")
    (path,) = given["words"]
    if path != "-":
        return import_file(path, format=given["format_name"], **about)
    if sys.stdin is None or sys.stdin.isatty():
        raise click.UsageError("a configuration is not read from a terminal; give a file, or a pipe")
    from llama_runner.config.import_report import LARGEST  # noqa: PLC0415 - not for --help

    return import_text(sys.stdin.buffer.read(LARGEST + 1), format=given["format_name"], **about)


def _flags(root: str | None) -> ServerFlags:
    """Return the options of the llama-server that is installed, and of the pinned one."""
    from llama_runner.cli.llama_server_options import programs_in_hand  # noqa: PLC0415 - not for --help
    from llama_runner.config.server_flags import server_flags  # noqa: PLC0415

    return server_flags(programs_in_hand(root))


def _write(given: dict[str, Any], found: Imported, origin: str) -> Path | None:
    from llama_runner.config.write_imported import write_into, write_new  # noqa: PLC0415 - not for --help

    if given["into"] is not None:
        return write_into(given["into"], found, origin, force=given["force"])
    return None if given["output"] is None else write_new(given["output"], found)


def _tell(items: tuple[ImportedItem, ...]) -> None:
    for item in items:
        became = f" -> {item.became}" if item.became else ""
        note = f"   ({item.note})" if item.note else ""
        say(f"{item.line:>5}  {item.kind:<10}  {item.text}{became}{note}", err=True)


@click.command("export")
@shared.store
@click.argument("names", nargs=-1, cls=shared.CompletedArgument, metavar="[NAME…]")
@shared.option("--to", "to", type=click.Choice(EXPORTS), required=True, help="Format of the file.")
@shared.option(
    "--output", "-o", metavar="FILE", help="Write this file; it must not exist.", default_text="standard output"
)
def export_(**given: Any) -> None:
    """Write the declared models as a file that another program reads.

    llama-swap: commands that start the llama-server that is prepared here. ini: presets for llama.cpp's router,
    `llama-server --models-preset FILE`. Only prepared models are exported (`llama-runner prepare NAME`). Standard
    error says what the format cannot express. Secrets are not written.
    """
    from llama_runner.config.export_file import export_config, prepared_specs  # noqa: PLC0415 - not for --help

    path = config_path(given)
    if path is None:
        raise UsageError("there is no configuration file", hint="llama-runner config init writes one")
    from llama_runner.config.config import Config  # noqa: PLC0415 - not for --help

    config = Config.load(path)
    runner = runner_for(given, config=config)
    names = [config.model(name).name for name in given["names"]] or list(config.models)
    found = export_config(config, prepared_specs(config, runner.plan, names), given["to"], flags=_flags(given["root"]))
    written = None if given["output"] is None else _new_file(given["output"], found)
    if given["as_json"]:
        click.echo(json.dumps({**found.to_json(), "written": written and str(written)}))
        return
    if written is None:
        click.echo(found.text, nl=False)
    for item in found.items:
        say(f"{item.model}{f'.{item.key}' if item.key else ''}: {item.note}", err=True)
    if written is not None:
        say(f"exported {', '.join(found.models)} to {written}", err=True)


def _new_file(name: str, found: Exported) -> Path:
    from llama_runner.config.write_imported import write_text  # noqa: PLC0415 - not for --help

    return write_text(name, found.text)
