"""Larger contexts for clients of Ollama's API, which say with ``num_ctx`` how many tokens they need. Pure.

A declared model with ``max_ctx_size`` is started again with that context when a client wants more than it has. This
happens once: smaller and larger values of ``num_ctx`` change nothing afterwards. Where the larger context cannot be
loaded, the model has its own context again, and that is final too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llama_runner.gateway.configuration import launch_of
from llama_runner.serving.llama_server.launch_spec import DEFAULT_CONTEXT

if TYPE_CHECKING:
    from llama_runner.gateway.served_models import Catalogue, DeclaredModel


class ContextGrowth:
    """The declared models that were given a larger context, and those that could not be loaded with one."""

    def __init__(self) -> None:
        self._sizes: dict[str, int | None] = {}
        """Tokens by launch; None where they were too many."""

    def applied(self, catalogue: Catalogue) -> dict[str, DeclaredModel]:
        """Return the declared models as they are to be launched."""
        return {name: self._grown(model) for name, model in catalogue.declared.items()}

    def size(self, model: DeclaredModel) -> int | None:
        """Return the context that a model was given because a client wanted more; None if it has its own."""
        return self._sizes.get(launch_of(model)) if self._sizes else None

    def grow(self, model: DeclaredModel, wanted: int, current: int | None, trained: int | None) -> bool:
        """Decide whether a model gets a larger context for a request that wants so many tokens.

        ``current`` is the context of its process; None where it has none. It never gets more than ``trained`` tokens.
        """
        limit, launch = model.max_ctx_size, launch_of(model)
        if limit is None or launch in self._sizes:
            return False
        limit = min(limit, trained or limit)
        own = _own_context(model) if current is None else current
        if own is None or own >= min(wanted, limit):
            return False
        self._sizes[launch] = limit
        return True

    def give_up(self, model: DeclaredModel) -> None:
        """Note that a model cannot be loaded with its larger context."""
        self._sizes[launch_of(model)] = None

    def _grown(self, model: DeclaredModel) -> DeclaredModel:
        size = self.size(model)
        return model if size is None else model.replace(server=model.server.replace(ctx_size=size))


def _own_context(model: DeclaredModel) -> int | None:
    """Return the context that a model will be started with; None where that shows only then."""
    size = DEFAULT_CONTEXT if model.server.ctx_size is None else model.server.ctx_size
    return None if size == "auto" else size
