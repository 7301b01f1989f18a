"""Where what a graph is made of lies, or will lie, and what is known of it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from llama_runner.core.plan import RecordAt
from llama_runner.core.step import Step
from llama_runner.request.results import Prepared
from llama_runner.serving.llama_server.launch_spec import DEFAULT_CONTEXT, ServerOptions, ServerSpec, spec_of
from llama_runner.serving.llama_server.purpose import check_text, is_encoder, purpose_words
from llama_runner.sources.hub.source import HubGguf, HubSafetensors
from llama_runner.sources.local import LocalFile, LocalModel
from llama_runner.store.layout import BUILDS, GGUF
from llama_runner.system import hardware

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from llama_runner.core.plan import Plan
    from llama_runner.core.record import Record
    from llama_runner.core.step import Node, Place
    from llama_runner.request.graph import AnySource, Pipeline
    from llama_runner.request.resolve import Request
    from llama_runner.store.artifacts import Store

_NOT_KNOWN_YET = "NAME-NOT-KNOWN-YET.gguf"


def located(store: Store, graph: Pipeline, places: Mapping[Any, Place], facts: dict[str, Any]) -> Prepared:
    """Return where everything is, or will be."""
    model = file_of(store, graph.model, places) if graph.model is not None else path_of(graph.source)
    if is_encoder(facts.get("architecture")):
        from llama_runner.request.model_purpose import completed  # noqa: PLC0415 - few models give vectors

        facts = completed(facts, model)
    return Prepared(
        alias=graph.alias,
        model=model,
        sha256=None,
        binaries=programs_of(store, graph.binaries, places),
        facts=facts,
        others=tuple(file_of(store, step, places) for step in graph.others if step in places),
        projector=None if graph.projector is None else file_of(store, graph.projector, places),
        adapters=tuple(
            one.path if isinstance(one, LocalFile) else file_of(store, one, places) for one in graph.adapters
        ),
    )


def file_of(store: Store, step: Step, places: Mapping[Any, Place]) -> Path:
    """Return the file to give to the server: of a model in several, the first.

    A name with digits of the key is not known before what the key rests on has been made.
    """
    if step not in places:
        return store.root / GGUF / _NOT_KNOWN_YET
    return store.path(places[step]) / (step.entry or "")


def programs_of(store: Store, binaries: Node, places: Mapping[Any, Place]) -> Path:
    """Return the directory of the programs; as above, its name may not be known yet."""
    if isinstance(binaries, Step):
        return store.path(places[binaries]) if binaries in places else store.root / BUILDS / "NAME-NOT-KNOWN-YET"
    path: Path = binaries.path  # type: ignore[attr-defined]  # programs that lie there
    return path


def path_of(source: AnySource) -> Path:
    """Return the file that is used where it lies."""
    assert isinstance(source, LocalFile), "only a GGUF file is used where it lies"
    return source.path


def header_facts(source: AnySource) -> dict[str, Any]:
    """Return what a GGUF file that is used where it lies says of itself."""
    return source.header.facts() if isinstance(source, LocalFile) else {}


def facts_of(request: Request, plan: Plan) -> dict[str, Any]:
    """Return what is known of a model that may not have been made yet."""
    graph = request.graph
    place = None if graph.model is None else plan.of(graph.model).place
    record: Record | None = None if place is None else plan.snapshot.answers.get(RecordAt(place))
    if record is not None:
        return record.facts
    match graph.source:
        case LocalModel():
            from llama_runner.request.model_purpose import directory_facts  # noqa: PLC0415 - not for what is made

            return {"context_length": request.inspect(graph.source), **directory_facts(graph.source.path)}
        case HubSafetensors(context_length=context):
            return {"context_length": context}
        case HubGguf(pin=pin):
            return dict(pin.gguf or {})
    return header_facts(graph.source)


def sha256_of(record: Record | None) -> str | None:
    """Return the SHA-256 of a model in one file."""
    if record is None or not record.digest.startswith("sha256:"):
        return None
    return record.digest.removeprefix("sha256:")


def spec_for(prepared: Prepared, options: ServerOptions | None) -> ServerSpec:
    """Return what to launch."""
    options = options or ServerOptions()
    if options.inherit_environment:
        from llama_runner.serving.llama_server.variables import with_variables  # noqa: PLC0415 - only with --llama-env

        options = with_variables(options, os.environ)
    trained = prepared.facts.get("context_length")
    if options.purpose == "text":
        check_text(prepared.alias, prepared.facts)
    else:
        context = options.ctx_size or min(DEFAULT_CONTEXT, trained or DEFAULT_CONTEXT)
        words = purpose_words(options, prepared.facts, os.environ, context)
        options = options.but(extra=(*words, *options.extra)) if words else options
    return spec_of(
        options,
        binary=prepared.server,
        model=prepared.model,
        projector=prepared.projector,
        adapters=prepared.adapters,
        alias=prepared.alias,
        trained_context=trained,
        cores=hardware.physical_cores(),
    )
