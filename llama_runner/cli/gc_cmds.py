"""``gc``: lists and deletes files that are safe to remove."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from llama_runner.cli import shared_options as shared
from llama_runner.cli.escape_control_characters import say
from llama_runner.cli.runner_that_prints import root_of
from llama_runner.core.durations import parse_duration
from llama_runner.core.sizes import size_text

if TYPE_CHECKING:
    from llama_runner.library.gc import Collected

_SMALL = ("log", "lock", "stamp")
"""Kinds of which there may be thousands: they are counted."""


class Duration(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.2
    """A time such as ``7d``, ``12h``, ``30m``, ``0``; without a unit in days. In seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """See click."""
        if isinstance(value, float):
            return value
        try:
            return parse_duration(value, unit="d")
        except ValueError as error:
            self.fail(str(error), param, ctx)


@click.command()
@shared.store
@shared.option("--apply", is_flag=True, help="Delete what is listed.")
@shared.option(
    "--older-than",
    type=Duration(),
    metavar="TIME",
    help="Keep what was made or used in this time (7d, 12h, 30m).",
    default_text="7d",
)
@shared.option(
    "--max-size",
    type=shared.Size(),
    metavar="SIZE",
    help="Also delete models, least recently used first, until artifacts take no more than SIZE.",
)
def gc(**given: Any) -> None:
    """List what nothing needs, with the reason for each; --apply deletes it.

    Old revisions, intermediates, unused builds, unpacked sources, unfinished work, old logs, and files of artifacts
    that are gone. What a running process uses is never deleted, nor what `models keep`, a lock file or the
    configuration file names.
    """
    found = root_of(given).gc(apply=given["apply"], older_than=given["older_than"], max_size=given["max_size"])
    if given["as_json"]:
        click.echo(json.dumps(found.to_json()))
    else:
        _tell(found)


def _tell(found: Collected) -> None:
    counted: dict[str, list[int]] = {}
    for each in found.garbage:
        if each.path in found.left:
            say(f"left      {each.path}   ({found.left[each.path]})")
        elif each.kind in _SMALL:
            counted.setdefault(f"{each.kind}s", []).append(each.bytes)
        else:
            say(f"{each.kind:<13} {each.path}   ({size_text(each.bytes)}; {each.reason})")
    for name, sizes in counted.items():
        say(f"{name:<13} {len(sizes)}   ({size_text(sum(sizes))})")
    if found.over:
        why = "builds, kept models and what is in use stay"
        say(f"warning: {size_text(found.over)} more than --max-size is left: {why}", err=True)
    if not found.garbage:
        say("there is nothing to free", err=True)
    elif found.applied:
        say(f"freed {size_text(found.bytes)}", err=True)
    else:
        say(f"{size_text(found.bytes)} can be freed: llama-runner gc --apply", err=True)
