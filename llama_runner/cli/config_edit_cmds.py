"""``config edit``, ``get``, ``set``, ``unset``, ``remove``, ``rename``: change the configuration file."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llama_runner.cli import shared_options as shared
from llama_runner.cli.config_show_cmds import given_path
from llama_runner.cli.escape_control_characters import say
from llama_runner.cli.help import GroupedCommand
from llama_runner.core.errors import ToolError, UsageError

if TYPE_CHECKING:
    from llama_runner.config.edit import Change

_KEY = click.argument("key", cls=shared.CompletedArgument)


@click.command(cls=GroupedCommand, examples=("llama-runner config get models.qwen:8b.port",))
@shared.store
@_KEY
def get(**given: Any) -> None:
    """Print what the configuration file sets a key to.

    KEY is written as in the file: models."qwen:8b".port. Names of models need no quotes. A table is printed as JSON.
    """
    from llama_runner.config.edit import get_value  # noqa: PLC0415 - not for --help

    value = get_value(given_path(given), given["key"])
    if isinstance(value, str) and not given["as_json"]:
        say(value)
    else:
        click.echo(json.dumps(value, default=str, ensure_ascii=given["as_json"]))


@click.command(
    "set",
    cls=GroupedCommand,
    context_settings={"ignore_unknown_options": True},  # a value may be -1
    examples=(
        "llama-runner config set models.qwen:8b.port 8081",
        "llama-runner config set defaults.llama.parallel 2",
    ),
)
@shared.store
@_KEY
@click.argument("value")
def set_(**given: Any) -> None:
    """Set a key of the configuration file. Comments and order stay.

    VALUE is text, a number, true, false, or another value of TOML; a list may be written as A,B. A value that the key
    does not take is refused, and the file stays as it is.
    """
    from llama_runner.config.edit import set_typed  # noqa: PLC0415 - not for --help

    _tell(set_typed(given_path(given), given["key"], given["value"]), given)


@click.command(cls=GroupedCommand, examples=("llama-runner config unset models.qwen:8b.port",))
@shared.store
@_KEY
def unset(**given: Any) -> None:
    """Remove a key or a table from the configuration file."""
    from llama_runner.config import edit as edits  # noqa: PLC0415 - not for --help

    _tell(edits.unset(given_path(given), given["key"]), given)


@click.command()
@shared.store
@click.argument("model", cls=shared.CompletedArgument, metavar="NAME")
def remove(**given: Any) -> None:
    """Remove a model from the configuration file.

    Its files stay; `models remove` deletes them.
    """
    from llama_runner.config import edit as edits  # noqa: PLC0415 - not for --help

    _tell(edits.remove(given_path(given), given["model"]), given)


@click.command()
@shared.store
@click.argument("model", cls=shared.CompletedArgument, metavar="OLD")
@click.argument("new")
def rename(**given: Any) -> None:
    """Give a declared model another name, also in `fallback`."""
    from llama_runner.config import edit as edits  # noqa: PLC0415 - not for --help

    _tell(edits.rename(given_path(given), given["model"], given["new"]), given)


def _tell(change: Change, given: dict[str, Any]) -> None:
    if given["as_json"]:
        click.echo(json.dumps({"file": str(change.path), "changed": not change.is_none}))
    elif change.is_none:
        say("nothing changed", err=True)
    else:
        say(f"changed   {change.path}")


@click.command()
@shared.store
@shared.option("--force", is_flag=True, help="Install the file although it has mistakes.")
def edit(**given: Any) -> None:
    """Open the configuration file in $VISUAL or $EDITOR.

    What is edited is a copy, which is checked before it replaces the file. If it has mistakes they are printed, and on
    a terminal you are asked whether to edit it again; else the file stays as it is and the copy is kept.
    """
    from llama_runner.config.edit import replace_text  # noqa: PLC0415 - not for --help
    from llama_runner.config.errors import ConfigError  # noqa: PLC0415
    from llama_runner.config.read_config_file import text_of  # noqa: PLC0415
    from llama_runner.system.files import write_atomically  # noqa: PLC0415

    if not (os.environ.get("VISUAL") or os.environ.get("EDITOR") or _asks()):
        raise UsageError("there is no terminal to edit on", hint="set EDITOR, or use llama-runner config set")
    path = given_path(given)
    text = text_of(path, ())
    copy = Path(tempfile.mkdtemp(prefix="llama-runner-")) / path.name
    write_atomically(copy, text.encode())
    keep = True
    try:
        while True:
            _open(copy)
            edited = text_of(copy, ())
            if edited == text:
                keep = False
                say("nothing changed", err=True)
                return
            try:
                replace_text(path, edited, before=text, insist=given["force"])
            except ConfigError as error:
                say(*(str(each).replace(str(copy), str(path)) for each in error.mistakes), err=True)
                if not _asks() or not click.confirm("edit it again?", default=True, err=True):
                    say(f"{path} stays as it was; what you wrote is in {copy}", err=True)
                    raise
            else:
                keep = False
                say(f"changed   {path}")
                return
    finally:
        if not keep:
            with suppress(OSError):
                copy.unlink()
                copy.parent.rmdir()


def _asks() -> bool:
    return bool(sys.stdin) and sys.stdin.isatty() and sys.stderr.isatty()


def _open(copy: Path) -> None:
    try:
        click.edit(filename=str(copy))
    except click.ClickException as error:
        raise ToolError(f"the editor failed: {error.message}", hint="set VISUAL or EDITOR to an editor") from None
