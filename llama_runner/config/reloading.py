"""Lets what runs for a configuration follow a change of the file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_runner.core.errors import ServerError
from llama_runner.request.graph_locations import spec_for
from llama_runner.serving import gateway_process
from llama_runner.serving.errors import runs_in_foreground_error
from llama_runner.serving.server_entry import ServerEntry

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from llama_runner.config.deployment import Deployment
    from llama_runner.request.result_types import Prepared


def nothing_runs_error(path: Path) -> ServerError:
    """Return the error for a reload where nothing runs."""
    return ServerError(f"nothing runs for {path}", hint="llama-runner up --detach starts it")


def reload(
    deployment: Deployment, prepare_one: Callable[..., Prepared], up: Callable[[], ServerEntry]
) -> list[ServerEntry]:
    """See ``Runner.reload``; ``up`` is ``Runner.up``."""
    running = deployment.running()
    if not running:
        raise nothing_runs_error(deployment.config.path)
    gateways = [about for about in running if about.get("kind") == gateway_process.NAME]
    if gateways and not deployment.is_one_server:
        deployment.prepare(prepare_one)  # a gateway loads at once then
    if gateways:
        return [gateway_process.reload_gateway(deployment.servers, about) for about in gateways]
    return [ServerEntry(about) for about in running] if _is_unchanged(deployment, prepare_one, running) else [up()]


def _is_unchanged(deployment: Deployment, prepare_one: Callable[..., Prepared], running: list[dict[str, Any]]) -> bool:
    """Whether the one server that runs is the one that the file asks for; else it is stopped."""
    prepared = deployment.prepare(prepare_one)
    if deployment.is_one_server and len(running) == 1:
        [(name, layers)] = deployment.models.items()
        spec = spec_for(prepared[name], layers.server)
        if running[0].get("spec") == spec.digest:
            return True
    for about in running:
        if not about.get("detached"):
            raise runs_in_foreground_error(str(about["alias"]), int(about["pid"]))
    deployment.down()
    return False
