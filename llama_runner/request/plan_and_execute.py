"""Plans and executes; if automatically chosen programs fail, retries with the next best ones.

The way is one direction: `resolve` finds the facts, `graph` builds from them, this plans and executes, and the caller
launches what was made. Nothing here changes a graph: another attempt begins with new facts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_runner.core.artifact_record import TREE
from llama_runner.core.errors import Interrupted, StepError
from llama_runner.core.events import StepProgress, Warned
from llama_runner.core.remote_store import RemoteLost
from llama_runner.core.step import Step
from llama_runner.engine.errors import InputVanished
from llama_runner.engine.observer import Observer
from llama_runner.engine.plan_outcome import Outcome, skip_up_to_date
from llama_runner.llama_cpp.find_installed_build import InstalledPrograms
from llama_runner.request.check_after_conversion import raise_differences, with_checks
from llama_runner.request.fallback_to_portable_build import falls_back, forget_rejection_of
from llama_runner.request.model_facts import check_writes
from llama_runner.request.pipeline_graph import Pipeline
from llama_runner.request.request_keywords import snapshot_of
from llama_runner.request.results_of_graph import context_of, programs_of
from llama_runner.store.local_sources import LocalSources

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import TypeVar

    from llama_runner.core.digest import Digest
    from llama_runner.core.events import Sink
    from llama_runner.core.plan import Plan, Snapshot
    from llama_runner.core.step import Node, Place
    from llama_runner.request.binaries_graph import Programs
    from llama_runner.request.remote_stores import LazyRemoteStore
    from llama_runner.request.resolve_request import ProgramsRequest
    from llama_runner.serving.llama_server.launch_spec import ServerOptions
    from llama_runner.sources.local import LocalSafetensors
    from llama_runner.store.artifacts import Store

    CheckOutput = Callable[[Step, Digest], None]
    WantedDigest = Callable[[Step], Digest | None]
    Graph = TypeVar("Graph", Pipeline, Programs)
    _Request = TypeVar("_Request", bound=ProgramsRequest)

_REPLANS = 5


class _Unread(Exception):
    """A model was never converted, and is not read now."""


class Preparation:
    """Plans and executes graphs in one store."""

    def __init__(self, store: Store, sink: Sink, *, lock_timeout: float) -> None:
        """``lock_timeout`` is how many seconds to wait for another process that makes the same thing."""
        self._store, self._sink, self._lock_timeout = store, sink, lock_timeout

    def plan(self, request: ProgramsRequest, graph: Pipeline | Programs) -> Plan:
        """Return which steps would run, and why. Writes nothing."""
        snapshot = _snapshot(graph, request, remote=request.remote is not None)
        observer = self._observer(graph, request.remote, remember=False)
        plan = observer.plan(graph.targets, snapshot)
        plan = self._with_checks(observer, plan, graph.targets, graph, None)
        self._check_locked(request, graph, plan, observer)
        self._announce(plan, graph)
        return plan

    def is_complete(self, request: ProgramsRequest, graph: Pipeline | Programs) -> bool:
        """Return whether everything of a graph is there. A model that was never converted is not read for it."""

        def inspect(_: LocalSafetensors) -> int | None:
            raise _Unread

        observer = self._observer_with(inspect, request.remote, remember=True)
        try:
            plan = observer.plan(graph.targets, _snapshot(graph, request, remote=request.remote is not None))
        except _Unread:
            return False
        return not self._with_checks(observer, plan, graph.targets, graph, None).pending

    def make(
        self,
        resolve: Callable[[], _Request],
        graph_of: Callable[[_Request], Graph],
        targets: Callable[[Graph], Iterable[Step]] = lambda graph: graph.targets,
        *,
        server: ServerOptions | None = None,
        refuses_differences: bool = True,
    ) -> tuple[Graph, Plan, Outcome]:
        """Make everything of the targets that is not there, and return the graph, the plan and what came of it.

        ``resolve`` is called again after programs were rejected that were chosen automatically, which gives others.
        Where ``server`` passes options on to llama-server, they are tried on the programs before a model is fetched or
        made. With ``refuses_differences``, a model that its check found to differ from its original is an error.
        """
        while True:
            request = resolve()
            graph = graph_of(request)
            if server is not None and server.purpose == "text" and isinstance(graph, Pipeline):
                check_writes(graph.source)
            forced = _snapshot(graph, request).force
            if request.locked is not None:  # before any work
                observer = self._observer(graph, request.remote, remember=True)
                whole = observer.plan(graph.targets, _snapshot(graph, request))
                self._check_locked(request, graph, whole, observer)
            try:
                if server is not None and server.passes_on and not forced:
                    self._try_options(graph, self._programs_first(request, graph), server)
                plan, outcome = self._make(request, graph, targets(graph), server)
            except StepError as error:
                if not falls_back(_programs(graph), error, self._store.private, self._sink):
                    raise
                continue
            if server is not None and server.passes_on and forced:
                self._try_options(graph, outcome.places, server)
            if request.locked is not None:
                self._check_locked(request, graph, plan, observer, outcome)
            self._settle(_programs(graph), outcome)
            request.settle()
            if refuses_differences and isinstance(graph, Pipeline) and graph.checks:
                raise_differences(plan, outcome, self._store, graph.alias)
            return graph, plan, outcome

    def digest_of(self, request: ProgramsRequest, graph: Pipeline, node: Node) -> Digest:
        """Return the digest of a source, or of the output of a step, which is made if it is not there."""
        if isinstance(node, Step):
            return self._make(request, graph, (node,))[1].digests[node]
        return self._observer(graph, None, remember=True).sources.digest(node)

    def locked_form(self, graph: Pipeline, plan: Plan, outcome: Outcome) -> dict[str, Any]:
        """Return what was made, as an entry of the lock file has it."""
        from llama_runner.request.lock_entry import locked_form  # noqa: PLC0415 - only to lock

        return locked_form(graph, plan, self._observer(graph, None, remember=True).sources, outcome.digests)

    def _check_locked(
        self,
        request: ProgramsRequest,
        graph: Pipeline | Programs,
        plan: Plan,
        observer: Observer,
        outcome: Outcome | None = None,
    ) -> None:
        """Raise ``LockDiffers`` if what is known differs from the lock file, where there is one to obey."""
        if request.locked is None or not isinstance(graph, Pipeline):
            return
        from llama_runner.request.lock_differences import check  # noqa: PLC0415 - only with --locked
        from llama_runner.request.lock_entry import DigestsInScheme, locked_form  # noqa: PLC0415

        made = None if outcome is None else outcome.digests
        in_scheme = DigestsInScheme(graph, plan, self._store, remember=outcome is not None)
        check(request.locked, locked_form(graph, plan, observer.sources, made), in_scheme)

    def check_options(self, graph: Pipeline | Programs, plan: Plan, server: ServerOptions | None) -> None:
        """Raise ``UsageError`` for options that are passed on and that the programs, if they are here, would refuse.

        Writes nothing.
        """
        if server is not None and server.passes_on:
            ready = [planned for planned in plan.steps if planned not in plan.pending]
            places = {planned.step: planned.place for planned in ready if planned.place is not None}
            self._try_options(graph, places, server, remember=False)

    def _programs_first(self, request: ProgramsRequest, graph: Pipeline | Programs) -> Mapping[Any, Place]:
        """Make the programs alone, if they are not here yet, and return where they are."""
        targets, snapshot = _programs(graph).targets, _snapshot(graph, request)
        plan = self._observer(graph, None, remember=True).plan(targets, snapshot)
        if plan.pending:
            return self._make(request, graph, targets)[1].places
        return {planned.step: planned.place for planned in plan.steps if planned.place is not None}

    def _try_options(
        self, graph: Pipeline | Programs, places: Mapping[Any, Place], server: ServerOptions, *, remember: bool = True
    ) -> None:
        """Raise ``UsageError`` for an option that llama-server would refuse."""
        from llama_runner.request.lifecycle_options import FLAGS  # noqa: PLC0415 - only with options
        from llama_runner.serving.llama_server.flag_check import check_options  # noqa: PLC0415

        programs = programs_of(self._store, _programs(graph).node, places)
        record = self._store.records(programs).get(TREE)
        if record is None:
            return
        for text in check_options(server, programs, record.digest, self._store.private, FLAGS, remember=remember):
            self._sink(Warned("option", text))

    def _make(
        self,
        request: ProgramsRequest,
        graph: Pipeline | Programs,
        targets: Iterable[Step],
        server: ServerOptions | None = None,
    ) -> tuple[Plan, Outcome]:
        """Plan and execute until everything of the targets is there. ``server``: what is to serve it."""
        remote, attempt, announced = request.remote, 0, False
        observer = self._observer(graph, remote, remember=True)
        snapshot = _snapshot(graph, request, remote=remote is not None)
        while True:
            plan = observer.plan(targets, snapshot)
            plan = self._with_checks(observer, plan, targets, graph, None if announced else self._sink)
            if request.offline and plan.pending:
                from llama_runner.request.offline_check import check_offline  # noqa: PLC0415 - not on the warm path

                check_offline(plan)
            if plan.pending and server is not None and isinstance(graph, Pipeline):
                from llama_runner.request.fits_machine_check import check_size  # noqa: PLC0415 - not on the warm path

                check_size(graph, server)
            if not announced:
                self._announce(plan, graph)
                announced = True
            try:
                outcome = self._execute(observer, plan, remote, *_output_check(request, graph))
                break
            except InputVanished:  # another process evicted it in between; now the plan says that it is made again
                attempt += 1
                if attempt == _REPLANS:
                    raise
            except RemoteLost:  # the remote store finds that key no more, so the plan makes the artifact here
                announced = False
        if remote is not None and remote.pushes:
            self._push(plan, outcome, remote)
        return plan, outcome

    def _with_checks(
        self, observer: Observer, plan: Plan, targets: Iterable[Step], graph: Pipeline | Programs, sink: Sink | None
    ) -> Plan:
        if not isinstance(graph, Pipeline) or not graph.checks:
            return plan
        return with_checks(observer, plan, targets, graph.checks, self._store, sink)

    def _push(self, plan: Plan, outcome: Outcome, remote: LazyRemoteStore) -> None:
        """Put into the remote store what it lacks. Raises ``Interrupted``; a failure of the store is a warning."""
        from llama_runner.engine.push_to_remote import push  # noqa: PLC0415 - not on the warm path
        from llama_runner.steps.compile import CompileLlama  # noqa: PLC0415

        try:
            push(plan, outcome, self._store, remote, self._sink)
            for step in outcome.digests:
                if isinstance(step, CompileLlama):
                    remote.push_compilers(step)
        except KeyboardInterrupt:
            raise Interrupted from None

    def _announce(self, plan: Plan, graph: Pipeline | Programs) -> None:
        if plan.pending:
            from llama_runner.request.download_notices import announce  # noqa: PLC0415 - not on the warm path

            announce(plan, graph, self._sink)

    def _observer(self, graph: Pipeline | Programs, remote: LazyRemoteStore | None, *, remember: bool) -> Observer:
        def inspect(source: LocalSafetensors) -> int | None:
            assert isinstance(graph, Pipeline), "programs are made of no model"
            return context_of(graph, source)

        return self._observer_with(inspect, remote, remember=remember)

    def _observer_with(
        self, inspect: Callable[[LocalSafetensors], int | None], remote: LazyRemoteStore | None, *, remember: bool
    ) -> Observer:
        """Return what reads the disk for a plan; ``inspect`` returns the context length of a directory."""
        from_disk = LocalSources(
            self._store,
            remember=remember,
            inspect=inspect,
            on_progress=lambda done, total: self._sink(StepProgress("hash", done, total, "bytes")),
        )
        return Observer(self._store, from_disk, remote)

    def _execute(
        self,
        observer: Observer,
        plan: Plan,
        remote: LazyRemoteStore | None,
        check_output: CheckOutput | None,
        wanted_digest: WantedDigest = lambda _step: None,
        title: Callable[[Step], str] = lambda step: step.kind,
    ) -> Outcome:
        if not plan.pending and not self._store.has_leftovers() and not self._has_transients(plan):
            return skip_up_to_date(plan, self._store, observer.sources, self._sink, remote)
        from llama_runner.engine.executor import Executor  # noqa: PLC0415 - not on the warm path

        executor = Executor(
            self._store,
            observer,
            self._sink,
            lock_timeout=self._lock_timeout,
            remote=remote,
            check_output=check_output,
            wanted_digest=wanted_digest,
            title=title,
        )
        outcome = executor.execute(plan)
        executor.evict_transients()
        return outcome

    def _has_transients(self, plan: Plan) -> bool:
        """Whether an intermediate lies there that is not to be kept."""
        places = [planned.place for planned in plan.steps if planned.step.transient]
        return any(self._store.is_evictable(place) for place in places if place is not None)

    def _settle(self, programs: Programs, outcome: Outcome) -> None:
        """Forget that programs were rejected that work now; write down the stamp of programs that were moved."""
        if programs.node in outcome.digests:  # who only converts needs none
            forget_rejection_of(programs, self._store.private)
        if isinstance(programs.node, InstalledPrograms):
            programs.node.update_stamp(self._store)


def _output_check(request: ProgramsRequest, graph: Pipeline | Programs) -> tuple[CheckOutput | None, WantedDigest]:
    """Return what raises ``LockDiffers`` for an output that is not the locked one, and what returns the locked digest.

    None and nothing without a lock file.
    """
    locked = request.locked
    if locked is None or not isinstance(graph, Pipeline):
        return None, lambda _step: None
    from llama_runner.request.lock_entry import check_output, locked_digest  # noqa: PLC0415 - only with --locked

    return (
        lambda step, digest: check_output(locked, graph, step, digest),
        lambda step: locked_digest(locked, graph, step),
    )


def _snapshot(graph: Pipeline | Programs, request: ProgramsRequest, *, remote: bool = False) -> Snapshot:
    checks = graph.checks if isinstance(graph, Pipeline) else ()
    return snapshot_of((*graph.targets, *checks), request.keywords, remote=remote)


def _programs(graph: Pipeline | Programs) -> Programs:
    return graph.programs if isinstance(graph, Pipeline) else graph
