"""``why``: the history of a model file, as text."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from llama_runner.cli import shared_options as shared
from llama_runner.cli.escape_control_characters import say
from llama_runner.cli.runner_that_prints import runner_for

if TYPE_CHECKING:
    from llama_runner.library.artifact_history import History, Past


@click.command()
@shared.store
@click.argument("model_name", cls=shared.CompletedArgument, metavar="NAME")
def why(**given: Any) -> None:
    """Tell how a model file was made, and what would make it run again.

    NAME is as for `models show`, with :QUANT or :FILE where there are several files. Uses no network.
    """
    found = runner_for(given).why(given["model_name"])
    if given["as_json"]:
        click.echo(json.dumps(found.to_json()))
    else:
        say(*_told(found))


def _told(found: History) -> list[str]:
    lines = [_summary(found), "", *map(_line, found.past)]
    pending = [each for each in found.present if each.action != "skip"]
    if pending:
        lines += ["", "Now a run would make", *(f"  {_file(each.path)}: {'; '.join(each.reasons)}" for each in pending)]
    if found.not_planned is not None:
        lines += ["", f"What a run would do now is not known: {found.not_planned}."]
    if found.changed:
        lines += ["", "Changed since", *(f"  {each}" for each in found.changed)]
    if not found.again_if:
        return [*lines, "", "Nothing makes it again; `models import` imports it again."]
    lines += ["", "It would be made again if", *(f"  {each}" for each in dict.fromkeys(found.again_if))]
    return [*lines, "A new llama.cpp or llama_runner alone makes nothing run again; --fresh-tools does."]


def _summary(found: History) -> str:
    state = {True: "is up to date", False: "would be made again", None: "is here"}[found.is_up_to_date]
    if found.present and found.path not in {each.path for each in found.present}:
        state = "is of an earlier state of its source"
    if not found.is_here:
        state = "is gone, and its record is here"
    return f"{_file(found.path)} of {found.name} {state}."


def _file(path: str) -> str:
    return path.rpartition("/")[2]


def _time(each: Past) -> str:
    return (each.at or "at an unknown time").replace("T", " ").removesuffix("Z")


def _line(each: Past) -> str:
    if each.kind != "made":
        return f"{_time(each)}  {each.text[0].upper()}{each.text[1:]}."
    took = f", in {each.seconds:.1f} s" if each.seconds is not None else ""
    gone = "; only its record is here" if each.is_gone else ""
    return f"{_time(each)}  {_file(each.path)} was {each.text}{took}{gone}."
