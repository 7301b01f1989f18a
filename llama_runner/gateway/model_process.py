"""The process of a model, as routes and scheduler know it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llama_runner.core.immutable_values import Value
from llama_runner.gateway.adapters import LoadedAdapters

if TYPE_CHECKING:
    from llama_runner.gateway.scheduler_state import Sizes
    from llama_runner.gateway.served_models import ModelFacts
    from llama_runner.gateway.sessions.save_and_restore_sessions import ProcessSessions
    from llama_runner.serving.server_process import Server


class Child(Value, eq=False):
    """The process of a model that is ready."""

    server: Server
    instance: int
    name: str
    """The name that the process gives its model."""
    url: str
    key: str
    context: int | None
    ctx_size: int | None
    """The option ``--ctx-size`` that it was started with."""
    need: Sizes
    seconds: float
    """What loading took."""
    started_at: float
    """Seconds since the epoch."""
    facts: ModelFacts
    adapters: LoadedAdapters = LoadedAdapters()
    sessions: ProcessSessions | None = None
    """None: it keeps no sessions."""
