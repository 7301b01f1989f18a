"""``models add``: fetches or makes models; on a terminal it asks for the quantization."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import click

from llama_runner.cli import shared_options as shared
from llama_runner.cli.escape_control_characters import say
from llama_runner.cli.help import GroupedCommand
from llama_runner.cli.runner_that_prints import runner_for
from llama_runner.core.errors import LlamaRunnerError
from llama_runner.core.sizes import size_text
from llama_runner.request.model_and_build_options import ARTIFACTS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llama_runner.api import Runner
    from llama_runner.library.add_models import AddedModel, Choice


_NAMING = ("hf_model", "gguf_path", "safetensors_dir", "demo")
"""Options that name the model; ``models add`` takes arguments instead."""


@click.command(cls=GroupedCommand)
@shared.store
@click.argument("model_names", nargs=-1, required=True, cls=shared.CompletedArgument, metavar="NAME…")
@shared.made_from(option for option in ARTIFACTS if option.name not in _NAMING)
@shared.option("--yes", "-y", is_flag=True, help="Do not ask which quantization; take the default.")
def add(**given: Any) -> None:
    """Fetch or make models, without the programs that serve them.

    NAME is what `run` takes. On a terminal a NAME that leaves the quantization open is asked about, with sizes and
    what fits this machine. After a failure the other models are still added; the exit status is the highest.
    """
    runner, keywords = runner_for(given), shared.keywords(given)
    asks = not (given["yes"] or given["as_json"]) and bool(sys.stdin) and sys.stdin.isatty() and sys.stderr.isatty()
    wanted: list[tuple[str, dict[str, Any]]] = []
    for name in given["model_names"]:
        chosen = _chosen(runner, name, keywords) if asks else [{}]
        wanted += [(name, {**keywords, **one}) for one in chosen]
    found: list[AddedModel] = []
    if all(each == keywords for _, each in wanted):
        found = runner.models.add(*given["model_names"], **keywords)
    else:
        for name, asked in wanted:
            found += runner.models.add(name, **asked)
    if given["as_json"]:
        click.echo(json.dumps([each.to_json() for each in found]))
    _report(found, quiet=given["as_json"])


def _report(found: Sequence[AddedModel], *, quiet: bool) -> None:
    """Print the result of each name, and raise the error with the highest exit status."""
    for each in found:
        if each.error is None:
            for file in () if quiet else each.files:
                say(f"{'added' if file.ran else 'was here':<9} {file.path}   ({size_text(file.bytes)})")
        elif len(found) > 1:
            say(f"failed    {each.name}: {each.error}", err=True)
    failed = [each.error for each in found if each.error is not None]
    if len(found) == 1 and failed:
        raise failed[0]
    if failed:
        error = LlamaRunnerError(f"{len(failed)} of {len(found)} models were not added")
        error.code = max(each.code for each in failed)
        raise error


def _chosen(runner: Runner, name: str, keywords: dict[str, Any]) -> list[dict[str, Any]]:
    """Ask which quantizations of a model to add; return the options for each."""
    try:
        offered = runner.models.choices(name, **keywords)
    except LlamaRunnerError:
        return [{}]  # it is told when it is added
    if len(offered) < 2:  # noqa: PLR2004 - there is nothing to choose
        return [{}]
    say(f"{name} is there in several quantizations:" if offered[0].file else f"{name} is converted here:", err=True)
    width = max(len(each.quantization) for each in offered)
    for number, each in enumerate(offered, 1):
        more = "   (default)" if each.is_default else ""
        more += "" if each.fits else "   more than the memory of this machine"
        size = f"{'' if each.file else 'about '}{size_text(each.bytes)}"
        say(f"{number:>4}  {each.quantization:<{width}}  {size:>16}  {each.file or ''}{more}", err=True)
    default = next((str(number) for number, each in enumerate(offered, 1) if each.is_default), None)
    picked: list[Choice] = click.prompt(
        "numbers, with commas between them",
        default=default,
        value_proc=lambda text: _picked(text, offered),
        err=True,
    )
    if offered[0].file is None:
        return [{"quantization": ",".join(each.quantization for each in picked)}]
    return [{"filename": each.file} for each in picked]


def _picked(text: str, offered: Sequence[Choice]) -> list[Choice]:
    """Return what numbers, or names of quantizations, stand for."""
    found = {}
    for word in filter(None, (word.strip() for word in text.split(","))):
        if word.isascii() and word.isdigit() and 1 <= int(word) <= len(offered):
            found[int(word)] = offered[int(word) - 1]
            continue
        named = [number for number, each in enumerate(offered, 1) if each.quantization.lower() == word.lower()]
        if len(named) != 1:
            raise click.UsageError(f"{word!r} is not a number from 1 to {len(offered)}")
        found[named[0]] = offered[named[0] - 1]
    if not found:
        raise click.UsageError("choose at least one")
    return list(found.values())
