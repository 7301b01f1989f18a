"""Stops what runs for a configuration. The file is not read: it may be gone, or have mistakes."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from llama_runner.core.errors import UsageError
from llama_runner.serving import find_and_stop, server_registry
from llama_runner.serving.errors import NoSuchServer
from llama_runner.serving.listed_server import ServerEntry

if TYPE_CHECKING:
    from pathlib import Path

    from llama_runner.core.events import Sink


def several_configurations_error(paths: list[str]) -> UsageError:
    """Return the error for a root where servers of several configurations run and none is named."""
    return UsageError(f"servers of {len(paths)} configurations run: {', '.join(paths)}", hint="name one with --config")


def down(servers: Path, config: Path | None, sink: Sink) -> list[ServerEntry]:
    """Stop what runs for a configuration, and return the entries. See ``Runner.down``."""
    running = [about for about in server_registry.running(servers) if about.get("config")]
    paths = sorted({str(about["config"]) for about in running})
    if config is None and len(paths) > 1:
        raise several_configurations_error(paths)
    stopped = []
    for about in running:
        if config is None or about["config"] == str(config):
            with suppress(NoSuchServer):  # it has ended by itself meanwhile
                stopped += find_and_stop.stop(servers, str(about["pid"]), sink)
    return list(map(ServerEntry, stopped))
