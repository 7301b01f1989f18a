"""``recommend``: which quantization, context and cache type of a model suit this machine."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Any

import click

from llama_runner.cli import shared_options as shared
from llama_runner.cli.escape_control_characters import say
from llama_runner.cli.help import GroupedCommand
from llama_runner.cli.runner_that_prints import runner_for
from llama_runner.core.sizes import size_text
from llama_runner.recommend.machine_speed import BUSY

if TYPE_CHECKING:
    from llama_runner.recommend.choose_quantization import Recommendation, Row

_COLUMNS = ("", "quantization", "size", "memory", "context", "cache", "tokens/s", "")

_LEFT = 2
"""Columns that are aligned to the left; so is the last."""


@click.command(
    cls=GroupedCommand,
    examples=(
        "llama-runner recommend ORG/MODEL",
        "llama-runner recommend ./my-model --context 16384",
        "llama-runner recommend ORG/MODEL --memory 16G --json",
    ),
)
@shared.store
@shared.model
@shared.option(
    "--context",
    type=click.IntRange(1, 1 << 31),
    help="Context in tokens that has to fit.",
    default_text="4096, or less if the model was trained for less",
)
@shared.option(
    "--memory",
    type=shared.Size(),
    metavar="SIZE",
    help="Plan as if so much memory were available.",
    default_text="what is available now",
)
def recommend(**given: Any) -> None:
    """Show which quantization, context and cache type of a model suit this machine.

    For each quantization: its size, the context that fits into memory, and about how many tokens a second it writes.
    No weights are fetched. The first time, the speed of this machine is measured, for some seconds.
    """
    found = runner_for(given).recommend(context=given["context"], memory=given["memory"], **shared.keywords(given))
    if given["as_json"]:
        click.echo(json.dumps(found.to_json()))
    else:
        say(*lines(found, given["model"], given["quantization"]))


def lines(found: Recommendation, name: str | None = None, quantization: str | None = None) -> list[str]:
    """Return the table and the recommendation for people; ``name`` and ``quantization`` are as the user gave them."""
    about = f"{size_text(found.available)} of memory available, trained for a context of {found.trained_context}"
    rows = [_COLUMNS, *(_cells(row, found) for row in found.rows)]
    widths = [max(len(row[at]) for row in rows) for at in range(len(_COLUMNS))]
    told = [f"{found.model}: {about}"]
    for row in rows:
        cells = [
            f"{cell:<{width}}" if at < _LEFT else f"{cell:>{width}}"
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        told.append("  ".join([*cells[:-1], row[-1]]).rstrip())
    if found.recommended is None:
        return [*told, f"nothing fits with a context of {found.wanted_context}"]
    chosen = found.recommended
    rate = "" if chosen.tokens_per_second is None else f", about {_rate(chosen, found)} tokens/s"
    told.append(
        f"recommended: {chosen.quantization} with a context of {chosen.context}, {chosen.cache_type} cache: "
        f"{size_text(chosen.memory)} of memory{rate}; {found.why}"
    )
    if found.estimated_by == "metadata":
        told.append("the memory is a rough estimate: llama-fit-params, which says it, is not here yet")
    if found.speed_by.endswith(BUSY):
        told.append("the machine has other work now: when it is idle, it writes more tokens/s")
    if name is not None:
        told.append(f"run it: llama-runner run {shlex.join(_words(found, chosen, name, quantization))}")
    return told


def _cells(row: Row, found: Recommendation) -> tuple[str, ...]:
    chosen = found.recommended is not None and row.quantization == found.recommended.quantization
    rate = _rate(row, found)
    size, memory = size_text(row.bytes), size_text(row.memory)
    context = str(row.context or "-")
    return "*" if chosen else "", row.quantization, size, memory, context, row.cache_type, rate, row.fits


def _rate(row: Row, found: Recommendation) -> str:
    """Return the range of the speed of a row."""
    if row.tokens_per_second is None:
        return "?"
    speeds = (row.tokens_per_second * part for part in found.speed_range)
    return "-".join(f"{speed:.0f}" if speed >= 10 else f"{speed:.1f}" for speed in speeds)  # noqa: PLR2004


def _words(found: Recommendation, chosen: Row, name: str, quantization: str | None) -> list[str]:
    """Return the words after ``run`` that serve what is recommended."""
    words = [name]
    if chosen.file is None:
        words += ["-q", chosen.quantization]
    elif len(found.rows) > 1:
        words += ["--filename", chosen.file]
    elif quantization is not None:
        words += ["-q", quantization]
    words += ["-c", str(chosen.context)]
    if chosen.cache_type != "f16":
        words += ["--", "-ctk", chosen.cache_type, "-ctv", chosen.cache_type, "-fa", "on"]
    return words
