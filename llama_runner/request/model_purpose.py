"""What the model of a request is made for, as far as it is known before any work is done."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_runner.serving.llama_server.purpose import check_text, is_encoder
from llama_runner.sources.gguf_header import POOLING, NotGGUF, read_header
from llama_runner.sources.hub.source import HubGguf, HubSafetensors
from llama_runner.sources.local import LocalFile, LocalModel

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from llama_runner.request.graph import AnySource, Pipeline
    from llama_runner.request.options import Wishes

_CLASSIFIER = "ForSequenceClassification"


def known_facts(source: AnySource) -> dict[str, Any]:
    """Return architecture, pooling and classes of a source. An architecture may be that of config.json."""
    match source:
        case LocalFile():
            return source.header.facts()
        case LocalModel():
            return directory_facts(source.path)
        case HubSafetensors(choice=choice):
            return {"architecture": choice.architecture}
        case HubGguf(pin=pin):
            return dict(pin.gguf or {})


def directory_facts(directory: Path) -> dict[str, Any]:
    """Return the facts of a directory of safetensors, from config.json and the files of sentence-transformers."""
    from llama_runner.convert.families.pooling import pooling_of  # noqa: PLC0415 - not on the warm path
    from llama_runner.convert.model_directory import Source  # noqa: PLC0415

    source = Source(directory)
    config = source.optional_object("config.json")
    named = config.get("architectures")
    architecture = str(named[0]) if isinstance(named, list) and named else ""
    found: dict[str, Any] = {"architecture": architecture}
    if (pooling := pooling_of(source)) is not None:
        found["pooling"] = POOLING[pooling]
    if architecture.endswith(_CLASSIFIER):
        labels = config.get("id2label")
        found["classes"] = len(labels) if isinstance(labels, dict) and labels else 2
    return found


def check_measured(graph: Pipeline, wishes: Wishes) -> None:
    """Raise ``UsageError`` where a model that predicts no text is to be measured or calibrated by it."""
    for name in ("quality", "calibration"):
        if wishes.get(name):
            check_text(graph.alias, known_facts(graph.source), f"--{name}")


def completed(facts: Mapping[str, Any], model: Path) -> dict[str, Any]:
    """Return the facts of a model with pooling and classes, which older records of encoders lack."""
    if not is_encoder(facts.get("architecture")) or "pooling" in facts or not model.is_file():
        return dict(facts)
    try:
        return {**facts, **read_header(model).facts()}
    except NotGGUF:
        return dict(facts)
