"""Trains an adapter, or merges one, by steps of the graph; the base is resolved as for ``run``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, cast

from llama_runner.core.errors import SourceError, ToolError, UsageError
from llama_runner.core.immutable_values import Value
from llama_runner.request.pipeline_graph import graph_of
from llama_runner.request.plan_and_execute import Preparation
from llama_runner.request.resolve_request import Request
from llama_runner.sources.hub.source import HubSafetensors
from llama_runner.sources.local import LocalSafetensors, open_directory, open_plain
from llama_runner.steps import download
from llama_runner.steps.official_converter_environment import REQUIREMENTS, converter_environment
from llama_runner.steps.train_adapter import CHECKPOINT_S, MergeAdapter, TrainAdapter
from llama_runner.store import layout
from llama_runner.training.adapter_versions import Version, check_name, name_of_directory
from llama_runner.training.options import continued_options, training_options
from llama_runner.training.read_examples import is_plain_text, read_examples

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path
    from typing import Literal, TypedDict

    from llama_runner.core.events import Sink
    from llama_runner.core.plan import Plan
    from llama_runner.core.step import Node, Step
    from llama_runner.request.pipeline_graph import Pipeline
    from llama_runner.request.remote_stores import Opened
    from llama_runner.request.request_keywords import RunnerKeywords
    from llama_runner.store.artifacts import Store
    from llama_runner.training.options import TrainingKeywords

    TrainingDevice = Literal["auto", "cpu", "cuda"]

    class BaseKeywords(TypedDict, total=False):
        """What says which model is the base, beside its name."""

        hf_model: str | None
        safetensors_dir: str | Path | None
        demo: bool
        offline: bool
        update: bool
        token_file: str | Path | None
        force: Iterable[str]


_COMPUTE = ("torch", "transformers", "peft", "accelerate", "tokenizers")
"""The packages whose versions may change the weights."""
_MOST_THREADS = 1024
_SHOWN = 18
"""Characters of a digest in an error."""


def needs_safetensors_error(name: str) -> SourceError:
    """Return the error for a base that is a GGUF file."""
    return SourceError(
        f"{name} is a GGUF file, and adapters are trained on safetensors",
        hint="name the base model's repository or its directory of safetensors",
    )


def quantized_base_error(name: str, kind: str) -> SourceError:
    """Return the error for a base whose weights are quantized."""
    return SourceError(f"the weights of {name} are quantized ({kind})", hint="name the base model that it was made of")


def other_base_error(base: str, adapter: str) -> SourceError:
    """Return the error for a base whose files are not those that an adapter was trained on."""
    return SourceError(
        f"{base} has changed since {adapter} was trained on it",
        hint="restore its files or its revision, or train the adapter again",
    )


def other_start_error(base: str, digest: str, start: str, begun: Mapping[str, str]) -> UsageError:
    """Return the error for a version that was trained on another base than the one to begin with."""
    return UsageError(
        f"{start} was trained on {begun['name']} ({begun['digest'][:_SHOWN]}), not on {base} ({digest[:_SHOWN]})",
        hint="name the base of that version, or begin with new weights",
    )


class TrainedAdapter(Value):
    """A training that is done, or was before."""

    version: Version
    path: Path
    ran: bool
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return the object for ``lora train --json``."""
        return {"path": str(self.path), "ran": self.ran, "seconds": round(self.seconds, 3), **self.version.to_json()}


