"""``plan``, ``prepare`` and ``status``: what would run, what is made, what is there."""

from __future__ import annotations

import json
from typing import Any

import click

from llama_runner.cli import options as shared
from llama_runner.cli import text_output
from llama_runner.cli.command_runner import runner_for
from llama_runner.cli.help import GroupedCommand
from llama_runner.cli.llama_server_options import ServerCommand


@click.command(cls=GroupedCommand)
@shared.store
@shared.model
def prepare(**given: Any) -> None:
    """Make everything that serving a model needs, without serving it."""
    prepared = runner_for(given).prepare(**shared.keywords(given))
    if given["as_json"]:
        click.echo(json.dumps(prepared.to_json()))
    else:
        click.echo(text_output.prepared(prepared))


@click.command(cls=ServerCommand)
@shared.store
@shared.model
@shared.server
def plan(**given: Any) -> None:
    """Show which steps would run, and why; changes nothing."""
    forecast = runner_for(given).plan(server=shared.server_options(given), **shared.keywords(given))
    if given["as_json"]:
        click.echo(json.dumps(forecast.to_json()))
    else:
        click.echo(text_output.plan(forecast))


@click.command(cls=GroupedCommand)
@shared.store
def status(**given: Any) -> None:
    """Show what the store holds and what is running."""
    found = runner_for(given).status()
    if given["as_json"]:
        click.echo(json.dumps(found.to_json()))
    else:
        click.echo(text_output.status(found))
