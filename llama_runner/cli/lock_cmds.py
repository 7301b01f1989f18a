"""``lock``: writes, compares and moves ``llama-runner.lock``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from llama_runner.cli import shared_options as shared
from llama_runner.cli.arguments import arguments_of
from llama_runner.cli.declared_model_arguments import config_path, suggest_declared
from llama_runner.cli.escape_control_characters import say
from llama_runner.cli.help import GroupedCommand
from llama_runner.cli.runner_that_prints import runner_for
from llama_runner.core.errors import ExitCode, SourceError
from llama_runner.request.lock_file import NAME as LOCK_FILE
from llama_runner.request.model_and_build_options import ARTIFACTS

if TYPE_CHECKING:
    from llama_runner.library.lock_check import CheckedModel, LockCheck
    from llama_runner.request.lock_models import LockResult

_SOURCES = ("hf_model", "gguf_path", "safetensors_dir", "demo")
_OPTIONS = [option for option in ARTIFACTS if option.name not in (*_SOURCES, "update", "locked")]
"""``--update`` has another help here."""
_SHORT = 12


@click.command(
    cls=GroupedCommand,
    examples=(
        "llama-runner lock ORG/MODEL:Q8_0 ./my-model",
        "llama-runner lock --update ORG/MODEL:Q8_0",
        "llama-runner lock --check --offline",
    ),
)
@shared.store
@click.argument("model_names", nargs=-1, cls=shared.CompletedArgument, metavar="[NAME…]")
@shared.option("--check", is_flag=True, help="Compare the lock file with the store, the programs and the Hub.")
@shared.option("--update", is_flag=True, help="Resolve and make the models again, and replace their entries.")
@shared.made_from(_OPTIONS)
def lock(**given: Any) -> None:
    """Prepare models and write llama-runner.lock, which `run --locked` obeys.

    For each NAME: commit, digests of files, recipe, tools, digests of what is made, and the programs. Without NAME, for
    every model of llama-runner.toml, beside which the file is written. A NAME that is locked already stays as it is.
    --check has exit status 3 when something differs.
    """
    names = given["model_names"]
    if given["check"] and given["update"]:
        raise click.UsageError("--check and --update exclude each other")
    if given["check"]:
        found = runner_for(given).check_lock(*names, lock_file=given["lock_file"], offline=given["offline"])
        click.echo(json.dumps(found.to_json())) if given["as_json"] else say(*_checked(found))
        if found.drifted:
            raise SystemExit(ExitCode.SOURCE)
        return
    config = config_path(given)
    runner = runner_for(given, config=config)
    if not names and runner.config is not None:
        names = tuple(runner.config.models)
    if not names:
        raise click.UsageError("name the models to lock")
    absent = {"model": None, **dict.fromkeys(_SOURCES), "demo": False, "locked": False}
    keywords = shared.keywords({**absent, **given})
    del keywords["model"]
    if config is not None:  # what is not given is that of the file
        given_here = [option.name for option in ARTIFACTS if option.argument in arguments_of(given).given]
        keywords = {name: value for name, value in keywords.items() if name in given_here}
        if not given["model_names"]:
            keywords.setdefault("lock_file", config.with_name(LOCK_FILE))
    try:
        done = runner.lock(*names, **keywords)
    except SourceError as error:
        suggest_declared(error, given, names)
        raise
    click.echo(json.dumps(done.to_json())) if given["as_json"] else say(*_done(done))


def _done(result: LockResult) -> list[str]:
    lines = []
    for model in result.models:
        lines.append(f"{model.action:<15} {model.name}")
        lines += [f"  {each}" for each in model.changed]
    return [*lines, f"lock file       {result.file}"]


def _checked(found: LockCheck) -> list[str]:
    return [line for model in found.models for line in _lines(model)] or ["the lock file has no models"]


def _lines(model: CheckedModel) -> list[str]:
    lines = [f"{'differs' if model.drifted else 'as locked':<10} {model.name}"]
    lines += [f"  {each}" for each in model.differences]
    if model.hub is not None and model.hub["locked"] != model.hub["now"]:
        now, locked = model.hub["now"][:_SHORT], model.hub["locked"][:_SHORT]
        lines.append(f"  {model.hub['revision']} is {now} on the Hub now, locked is {locked}")
    if model.missing:
        lines.append(f"  not made here yet: {', '.join(model.missing)}")
    return lines
