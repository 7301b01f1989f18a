"""Plans and makes what several models need as one graph: steps that they share run once, others side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_runner.core.errors import StepError, UsageError
from llama_runner.core.immutable_values import Value
from llama_runner.core.merge_graphs import merged_nodes, with_merged
from llama_runner.core.step import topological_order
from llama_runner.core.url_redaction import redacted
from llama_runner.request.binaries_graph import Programs
from llama_runner.request.download_notices import announce
from llama_runner.request.fallback_to_portable_build import falls_back
from llama_runner.request.fits_machine_check import check_size
from llama_runner.request.offline_check import check_offline
from llama_runner.request.pipeline_graph import Pipeline, graph_of
from llama_runner.request.plan_and_execute import Preparation
from llama_runner.request.request_keywords import snapshot_of
from llama_runner.request.results_of_graph import context_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from llama_runner.core.events import Event
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
    graphs: Mapping[str, Pipeline]
    """The graph of each model by its name; equal nodes of different graphs are one object."""
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
        """Return which steps would run for the models of these names. Writes nothing.

        Raises ``LockDiffers`` for a model that obeys a lock file and differs from it.
        """
        joint, observer = self._together(requests, remember=False)
        for name, graph in joint.graphs.items():
            self._check_locked(requests[name], graph, joint.plan, observer)
        self._announce_together(joint)
        return joint

    def make_together(self, requests: Mapping[str, Request], servers: Mapping[str, ServerOptions]) -> None:
        """Make what the models need. Raises the error of the first step that fails, after the others have stopped.

        ``servers`` are to serve them: a model that can never fit is refused before anything is fetched.

        Nothing is raised where programs failed that were chosen automatically: others are tried once a model is made
        by itself.
        """
        joint, observer = self._together(requests, remember=True)
        if not joint.plan.pending:
            return
        check_together(joint, requests, servers)
        self._announce_together(joint)
        try:
            self._execute(observer, joint.plan, _shared_remote(requests), None, title=joint.title_of)
        except StepError as error:
            graphs = joint.graphs.values()
            if not any(falls_back(graph.programs, error, self._store.private, self._sink) for graph in graphs):
                raise

    def _announce_together(self, joint: JointPlan) -> None:
        """Announce what will run for each model; what is the same for several is said once."""
        said: list[Event] = []

        def sink(event: Event) -> None:
            if event not in said:
                said.append(event)
                self._sink(event)

        for name, graph in joint.graphs.items():
            announce(joint.part_of([name]), graph, sink)

    def _together(self, requests: Mapping[str, Request], *, remember: bool) -> tuple[JointPlan, Observer]:
        graphs = dict(zip(requests, _merged([graph_of(request) for request in requests.values()]), strict=True))
        remote, first = _shared_remote(requests), _shared_options(requests)

        def inspect(source: LocalSafetensors) -> int | None:
            graph = next(each for each in graphs.values() if source in topological_order(each.targets))
            return context_of(graph, source)

        observer = self._observer_with(inspect, remote, remember=remember)
        every = [step for graph in graphs.values() for step in graph.targets]
        plan = observer.plan(dict.fromkeys(every), snapshot_of(every, first, remote=remote is not None))
        needed = {name: frozenset(topological_order(graph.targets)) for name, graph in graphs.items()}
        return JointPlan(plan, graphs, needed), observer


def check_together(joint: JointPlan, requests: Mapping[str, Request], servers: Mapping[str, ServerOptions]) -> None:
    """Raise the error of a model that can never fit, or that lacks something and must not use the network."""
    check_offline(joint.part_of([name for name, request in requests.items() if request.offline]))
    for name, graph in joint.graphs.items():
        check_size(graph, servers[name])


def _merged(graphs: Sequence[Pipeline]) -> list[Pipeline]:
    """Return the graphs with one object for equal nodes. Checks stay: they are planned when a model is made alone."""
    merged = merged_nodes(step for graph in graphs for step in graph.targets)

    def fields(value: Pipeline | Programs) -> dict[str, Any]:
        return {name: with_merged(each, merged) for name, each in value.__dict__.items() if name in value.fields}

    return [
        graph.replace(**{**fields(graph), "checks": graph.checks, "programs": Programs(**fields(graph.programs))})
        for graph in graphs
    ]


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