class AdapterTraining:
    """Trains and merges adapters in one store."""

    def __init__(self, store: Store, sink: Sink, *, lock_timeout: float, remotes: Opened) -> None:
        self._store, self._sink, self._remotes = store, sink, remotes
        self._preparation = Preparation(store, sink, lock_timeout=lock_timeout)

    def train(
        self,
        base: str | Path | None,
        data: Path,
        name: str,
        options: TrainingKeywords,
        keywords: BaseKeywords,
        *,
        device: TrainingDevice = "auto",
        threads: int | None = None,
        start: Version | None = None,
        weights_of: Version | None = None,
        checkpoint_s: float = CHECKPOINT_S,
    ) -> TrainedAdapter:
        """Check the data, then resolve the base and train what is not trained yet.

        ``weights_of`` is the version whose training made the weights of ``start``.
        """
        begun = f"{name}@{start.id}" if start is not None else ""
        checked = training_options(options)
        if start is not None:
            checked = continued_options(options, begun, (weights_of or start).options)
        count = len(read_examples(layout.user_path(data).absolute()))
        if threads is not None and not 1 <= threads <= _MOST_THREADS:
            raise UsageError(f"threads: expected a number from 1 to {_MOST_THREADS}, got {threads}")
        request, graph, node = self._base(base, keywords)
        source, accelerator = graph.source, _accelerator(device)
        about = _about(source)
        step = TrainAdapter(
            node,
            open_plain(layout.user_path(data)),
            check_name(name),
            about["name"],
            about["revision"],
            is_plain_text(layout.user_path(data)),
            **vars(checked),
            device=accelerator or "cpu",
            threads=threads or request.facts.cores,
            packages=packages(),
            start=None if start is None else self._directory(start),
            environment=converter_environment(graph.programs.tree, accelerator),
            weight_bytes=request.facts.bytes,
            checkpoint_s=f"{checkpoint_s:g}",
        )
        whole = graph.replace(others=(*graph.others, step))
        if start is not None:
            digest = self._preparation.digest_of(request, whole, node)
            if digest != start.base["digest"]:
                raise other_start_error(about["name"], digest, begun, start.base)
        plan, place, seconds = self._make(request, whole, step)
        record = self._store.record(plan.of(step).place or place)
        assert record is not None, "it was made"
        data_digest = str(record.recipe["inputs"]["data"])
        version = Version(
            "v0",
            str(record.key),
            str(record.digest),
            place.directory,
            None,
            {**about, "digest": str(record.recipe["inputs"]["base"]), "source": _source_words(base, keywords)},
            {"name": os.path.basename(data), "digest": data_digest, "examples": count},  # noqa: PTH119 - may be text
            {option: list(v) if isinstance(v, tuple) else v for option, v in vars(checked).items()},
            dict(record.facts),
            str(record.made.get("at", "")),
            None if start is None else start.id,
        )
        return TrainedAdapter(version, self._store.path(place), seconds is not None, seconds or 0.0)

    def merge(self, version: Version, keywords: BaseKeywords) -> Path:
        """Return the directory of safetensors with the base and the adapter merged; make it if it is not there."""
        request, graph, node = self._base(str(version.base["source"]), keywords)
        adapter = self._directory(version)
        step = MergeAdapter(
            node,
            adapter,
            f"{_about(graph.source)['name'].rpartition('/')[2]}-{adapter.name}",
            packages(),
            converter_environment(graph.programs.tree),
            request.facts.bytes,
            request.facts.cores,
        )
        whole = graph.replace(others=(*graph.others, step))
        if self._preparation.digest_of(request, whole, node) != version.base["digest"]:
            raise other_base_error(str(version.base["name"]), adapter.name)
        _, place, _ = self._make(request, whole, step)
        return self._store.path(place)

    def _base(self, base: str | Path | None, keywords: BaseKeywords) -> tuple[Request, Pipeline, Node]:
        """Return the request for a base, its graph, and the node that gives its files."""
        found = cast("RunnerKeywords", {**keywords, "converter": "official", "check": False})
        request = Request(
            base,
            found,
            store=self._store,
            sink=self._sink,
            remember=True,
            remotes=self._remotes,
            needs_programs=False,
        )
        source, quantized = request.facts.source, request.facts.checkpoint_quantization
        if not isinstance(source, (LocalSafetensors, HubSafetensors)):
            raise needs_safetensors_error(source.name)
        if quantized is not None:
            raise quantized_base_error(source.name, quantized.method)
        graph = graph_of(request)
        if isinstance(source, LocalSafetensors):
            return request, graph, source
        assert request.facts.hub is not None, "it is on the Hub"
        return request, graph, download.safetensors(source.files, request.facts.hub)

    def _directory(self, version: Version) -> LocalSafetensors:
        path = self._store.root / version.directory
        return open_directory(path).replace(name=name_of_directory(path))

    def _make(self, request: Request, whole: Pipeline, step: Step) -> tuple[Plan, Any, float | None]:
        _, plan, outcome = self._preparation.make(lambda: request, lambda _: whole, lambda _: (step,))
        return plan, outcome.places[step], outcome.seconds.get(step)


def packages() -> tuple[str, ...]:
    """Return the requirements of the environment that may change the weights."""
    return tuple(each for each in REQUIREMENTS if each.startswith(_COMPUTE))


def _about(source: Any) -> dict[str, str]:  # noqa: ANN401 - of AnySource, those with safetensors
    if isinstance(source, HubSafetensors):
        return {"name": source.pin.repo, "revision": source.pin.commit}
    return {"name": source.name, "revision": ""}


def _source_words(base: str | Path | None, keywords: BaseKeywords) -> str:
    """Return what names the base again, from every directory."""
    if keywords.get("demo"):
        return "demo"
    given = str(base or keywords.get("hf_model") or keywords.get("safetensors_dir"))
    path = layout.user_path(given)
    return str(path.absolute()) if path.exists() else given


def _accelerator(device: str) -> str:
    """Return ``cuda`` if that is to be trained on, else nothing."""
    from llama_runner.llama_cpp.gpu_detection import find_gpus  # noqa: PLC0415 - starts a process

    if device not in ("auto", "cpu", "cuda"):
        raise UsageError(f"device: expected auto, cpu or cuda, got {device!r}")
    if device == "cpu":
        return ""
    try:
        find_gpus("cuda", {name: value for name, value in os.environ.items() if name != "CUDAARCHS"})
    except ToolError:
        if device == "cuda":
            raise ToolError("no NVIDIA GPU found", hint="train on the CPU: --device cpu") from None
        return ""
    return "cuda"
