"""What the gateway uses of the pipeline. Loaded in a thread once the gateway listens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llama_runner.gateway.model_description import facts_of
from llama_runner.request.graph_output_paths import spec_for
from llama_runner.serving.client_for_model import NOT_SHARED
from llama_runner.serving.llama_server.memory_check import Memory, private_bytes, resident_bytes
from llama_runner.store import layout

if TYPE_CHECKING:
    from llama_runner.api import Runner
    from llama_runner.gateway.served_models import DeclaredModel, ModelFacts
    from llama_runner.request.result_types import Prepared
    from llama_runner.serving.llama_server.launch_spec import ServerOptions

__all__ = ["NOT_SHARED", "look", "prepare", "private_bytes", "resident_bytes"]


def prepare(runner: Runner, model: DeclaredModel, options: ServerOptions) -> tuple[Prepared, Memory, ModelFacts]:
    """Make what a model needs; return it with its memory and its facts."""
    prepared = runner.prepare(model.source, server=options, **model.keywords)
    kept = layout.memory_needs(runner.store.private)
    memory = Memory(spec_for(prepared, options), kept, runner._sink)  # noqa: SLF001 - told where ours is told
    return prepared, memory, facts_of(prepared, options.extra)


def look(runner: Runner, model: DeclaredModel) -> ModelFacts | None:
    """Return the facts of a model; None where it is not on disk. Does no work for it."""
    keywords = {**model.keywords, "offline": True}
    if runner.plan(model.source, **keywords).plan.pending:
        return None
    return facts_of(runner.prepare(model.source, **keywords), model.server.extra)
