"""``plan``, ``prepare`` and ``status``: what would run, what is made, what is there."""

from __future__ import annotations

from typing import Any

import click

from llama_runner.cli import plan_model, show_status
from llama_runner.cli import shared_options as shared
from llama_runner.cli.arguments import arguments_of
from llama_runner.cli.help import GroupedCommand
from llama_runner.cli.llama_server_options import ServerCommand


@click.command(cls=GroupedCommand)
@shared.store
@shared.model
@shared.with_sha256
def prepare(**given: Any) -> None:
    """Make everything that serving a model needs, without serving it."""
    plan_model.prepare(arguments_of(given))


@click.command(cls=ServerCommand)
@shared.store
@shared.model
@shared.server
def plan(**given: Any) -> None:
    """Show which steps would run, and why; changes nothing."""
    plan_model.plan(arguments_of(given))


@click.command(cls=GroupedCommand)
@shared.store
def status(**given: Any) -> None:
    """Show what the store holds and what is running."""
    show_status.status(arguments_of(given))
