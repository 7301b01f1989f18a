"""What ``plan`` and ``prepare`` do. Does not load click."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from llama_runner.cli import arguments, text_output
from llama_runner.cli.escape_control_characters import echo
from llama_runner.cli.runner_that_prints import runner_for

if TYPE_CHECKING:
    from llama_runner.cli.arguments import Arguments


def prepare(given: Arguments) -> None:
    """Make everything that serving a model needs, and print where it is."""
    prepared = runner_for(given).prepare(**arguments.keywords(given))
    sha256 = prepared.sha256 if given.get("with_sha256") else None
    echo(json.dumps(prepared.to_json()) if given["as_json"] else text_output.prepared(prepared, sha256))


def plan(given: Arguments) -> None:
    """Print which steps would run, and why."""
    forecast = runner_for(given).plan(server=arguments.server_options(given), **arguments.keywords(given))
    echo(json.dumps(forecast.to_json()) if given["as_json"] else text_output.plan(forecast))
