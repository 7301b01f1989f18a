"""The command ``status``. Does not load click."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from llama_runner.cli.escape_control_characters import echo
from llama_runner.cli.runner_that_prints import root_of

if TYPE_CHECKING:
    from llama_runner.cli.arguments import Arguments


def status(given: Arguments) -> None:
    """Show what the store holds and what is running."""
    found = root_of(given).status()
    if given["as_json"]:
        echo(json.dumps(found.to_json()))
        return
    from llama_runner.cli import text_output  # noqa: PLC0415 - not for JSON

    echo(text_output.status(found))
