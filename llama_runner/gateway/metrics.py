"""Counters of the gateway in the text format of Prometheus."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from llama_runner.gateway import scheduler_state as state

if TYPE_CHECKING:
    from collections.abc import Iterable

    from llama_runner.gateway.scheduler_state import Effect, Event, Sizes
    from llama_runner.gateway.served_models import RunningModel

_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_HELP = {
    "requests_total": ("counter", "Requests by model, route and status."),
    "request_seconds": ("histogram", "Time from a request to the end of its answer."),
    "first_byte_seconds": ("histogram", "Time from a request to the first byte of its answer."),
    "first_token_seconds": ("histogram", "Time from a request to the first token of an answer that is streamed."),
    "queue_seconds": ("histogram", "Time that a request waited for its model, preparing and loading included."),
    "prompt_tokens_total": ("counter", "Tokens of prompts, where an answer says it."),
    "generated_tokens_total": ("counter", "Tokens generated, where an answer says it."),
    "loads_total": ("counter", "Starts of the process of a model."),
    "load_seconds_total": ("counter", "Time that these starts took."),
    "load_failures_total": ("counter", "Models that could not be prepared or started."),
    "crashes_total": ("counter", "Processes that ended by themselves."),
    "stops_total": ("counter", "Processes that were stopped, by cause: evicted, idle, unloaded, changed, closing."),
    "refused_total": ("counter", "Requests that the scheduler refused, by cause."),
    "session_requests_total": ("counter", "Requests of sessions, by outcome (hit, miss, new) and source of the state."),
    "session_reused_tokens_total": ("counter", "Tokens of their prompts that were not read again."),
    "session_failures_total": ("counter", "Sessions that could not be saved or restored."),
    "sessions_saved_total": ("counter", "States that were saved."),
    "sessions_saved_bytes_total": ("counter", "Bytes of these."),
    "sessions_restored_total": ("counter", "States that were restored."),
    "sessions_restored_bytes_total": ("counter", "Bytes of these."),
    "queued": ("gauge", "Requests that wait for a model."),
    "in_flight": ("gauge", "Requests that a model answers."),
    "model_memory_bytes": ("gauge", "Memory of a loaded model by place."),
    "model_ready": ("gauge", "1 for each model that is ready."),
    "memory_available_bytes": ("gauge", "Memory that all models together may take, by place, as it was measured last."),
    "started_at_seconds": ("gauge", "When the gateway started, in seconds since the epoch."),
}

_OF_STATES = {"session_saved": "sessions_saved", "session_restored": "sessions_restored"}
_SESSION_FAILURES = {"session_not_saved": "not_saved", "session_missed": "missed"}

Labels = tuple[tuple[str, str], ...]


class Metrics:
    """Counts what happens. Not thread-safe: the event loop owns it."""

    def __init__(self) -> None:
        self._counts: defaultdict[tuple[str, Labels], float] = defaultdict(float)
        self._buckets: defaultdict[tuple[str, Labels], list[int]] = defaultdict(lambda: [0] * (len(_BOUNDS) + 1))
        """How many values of a histogram lie in each of its ranges."""

    def count(self, name: str, amount: float = 1, **labels: str) -> None:
        """Add to a counter."""
        self._counts[name, tuple(labels.items())] += amount

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Add a value to a histogram."""
        own = tuple(labels.items())
        self._buckets[name, own][bisect_left(_BOUNDS, value)] += 1
        self._counts[f"{name}_sum", own] += value
        self._counts[f"{name}_count", own] += 1

    def by_model(self) -> dict[str, dict[str, float]]:
        """Return the counters and the sums and counts of histograms by the name of the model that they are about."""
        found: defaultdict[str, dict[str, float]] = defaultdict(dict)
        for (name, labels), value in self._counts.items():
            model = next((value for label, value in labels if label == "model"), "")
            if model:
                found[model][name] = found[model].get(name, 0.0) + value
        return found

    def count_scheduling(self, event: Event | Effect) -> None:
        """Count what the scheduler is told and what it asks for."""
        if isinstance(event, state.Ready):
            self.count("loads_total", model=event.model)
            self.count("load_seconds_total", event.seconds, model=event.model)
        elif isinstance(event, state.LoadFailed):
            self.count("load_failures_total", model=event.model)
        elif isinstance(event, state.Died):
            self.count("crashes_total", model=event.model)
        elif isinstance(event, state.Stop):
            self.count("stops_total", model=event.model, cause=event.cause)
        elif isinstance(event, state.Refuse):
            self.count("refused_total", cause=event.error.kind)

    def count_session(self, model: str, event: str, **facts: Any) -> None:  # noqa: ANN401 - JSON
        """Count what becomes of the sessions of a model."""
        if event == "session_requested":
            self.count("session_requests_total", model=model, outcome=facts["outcome"], source=facts["source"])
            self.count("session_reused_tokens_total", facts["tokens"], model=model)
        elif (name := _OF_STATES.get(event)) is not None:
            self.count(f"{name}_total", model=model)
            self.count(f"{name}_bytes_total", facts["bytes"], model=model)
        elif (what := _SESSION_FAILURES.get(event)) is not None:
            self.count("session_failures_total", model=model, what=what)

    def text(self, running: Iterable[RunningModel], available: Sizes, started_at: float) -> str:
        """Return everything as text; ``running`` are the models and ``available`` is the memory as they are now."""
        rows = {**self._cumulated(), **self._counts, ("started_at_seconds", ()): started_at}
        rows |= {("memory_available_bytes", (("place", place),)): size for place, size in available.items()}
        for model in running:
            labels = (("model", model.name),)
            rows["queued", labels] = model.queued
            rows["in_flight", labels] = model.in_flight
            rows["model_ready", labels] = float(model.state == "ready")
            for place, size in model.memory.items():
                rows["model_memory_bytes", (*labels, ("place", place))] = size
        lines = []
        for name, (kind, text) in _HELP.items():
            own = [(key, value) for key, value in rows.items() if _family(key[0]) == name]
            if own:
                lines += [f"# HELP llama_runner_{name} {text}", f"# TYPE llama_runner_{name} {kind}"]
                lines += [f"llama_runner_{key}{_labels(labels)} {value!r}" for (key, labels), value in own]
        return "\n".join([*lines, ""])

    def _cumulated(self) -> dict[tuple[str, Labels], float]:
        """Return how many values are at most each bound."""
        limits = [*map(str, _BOUNDS), "+Inf"]
        return {
            (f"{name}_bucket", (*labels, ("le", limit))): float(count)
            for (name, labels), counts in self._buckets.items()
            for limit, count in zip(limits, accumulate(counts), strict=True)
        }


def _family(name: str) -> str:
    for suffix in ("_bucket", "_sum", "_count"):
        if name.endswith(suffix) and name.removesuffix(suffix) in _HELP:
            return name.removesuffix(suffix)
    return name


def _labels(labels: Labels) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels) + "}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
