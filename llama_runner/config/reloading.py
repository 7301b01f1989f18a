"""Lets what runs for a configuration follow a change of the file."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from llama_runner.core.errors import ServerError
from llama_runner.request.make_launch_spec import spec_for
from llama_runner.serving import find_and_stop, gateway_process
from llama_runner.serving.errors import NoSuchServer, runs_in_foreground_error
from llama_runner.serving.listed_server import ServerEntry

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from llama_runner.config.prepare_declared_models import Deployment
    from llama_runner.request.result_types import Prepared


def nothing_runs_error(path: Path) -> ServerError:
    """Return the error for a reload where nothing runs."""
    return ServerError(f"nothing runs for {path}", hint="llama-runner up --detach starts it")


def reload(
    deployment_of: Callable[..., Deployment], prepare_one: Callable[..., Prepared], up: Callable[..., ServerEntry]
) -> list[ServerEntry]:
    """See ``Runner.reload``. ``deployment_of`` and ``up`` take names of models and are those of ``Runner``.

    What serves some models of the file goes on with these.
    """
    every = deployment_of()
    running = every.running()
    if not running:
        raise nothing_runs_error(every.config.path)
    gateways = [about for about in running if about.get("kind") == gateway_process.NAME]
    for about in gateways:
        served = deployment_of(*(about.get("only") or ()))
        if not served.is_one_server:
            served.prepare(prepare_one)  # a gateway loads at once then
    if gateways:
        return [gateway_process.reload_gateway(every.servers, about) for about in gateways]
    return [
        _followed(deployment_of(name), prepare_one, up, about) if _is_model(every, name) else ServerEntry(about)
        for about in running
        for name in (str(about["alias"]),)
    ]


def _is_model(deployment: Deployment, name: str) -> bool:
    """Whether a name is that of a model, or of nothing, which is an error. Variants and adapters go on as they are."""
    return name in deployment.config.models or deployment.config.find(name) is None


def _followed(
    deployment: Deployment, prepare_one: Callable[..., Prepared], up: Callable[..., ServerEntry], about: dict[str, Any]
) -> ServerEntry:
    """Return the entry of a server of one model, which is started anew if its launch changed."""
    [(name, layers)] = deployment.models.items()
    spec = spec_for(deployment.prepare(prepare_one)[name], layers.server)
    if about.get("spec") == spec.digest:
        return ServerEntry(about)
    if not about.get("detached"):
        raise runs_in_foreground_error(str(about["alias"]), int(about["pid"]))
    with suppress(NoSuchServer):  # it has ended by itself meanwhile
        find_and_stop.stop(deployment.servers, str(about["pid"]))
    return up(name)
