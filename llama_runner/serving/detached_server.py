"""Starts a server in a process of its own, or returns a running one of the same launch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_runner.serving.check_before_launch import checked
from llama_runner.serving.daemon import detach, restarts_as
from llama_runner.serving.keys_and_certificates import key_for
from llama_runner.serving.running_server import RunningServer, ensure_ready
from llama_runner.serving.server_log import new_name
from llama_runner.store import layout

if TYPE_CHECKING:
    from collections.abc import Callable

    from llama_runner.core.events import Sink
    from llama_runner.serving.crash_restart import Policy
    from llama_runner.serving.llama_server.launch_spec import ServerSpec
    from llama_runner.store.artifacts import Store


def detached_server(
    spec: ServerSpec,
    *,
    store: Store,
    sink: Sink,
    about: dict[str, Any],
    policy: Policy,
    limit: int,
    cancelled: Callable[[], bool],
) -> RunningServer:
    """Return a server that outlives us once it answers; see ``Runner.detach``."""
    registry = layout.servers(store.private)

    def start() -> RunningServer:
        memory, log_name = checked(spec, store.private, sink, cancelled=cancelled), new_name()
        running = detach(
            spec,
            log=store.root / log_name,
            log_name=log_name,
            registry=registry,
            sink=sink,
            about=about,
            policy=policy,
            limit=limit,
            key=key_for(spec),
            cancelled=cancelled,
        )
        return memory.remember(running)

    return ensure_ready(spec, registry, start, cancelled, accepts=restarts_as(policy, limit), sink=sink)
