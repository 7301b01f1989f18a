"""``check``: compares a model file with the model that it was made of."""

from __future__ import annotations

import json
from typing import Any

import click

from llama_runner.cli import shared_options as shared
from llama_runner.cli.arguments import keywords
from llama_runner.cli.escape_control_characters import say
from llama_runner.cli.help import GroupedCommand
from llama_runner.cli.runner_that_prints import runner_for


@click.command(
    cls=GroupedCommand,
    examples=(
        "llama-runner check ./my-model",
        "llama-runner check ORG/MODEL-GGUF:Q4_K_M",
        "llama-runner check model.gguf --original ORG/MODEL",
    ),
)
@shared.store
@shared.model
@shared.option(
    "--original",
    metavar="DIR|ORG/MODEL",
    help="What a GGUF model was made of.",
    default_text="what its model card names",
)
@shared.option(
    "--against-original",
    is_flag=True,
    help="Compare the logits too: the original is computed by transformers, in an environment with torch (1.1 GB).",
)
@shared.option("--strict", is_flag=True, help="Count every difference as an error, llama.cpp's own too.")
def check(**given: Any) -> None:
    """Compare tokens, chat template and special tokens of a model with its original.

    A model that is given as safetensors is converted first, if it is not yet. Of a model on the Hub only small files
    are fetched. The result is recorded. The exit status is 6 if the file is not like its original.
    """
    found = runner_for(given).check_model(
        original=given["original"], against_original=given["against_original"], **keywords(given)
    )
    if given["as_json"]:
        click.echo(json.dumps(found.to_json()))
    else:
        say(f"original  {found.original}", *found.report.lines())
    found.raise_differences(strict=given["strict"])
