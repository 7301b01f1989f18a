"""``verify``: reads the files of the store and compares them with their records."""

from __future__ import annotations

import json
import time
from typing import Any

import click

from llama_runner.cli import shared_options as shared
from llama_runner.cli.escape_control_characters import say
from llama_runner.cli.gc_cmds import Duration
from llama_runner.cli.runner_that_prints import runner_for
from llama_runner.core.errors import Interrupted, StoreError
from llama_runner.core.sizes import count_text, size_text


class Since(Duration):
    """``last``, a time ago (``12h``), or a time in UTC (``2026-11-22T09:00``); in seconds since the epoch."""

    name = "since"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """See click."""
        from datetime import datetime, timezone  # noqa: PLC0415 - only for this option

        if value == "last" or isinstance(value, float):
            return value
        try:
            when = datetime.fromisoformat(value.strip().replace("Z", "+00:00"))
        except ValueError:
            pass
        else:
            return (when if when.tzinfo else when.replace(tzinfo=timezone.utc)).timestamp()
        try:
            return time.time() - super().convert(value, param, ctx)
        except click.BadParameter:
            self.fail(f"{value!r} is not last, a time ago such as 12h, or a date such as 2026-11-22", param, ctx)


@click.command()
@shared.store
@click.argument("model_names", nargs=-1, cls=shared.CompletedArgument, metavar="[NAME…]")
@shared.option(
    "--since",
    type=Since(),
    metavar="TIME",
    help="Do not read again what was read since a time (12h, 2026-11-22T09:00), or since the last run began (last).",
)
@shared.option("--repair", is_flag=True, help="Make or fetch again what is damaged.")
@shared.option("--offline", is_flag=True, help="Repair without the network.")
def verify(**given: Any) -> None:
    """Read every file and compare it with its record, the Hub's digest and its own header.

    NAME is that of a model or a build, or a path below the root; without any, everything is read, the programs too.
    An interrupted run goes on with --since last. The exit status is 7 if something is wrong and was not repaired.
    """
    if given["offline"] and not given["repair"]:
        raise click.UsageError("--offline is about --repair: nothing else uses the network")
    wishes = {name: given[name] for name in ("since", "repair", "offline")}
    try:
        found = runner_for(given).models.verify(*given["model_names"], **wishes)
    except Interrupted:
        if not given["as_json"]:
            say("--since last goes on with this run", err=True)
        raise
    if given["as_json"]:
        click.echo(json.dumps(found.to_json()))
    else:
        for each in found.problems:
            say(f"{'repaired' if each.repaired else each.kind:<11} {each.path}   ({each.note or each.reason})")
        for path, why in found.unverified.items():
            say(f"{'not read':<11} {path}   ({why})")
        rate = f", {size_text(found.bytes / found.seconds)}/s" if found.seconds >= 1 else ""
        skipped = (
            f"; {count_text(found.skipped, 'file')} {'was' if found.skipped == 1 else 'were'} read before"
            if found.skipped
            else ""
        )
        say(f"verified {count_text(found.artifacts, 'artifact')}, {size_text(found.bytes)}{rate}{skipped}", err=True)
    if found.wrong:
        hint = "llama-runner verify --repair makes or fetches them again" if not given["repair"] else None
        count = len(found.wrong)
        what = f"{found.wrong[0].path} is" if count == 1 else f"{count} files are"
        raise StoreError(f"{what} not as recorded", hint=hint)
