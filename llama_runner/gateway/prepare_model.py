"""What the gateway uses of the pipeline. Loaded in a thread once the gateway listens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from llama_runner.core.errors import Interrupted, LlamaRunnerError
from llama_runner.core.events import Noticed
from llama_runner.gateway.adapters import PreparedAdapters
from llama_runner.gateway.model_description import facts_of
from llama_runner.request.make_launch_spec import spec_for
from llama_runner.request.pipeline_graph import graph_of
from llama_runner.serving.client_for_model import NOT_SHARED
from llama_runner.serving.llama_server.memory_check import Memory, private_bytes, resident_bytes
from llama_runner.store import layout
from llama_runner.store.digest_cache import hash_file

if TYPE_CHECKING:
    from pathlib import Path

    from llama_runner.api import Runner
    from llama_runner.gateway.served_models import DeclaredModel, ModelFacts
    from llama_runner.request.request_keywords import RunnerKeywords
    from llama_runner.request.result_types import Prepared
    from llama_runner.serving.llama_server.launch_spec import ServerOptions

__all__ = ["NOT_SHARED", "is_complete", "look", "prepare", "private_bytes", "resident_bytes", "spec_for"]


def prepare(
    runner: Runner, model: DeclaredModel, options: ServerOptions
) -> tuple[Prepared, Memory, ModelFacts, PreparedAdapters]:
    """Make what a model needs; return it with its memory, its facts, and its adapters."""
    prepared, unusable = _prepared(runner, model, options)
    kept = layout.memory_needs(runner.store.private)
    memory = Memory(spec_for(prepared, options), kept, runner._sink)  # noqa: SLF001 - told where ours is told
    adapters = PreparedAdapters(tuple(map(hash_file, prepared.adapters)), unusable)
    return prepared, memory, facts_of(prepared, options.extra), adapters


def _prepared(runner: Runner, model: DeclaredModel, options: ServerOptions) -> tuple[Prepared, dict[str, str]]:
    """Return a model with its adapters, and why some of them cannot be used: the others and the model still can."""

    def prepare(*adapters: str) -> Prepared:
        lora = (*model.keywords.get("lora", ()), *adapters)
        keywords: dict[str, Any] = {**model.keywords, **({"lora": lora} if lora else {})}
        return runner.prepare(model.source, server=options, **keywords)

    if not model.lora:
        return prepare(), {}
    try:
        return prepare(*model.lora.values()), {}
    except Interrupted:
        raise
    except LlamaRunnerError:
        prepared = prepare()
    usable: list[str] = []
    unusable: dict[str, str] = {}
    for name, text in model.lora.items():
        try:
            prepared = prepare(*usable, text)
            usable.append(text)
        except Interrupted:
            raise
        except LlamaRunnerError as error:
            unusable[name] = str(error)
            runner._sink(Noticed("adapter_left_out", f"{model.name}:{name} cannot be used: {error}"))  # noqa: SLF001 - as below
    return prepared, unusable


def is_complete(runner: Runner, model: DeclaredModel) -> bool:
    """Return whether nothing has to be fetched or made for a model; adapters that cannot be used do not count."""
    try:
        return _is_complete(runner, model.source, model.all_keywords)
    except Interrupted:
        raise
    except LlamaRunnerError:
        if not model.lora:
            raise
        return _is_complete(runner, model.source, model.keywords)


def _is_complete(runner: Runner, source: str | Path | None, keywords: dict[str, Any]) -> bool:
    request = runner._request(source, cast("RunnerKeywords", keywords), remember=False)  # noqa: SLF001 - `plan` would read what is not converted
    return runner._preparation.is_complete(request, graph_of(request))  # noqa: SLF001 - as above


def look(runner: Runner, model: DeclaredModel) -> ModelFacts | None:
    """Return the facts of a model; None where it is not on disk. Does no work for it."""
    keywords = {**model.keywords, "offline": True}
    if runner.plan(model.source, **keywords).plan.pending:
        return None
    return facts_of(runner.prepare(model.source, **keywords), model.server.extra)
