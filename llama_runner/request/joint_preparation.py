"""Plans and makes what several models need as one graph: steps that they share run once, others side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_runner.core.errors import StepError, UsageError
from llama_runner.core.immutable_values import Value
from llama_runner.core.merge_graphs import shared_targets
from llama_runner.core.step import topological_order
from llama_runner.core.url_redaction import redacted
from llama_runner.request.download_notices import announce
from llama_runner.request.fallback_to_portable import falls_back
from llama_runner.request.fits_machine_check import check_size
from llama_runner.request.graph_output_paths import context_of
from llama_runner.request.offline_check import check_offline
from llama_runner.request.options import snapshot_of
from llama_runner.request.pipeline_graph import Pipeline, graph_of
from llama_runner.request.plan_and_execute import Preparation

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from llama_runner.core.plan import Plan
    from llama_runner.core.step import Node, Step
    from llama_runner.engine.observer import Observer
    from llama_runner.request.remote_stores import LazyRemoteStore
    from llama_runner.request.resolve_request import Request
    from llama_runner.serving.llama_server.launch_spec import ServerOptions
    from llama_runner.sources.local import LocalSafetensors


def different_error(what: str, one: tuple[str, str], other: tuple[str, str]) -> UsageError:
    """Return the error for models that cannot be made together: ``(name, value)`` of two of them."""
    return UsageError(
        f"{what} is {one[1]} for {one[0]} and {other[1]} for {other[0]}; models that are made together share it",
        hint=f"set it in [defaults], or make them one by one: llama-runner prepare {one[0]}",
    )


class JointPlan(Value):
    """What would run to make several models."""

    plan: Plan
    models: Mapping[str, frozenset[Node]]
    """What each model needs, by its name."""

    def needed_by(self, step: Step) -> list[str]:
        """Return the names of the models that need a step."""
        return [name for name, nodes in self.models.items() if step in nodes]

    def part_of(self, names: Sequence[str]) -> Plan:
        """Return the plan with the steps that some of the models need."""
        nodes = {node for name in names for node in self.models[name]}
        return self.plan.replace(steps=tuple(planned for planned in self.plan.steps if planned.step in nodes))

    def title_of(self, step: Step) -> str:
        """Return the name of a step for events: with the models that need it, unless all do."""
        names = self.needed_by(step)
        return step.kind if len(names) == len(self.models) else f"{step.kind} {', '.join(names)}"


class JointPreparation(Preparation):
    """Plans and executes the graphs of several requests together, in one store."""

    def plan_together(self, requests: Mapping[str, Request]) -> JointPlan:
        """Return which steps would run for the models of these names. Writes nothing."""
        return self._together(requests, [graph_of(request) for request in requests.values()], remember=False)[0]

    def make_together(self, requests: Mapping[str, Request], servers: Mapping[str, ServerOptions]) -> None:
        """Make what the models need. Raises the error of the first step that fails, after the others have stopped.

        ``servers`` are to serve them: a model that can never fit is refused before anything is fetched.

        Nothing is raised where programs failed that were chosen automatically: others are tried once a model is made
        by itself.
        """
        graphs = [graph_of(request) for request in requests.values()]
        joint, observer = self._together(requests, graphs, remember=True)
        if not joint.plan.pending:
            return
        check_offline(joint.part_of([name for name, request in requests.items() if request.offline]))
        for name, graph in zip(requests, graphs, strict=True):
            check_size(graph, servers[name])
        for graph in graphs:
            announce(joint.plan, graph, self._sink)
        try:
            self._execute(observer, joint.plan, _shared_remote(requests), None, joint.title_of)
        except StepError as error:
            if not any(falls_back(graph.programs, error, self._store.private, self._sink) for graph in graphs):
                raise

    def _together(
        self, requests: Mapping[str, Request], graphs: Sequence[Pipeline], *, remember: bool
    ) -> tuple[JointPlan, Observer]:
        targets = shared_targets(graph.targets for graph in graphs)
        remote, first = _shared_remote(requests), _shared_options(requests)

        def inspect(source: LocalSafetensors) -> int | None:
            graph = next(each for each in graphs if source in topological_order(each.targets))
            return context_of(graph, source)

        observer = self._observer_with(inspect, remote, remember=remember)
        every = [step for each in targets for step in each]
        plan = observer.plan(dict.fromkeys(every), snapshot_of(every, first, remote=remote is not None))
        needed = {name: frozenset(topological_order(each)) for name, each in zip(requests, targets, strict=True)}
        return JointPlan(plan, needed), observer


def _shared_remote(requests: Mapping[str, Request]) -> LazyRemoteStore | None:
    """Return the remote store of the models; ``UsageError`` if they name different ones, or only some push to it."""
    stores = {name: request.remote for name, request in requests.items()}
    told = {
        name: "none" if store is None else f"{redacted(store.address)}{', with remote_push' if store.pushes else ''}"
        for name, store in stores.items()
    }
    _check_same("remote_store", told)
    return next((store for store in stores.values() if store is not None), None)


def _shared_options(requests: Mapping[str, Request]) -> Any:  # noqa: ANN401 - keywords of a request
    """Return the keywords of the models that are not about one of them: ``force`` and ``fresh_tools``."""
    shared = [
        {key: request.keywords.get(key) or () for key in ("force", "fresh_tools")} for request in requests.values()
    ]
    for key in shared[0]:
        _check_same(key, {name: str(each[key] or "not set") for name, each in zip(requests, shared, strict=True)})
    return next(iter(requests.values())).keywords


def _check_same(what: str, told: Mapping[str, str]) -> None:
    first, *others = told.items()
    for each in others:
        if each[1] != first[1]:
            raise different_error(what, first, each)
