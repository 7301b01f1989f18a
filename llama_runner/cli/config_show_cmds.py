"""``config check``, ``show``, ``list``, ``diff``, ``schema``, ``path``: what the configuration file says."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import click

from llama_runner.cli import shared_options as shared
from llama_runner.cli.declared_model_arguments import config_path
from llama_runner.cli.escape_control_characters import say
from llama_runner.cli.help import GroupedCommand
from llama_runner.config.known_keys import SOURCES
from llama_runner.core.errors import ExitCode, StoreError
from llama_runner.request.model_and_build_options import ARTIFACTS

if TYPE_CHECKING:
    from pathlib import Path

    from llama_runner.config.config import Config
    from llama_runner.config.effective_options import Effective
    from llama_runner.config.layers import Resolved


def given_path(given: dict[str, Any]) -> Path:
    """Return the configuration file; ``UsageError`` without one."""
    from llama_runner.config.errors import no_config_error  # noqa: PLC0415 - only then

    path = config_path(given)
    if path is None:
        raise no_config_error()
    return path


def _loaded(given: dict[str, Any]) -> Config:
    from llama_runner.config.config import Config  # noqa: PLC0415 - not for --help

    return Config.load(given_path(given))


@click.command(cls=GroupedCommand, examples=("llama-runner config check", "llama-runner config check --json"))
@shared.store
def check(**given: Any) -> None:
    """Print every mistake of the configuration file, one a line.

    Options of llama-server are checked against the programs that are installed; paths must exist, and ports be used
    once. The exit status is 2 if there is a mistake.
    """
    from llama_runner.cli.llama_server_options import programs_in_hand  # noqa: PLC0415 - not for --help
    from llama_runner.config.check_against_programs import check as further  # noqa: PLC0415
    from llama_runner.config.config import Config  # noqa: PLC0415
    from llama_runner.config.errors import ConfigError  # noqa: PLC0415

    path = given_path(given)
    programs = None
    try:
        config = Config.load(path)
    except ConfigError as error:
        mistakes = list(error.mistakes)
        count = 0
    else:
        programs = programs_in_hand(given["root"])
        mistakes, count = further(config, programs), len(config.models)
    if given["as_json"]:
        found = [mistake.to_json() for mistake in mistakes]
        click.echo(json.dumps({"file": str(path), "models": count, "mistakes": found, "options": programs is not None}))
    else:
        for mistake in mistakes:
            say(f"{mistake}{f' ({mistake.hint})' if mistake.hint else ''}")
        if not mistakes:
            unchecked = "" if programs is not None else "; no programs here to check options of llama-server against"
            say(f"{path}: {count} model{'s' * (count != 1)}, no mistakes{unchecked}")
    if mistakes:
        raise SystemExit(ExitCode.USAGE)


@click.command(
    cls=GroupedCommand, examples=("llama-runner config show qwen:8b --origin", "llama-runner config show -q q8_0")
)
@shared.store
@click.argument("model", required=False, cls=shared.CompletedArgument, metavar="[NAME]")
@shared.option("--origin", is_flag=True, help="Print which layer says it, with file and line.")
@shared.made_from(option for option in ARTIFACTS if option.name not in SOURCES)
@shared.server
@shared.keeping
def show(**given: Any) -> None:
    """Show what declared models are run with, all layers together.

    NAME is a model, an alias, a variant or an adapter; without it, every model is shown. Options of `run` may be
    given: they count more than the file, as there.
    """
    from llama_runner.cli.arguments import arguments_of  # noqa: PLC0415 - not for --help
    from llama_runner.config.effective_options import effective  # noqa: PLC0415
    from llama_runner.config.known_keys import MODEL_OPTIONS  # noqa: PLC0415

    config, arguments = _loaded(given), arguments_of(given)
    flags = {
        key: not given[option.argument] if option.is_negated else given[option.argument]
        for key, option in MODEL_OPTIONS.items()
        if option.argument in given and option.argument in arguments.given
    }
    names = list(config.models) if given["model"] is None else [given["model"]]
    found = {}
    for name in names:
        resolved = _resolved(config, name, given)
        found[resolved.names[0]] = effective(config, resolved, flags)
    if given["as_json"]:
        document = {name: [each.to_json() for each in keys] for name, keys in found.items()}
        click.echo(json.dumps(document))
        return
    for name, keys in found.items():
        if len(found) > 1:
            say(name)
        say(*_table([_row(each, given["origin"]) for each in keys]))


def _resolved(config: Config, name: str, given: dict[str, Any]) -> Resolved:
    from llama_runner.serving import tuned_profiles  # noqa: PLC0415 - not for --help
    from llama_runner.store import layout  # noqa: PLC0415

    directory = layout.profiles(layout.find_root(given["root"]))
    return config.resolved(name, lambda saved: tuned_profiles.read(directory, saved), chosen=given["profile"])


def _row(each: Effective, origin: bool) -> list[str]:
    where = f"{each.origin}{f', {each.place}' if each.place else ''}"
    value = each.to_json()["value"]
    shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return [each.key, shown, *([where] if origin else [])]


def _table(rows: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


@click.command("list")
@shared.store
def list_(**given: Any) -> None:
    """List the declared models: name, source, and further names."""
    from llama_runner.config.config import names_of  # noqa: PLC0415 - not for --help

    config = _loaded(given)
    found = []
    for model in config.models.values():
        named = next((f"{key}: {model.options[key]}" for key in SOURCES if model.options.get(key)), "")
        source = model.source or ("demo" if model.options.get("demo") else named)
        found.append({"name": model.name, "source": source, "names": names_of(model)[1:], "file": str(model.path)})
    if given["as_json"]:
        click.echo(json.dumps(found))
        return
    if not found:
        say(f"{config.path} declares no models", err=True)
        return
    rows = [[str(each["name"]), str(each["source"]), ", ".join(each["names"])] for each in found]
    say(*_table([["name", "source", "further names"], *rows]))


@click.command(
    cls=GroupedCommand,
    examples=("llama-runner config diff", "llama-runner config diff old.toml", "… old.toml new.toml"),
)
@shared.store
@click.argument("files", nargs=-1, metavar="[FILE [FILE]]")
def diff(**given: Any) -> None:
    """Show what differs from the servers that run, or between two files.

    Without FILE: declared models that do not run or run with other options, and servers of this file that it no
    longer declares. With one FILE: what the configuration changes against it; with two, what the second changes. The
    exit status is 1 if anything differs. `lock --check` compares with the lock file.
    """
    from llama_runner.config.differences import file_differences, running_differences  # noqa: PLC0415 - not for --help

    if len(given["files"]) > 2:  # noqa: PLR2004 - as said
        raise click.UsageError("compare two files at most")
    if given["files"]:
        from llama_runner.config.config import Config  # noqa: PLC0415

        before = Config.load(given["files"][0])
        after = Config.load(given["files"][1]) if len(given["files"]) > 1 else _loaded(given)
        found = file_differences(before, after)
    else:
        from llama_runner.cli.runner_that_prints import runner_for  # noqa: PLC0415

        config = _loaded(given)
        found = running_differences(runner_for(given, config=config).deployment()) if config.models else []
    if given["as_json"]:
        click.echo(json.dumps([each.to_json() for each in found]))
    else:
        for each in found:
            say(str(each))
        if not found:
            say("nothing differs", err=True)
    if found:
        raise SystemExit(1)


@click.command()
@shared.option("--output", "-o", metavar="FILE", help="Write a file.", default_text="standard output")
def schema(output: str | None) -> None:
    """Print the JSON Schema of the configuration file, for editors."""
    from llama_runner.config.schema import schema as made  # noqa: PLC0415 - not for --help

    text = json.dumps(made(), indent=2, ensure_ascii=False)
    if output is None:
        click.echo(text)
        return
    from llama_runner.store.layout import user_path  # noqa: PLC0415 - as above
    from llama_runner.system.files import write_atomically  # noqa: PLC0415

    try:
        write_atomically(user_path(output).absolute(), f"{text}\n".encode())
    except OSError as error:
        raise StoreError(f"cannot write {output}: {error.strerror or error}") from error


@click.command()
@shared.store
def path(**given: Any) -> None:
    """Print the path of the configuration file that is read here.

    The exit status is 2 if there is none.
    """
    found = given_path(given)
    if not os.path.lexists(found):
        from llama_runner.config.errors import no_such_config_error  # noqa: PLC0415 - only then

        raise no_such_config_error(found)
    click.echo(json.dumps({"file": str(found)}) if given["as_json"] else str(found))
