"""``run``: prepares a model and serves it until it is stopped."""

from __future__ import annotations

from typing import Any

import click

from llama_runner.cli import serve_model
from llama_runner.cli import shared_options as shared
from llama_runner.cli.arguments import arguments_of
from llama_runner.cli.llama_server_options import ServerCommand

EXAMPLES = (
    "llama-runner run --demo",
    "llama-runner run ORG/MODEL:Q8_0 --port 0 --detach",
    "llama-runner run ./my-model -q q8_0 --metrics -np 2",
)


@click.command(cls=ServerCommand, examples=EXAMPLES)
@shared.store
@shared.model
@shared.server
@shared.keeping
@shared.option("--print-diagnostics", is_flag=True, help="Print what `llama-runner doctor` prints, and exit.")
def run(**given: Any) -> None:
    """Prepare a model and serve it.

    Serves until Ctrl-C, or in the background with --detach. Options of llama-server that are not options of this
    command are passed on to it, as are all options after --; run -- --help lists them.
    """
    serve_model.run(arguments_of(given))
