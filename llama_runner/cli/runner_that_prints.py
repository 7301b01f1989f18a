"""Shared by commands: a `Runner` or a `Management` that prints its events, and the signals that end a command."""

from __future__ import annotations

import gc
import signal
from typing import TYPE_CHECKING, Any

from llama_runner.cli.declared_model_arguments import config_path

if TYPE_CHECKING:
    from pathlib import Path

    from llama_runner.api import Runner
    from llama_runner.api_management import Management
    from llama_runner.config.config import Config
    from llama_runner.core.events import Event

STOP_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name)]
_LOCK_TIMEOUT_S = 600.0
"""Seconds that commands about the store wait for another process."""


def runner_for(given: dict[str, Any], *, events: bool = False, config: Config | Path | None = None) -> Runner:
    """Return a runner that prints progress on stderr or, for ``events``, each event as JSON on stdout.

    ``config``: its methods take the names that this configuration declares.
    """
    from llama_runner.api import Runner  # noqa: PLC0415 - not for --help
    from llama_runner.cli import text_output  # noqa: PLC0415

    gc.freeze()  # what is imported so far is no garbage: the first collection need not look at it
    gc.enable()
    sink = text_output.print_event if events else text_output.Printer()
    return Runner(given["root"], on_event=sink, lock_timeout=given.get("lock_timeout", 0.0), config=config)


def root_of(given: dict[str, Any]) -> Management:
    """Return a root that prints progress on stderr. Loads the printer at the first event, and not the pipeline."""
    from llama_runner.api_management import Management  # noqa: PLC0415 - not for --help

    printer = None

    def tell(event: Event) -> None:
        nonlocal printer
        if printer is None:
            from llama_runner.cli.text_output import Printer  # noqa: PLC0415 - not where nothing is printed

            printer = Printer()
        printer(event)

    return Management(given["root"], on_event=tell, lock_timeout=_LOCK_TIMEOUT_S, config=config_path(given))
