"""Makes the results of a request from its graph: paths and facts of the outputs, before or after they are made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_runner.core.artifact_record import TREE
from llama_runner.core.plan import RecordAt
from llama_runner.core.step import Step
from llama_runner.request.check_after_conversion import checked_models
from llama_runner.request.model_facts import check_projector, context_length, directory_facts
from llama_runner.request.result_types import BuildResult, ModelFile, Prepared
from llama_runner.serving.llama_server.served_task import is_encoder
from llama_runner.sources.gguf_header import NotGGUF, read_header
from llama_runner.sources.hub.source import HubGguf, HubSafetensors
from llama_runner.sources.local import LocalGguf, LocalSafetensors
from llama_runner.steps.perplexity import numeric_figures
from llama_runner.store.layout import BUILDS, GGUF
from llama_runner.store.stored_file import StoredFile

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from llama_runner.core.artifact_record import Record
    from llama_runner.core.plan import Plan
    from llama_runner.core.step import Node, Place
    from llama_runner.engine.plan_outcome import Outcome
    from llama_runner.request.binaries_graph import Programs
    from llama_runner.request.model_facts import AnySource
    from llama_runner.request.pipeline_graph import Pipeline
    from llama_runner.store.artifacts import Store

_NOT_KNOWN_YET = "NAME-NOT-KNOWN-YET.gguf"


def located(store: Store, graph: Pipeline, places: Mapping[Any, Place], facts: dict[str, Any]) -> Prepared:
    """Return the paths of all outputs, whether they exist yet or not."""
    model = file_of(store, graph.model, places) if graph.model is not None else path_of(graph.source)
    if is_encoder(facts.get("architecture")):
        facts = _completed(facts, model)
    return Prepared(
        alias=graph.alias,
        model=model,
        file=None,
        binaries=programs_of(store, graph.binaries, places),
        facts=facts,
        others=tuple(file_of(store, step, places) for step in graph.others if step in places),
        projector=_projector(store, graph, places),
        adapters=tuple(
            one.path if isinstance(one, LocalGguf) else file_of(store, one, places) for one in graph.adapters
        ),
        adapter_names=graph.adapter_names,
        adapter_scales=graph.adapter_scales,
    )


def _projector(store: Store, graph: Pipeline, places: Mapping[Any, Place]) -> Path | None:
    if graph.projector is not None:
        return file_of(store, graph.projector, places)
    return graph.source.projector if isinstance(graph.source, LocalGguf) else None


def _completed(facts: Mapping[str, Any], model: Path) -> dict[str, Any]:
    """Return the facts of an encoder with pooling and classes, which older records lack."""
    if "pooling" in facts or not model.is_file():
        return dict(facts)
    try:
        return {**facts, **read_header(model).facts()}
    except NotGGUF:
        return dict(facts)


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
    """Return the file that is used in place."""
    assert isinstance(source, LocalGguf), "only a GGUF file is used where it lies"
    return source.path


def header_facts(source: AnySource) -> dict[str, Any]:
    """Return the facts in the header of a GGUF file that is used in place."""
    return source.header.facts() if isinstance(source, LocalGguf) else {}


def facts_of(graph: Pipeline, plan: Plan) -> dict[str, Any]:
    """Return what is known of a model that may not have been made yet."""
    place = None if graph.model is None else plan.of(graph.model).place
    record: Record | None = None if place is None else plan.snapshot.answers.get(RecordAt(place))
    if record is not None:
        return record.facts
    match graph.source:
        case LocalSafetensors():
            return {"context_length": context_of(graph, graph.source), **directory_facts(graph.source.path)}
        case HubSafetensors(context_length=context):
            return {"context_length": context}
        case HubGguf(pin=pin):
            return dict(pin.gguf or {})
    return header_facts(graph.source)


def context_of(graph: Pipeline, source: LocalSafetensors) -> int | None:
    """Return the context length of a directory of the graph. Raises a ``SourceError`` for what cannot be converted."""
    steps = (*graph.adapters, *graph.others)
    is_adapter = any(source in (getattr(one, "adapter", None), getattr(one, "start", None)) for one in steps)
    if graph.projector is not None and not is_adapter:
        check_projector(graph.projector, source.path)
    return context_length(source, graph.official, graph.pre_tokenizer, is_adapter=is_adapter)


def forecast_of(store: Store, graph: Pipeline, plan: Plan) -> Prepared:
    """Return the paths that the outputs will have."""
    places = {planned.step: planned.place for planned in plan.steps if planned.place is not None}
    return located(store, graph, places, facts_of(graph, plan))


def prepared_of(store: Store, graph: Pipeline, plan: Plan, outcome: Outcome) -> Prepared:
    """Return where everything is, and what was done for it."""
    record = None if graph.model is None else store.record(outcome.places[graph.model])
    build = store.records(programs_of(store, graph.binaries, outcome.places)).get(TREE)
    quality, done = _quality(store, graph, outcome), {**outcome.seconds, **outcome.fetched}
    return located(
        store, graph, outcome.places, header_facts(graph.source) if record is None else record.facts
    ).replace(
        file=None if graph.model is None else stored_file(store, outcome.places[graph.model], record),
        quality={file_of(store, step, outcome.places).name: found for step, found in quality.items()},
        check=next((record.facts for _, _, record in checked_models(plan, outcome, store)), {}),
        build={} if build is None else build.facts,
        ran=tuple(step.kind for step in outcome.seconds),
        skipped=tuple(planned.step.kind for planned in plan.steps if planned.step not in done),
        fetched=tuple(step.kind for step in outcome.fetched),
        step_seconds={step.kind: seconds for step, seconds in done.items()},
    )


def made_of(store: Store, graph: Pipeline, outcome: Outcome) -> list[ModelFile]:
    """Return the model files that were asked for: the model first."""
    quality, files = _quality(store, graph, outcome), []
    for step in graph.files:
        record = store.record(outcome.places[step])
        assert record is not None, "what was just made or found has a record"
        path, ran = file_of(store, step, outcome.places), step in outcome.seconds
        made = ModelFile(
            path, stored_file(store, outcome.places[step], record), record.bytes, record.facts, ran, quality.get(step)
        )
        files.append(made.replace(fetched=step in outcome.fetched))
    return files


def made_programs_of(store: Store, programs: Programs, outcome: Outcome) -> BuildResult:
    """Return the directory of the programs."""
    path = programs_of(store, programs.node, outcome.places)
    record = store.records(path).get(TREE)
    facts = {} if record is None else record.facts
    ran, fetched = tuple(step.kind for step in outcome.seconds), tuple(step.kind for step in outcome.fetched)
    return BuildResult(path, facts, ran, sum({**outcome.seconds, **outcome.fetched}.values()), fetched)


def _quality(store: Store, graph: Pipeline, outcome: Outcome) -> dict[Step, dict[str, float]]:
    """Return what was measured of each model that is quantized."""
    records = {step.model: store.record(outcome.places[step]) for step in graph.measured}
    return {model: numeric_figures(record.facts) for model, record in records.items() if record is not None}


def stored_file(store: Store, place: Place, record: Record | None) -> StoredFile | None:
    """Return a model in one file; None if it has several."""
    return None if record is None or place.is_tree else StoredFile(store, place, record)
