"""``Runner``: what the command line is made of, and what other programs import.

It never prints and never exits: events go to ``on_event``, and what goes wrong is raised as a ``LlamaRunnerError``.
"""

from __future__ import annotations

import time
from functools import partial
from typing import IO, TYPE_CHECKING, Any, TypeVar

from llama_runner.core.errors import StepError
from llama_runner.core.events import StepProgress, Warned
from llama_runner.core.record import TREE
from llama_runner.engine.errors import InputVanished
from llama_runner.engine.observer import Observer
from llama_runner.engine.outcome import Outcome, settle
from llama_runner.request.graph import NothingToMake
from llama_runner.request.locations import (
    facts_of,
    file_of,
    header_facts,
    located,
    path_of,
    programs_of,
    sha256_of,
    spec_for,
)
from llama_runner.request.output_copies import check_output, copied
from llama_runner.request.resolve import ProgramsRequest, Request
from llama_runner.request.results import Forecast, Made, MadePrograms, Prepared
from llama_runner.root import Root
from llama_runner.serving.llama_server.launch_spec import ServerOptions, ServerSpec
from llama_runner.serving.llama_server.memory_check import checked
from llama_runner.serving.port_check import check_launch, check_users
from llama_runner.serving.server_log import new_name
from llama_runner.serving.server_process import Server
from llama_runner.steps.quality import as_numbers
from llama_runner.store import layout
from llama_runner.store.local_sources import LocalSources

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    from typing_extensions import Unpack

    from llama_runner.benchmark.bench import Benchmarks
    from llama_runner.client.sync_client import Requests
    from llama_runner.core.plan import Plan
    from llama_runner.core.step import Place, Step
    from llama_runner.doctor.self_test import Trial
    from llama_runner.request.graph import Pipeline
    from llama_runner.request.options import Wishes
    from llama_runner.serving.async_server import AsyncServer
    from llama_runner.serving.running_server import RunningServer
    from llama_runner.serving.supervisor import Policy

_REPLANS = 5
_Asked = TypeVar("_Asked", bound=ProgramsRequest)


class Runner(Root):
    """The pipeline over one root: plan, prepare and serve models, and everything else that the command line does.

    ``root`` defaults to ``LLAMA_RUNNER_ROOT``, the checkout that the package runs from, or the user's data
    directory. ``on_event`` is called with every event, from several threads. ``lock_timeout`` is how many
    seconds to wait for another process that makes the same thing.
    """

    @property
    def benchmarks(self) -> Benchmarks:
        """Measurements: bench, tune."""
        from llama_runner.benchmark.bench import Benchmarks  # noqa: PLC0415 - not on the warm path

        return Benchmarks(self.store, self.prepare, self.launch)

    def plan(
        self, model: str | Path | None = None, *, server: ServerOptions | None = None, **wishes: Unpack[Wishes]
    ) -> Forecast:
        """Say what ``serve`` would run and why. Writes nothing."""
        request = Request(model, wishes, store=self.store, sink=self._sink, remember=False)
        graph = request.graph
        plan = self._observer(request, remember=False).plan(graph.targets, request.snapshot)
        request.announce(plan)
        places = {planned.step: planned.place for planned in plan.steps if planned.place is not None}
        return Forecast(graph, plan, spec_for(located(self.store, graph, places, facts_of(request, plan)), server))

    def prepare(
        self, model: str | Path | None = None, *, server: ServerOptions | None = None, **wishes: Unpack[Wishes]
    ) -> Prepared:
        """Make what is missing, and return where everything is.

        What ``server`` passes on to llama-server is tried on the programs before a model is fetched or made.
        """
        began = time.monotonic()
        request, plan, outcome = self._brought(
            lambda: Request(model, wishes, store=self.store, sink=self._sink, remember=True), server=server
        )
        graph, ran = request.graph, outcome.seconds
        record = None if graph.model is None else self.store.record(outcome.places[graph.model])
        build = self.store.records(programs_of(self.store, graph.binaries, outcome.places)).get(TREE)
        facts = record.facts if record is not None else header_facts(graph.source)
        quality = self._quality(graph, outcome)
        return located(self.store, graph, outcome.places, facts).but(
            sha256=sha256_of(record),
            quality={file_of(self.store, step, outcome.places).name: found for step, found in quality.items()},
            build={} if build is None else build.facts,
            ran=tuple(step.kind for step in ran),
            skipped=tuple(p.step.kind for p in plan.steps if p.step not in ran),
            seconds=round(time.monotonic() - began, 3),
            step_seconds={step.kind: seconds for step, seconds in ran.items()},
        )

    def make(
        self, model: str | Path | None = None, *, output: str | Path | None = None, **wishes: Unpack[Wishes]
    ) -> list[Made]:
        """Make the model files that are asked for, without what serving them needs; copy the first to ``output``.

        An output that ends with a slash is a directory, in which the copy is named after the model.
        """

        def ask() -> Request:
            request = Request(model, wishes, store=self.store, sink=self._sink, remember=True)
            if request.graph.model is None:
                raise NothingToMake(str(path_of(request.graph.source)))
            if output is not None:
                check_output(request.graph, output, self.root)
            return request

        request, _, outcome = self._brought(ask, lambda request: (*request.graph.files, *request.graph.measured))
        quality = self._quality(request.graph, outcome)
        made = [self._made(step, outcome).but(quality=quality.get(step)) for step in request.graph.files]
        return made if output is None else copied(self.store, request.graph, made, output)

    def make_programs(self, **wishes: Unpack[Wishes]) -> MadePrograms:
        """Make llama.cpp's programs, without a model."""
        began = time.monotonic()
        request, _, outcome = self._brought(lambda: ProgramsRequest(wishes, store=self.store, sink=self._sink))
        path = programs_of(self.store, request.programs.node, outcome.places)
        record = self.store.records(path).get(TREE)
        facts = {} if record is None else record.facts
        return MadePrograms(path, facts, tuple(step.kind for step in outcome.seconds), time.monotonic() - began)

    def _brought(
        self,
        ask: Callable[[], _Asked],
        targets: Callable[[_Asked], Iterable[Step]] = lambda request: request.targets,
        *,
        server: ServerOptions | None = None,
    ) -> tuple[_Asked, Plan, Outcome]:
        """Bring everything that is asked for; where programs that we chose are rejected, with the next best."""
        while True:
            request = ask()
            if server is not None and server.purpose == "text" and isinstance(request, Request):
                request.check_text()
            try:
                if server is not None and server.passes_on and not request.snapshot.force:
                    self._try_options(request, self._programs_first(request), server)
                plan, outcome = self._bring(request, targets(request))
            except StepError as error:
                if not request.falls_back(error):
                    raise
                continue
            if server is not None and server.passes_on and request.snapshot.force:
                self._try_options(request, outcome.places, server)
            request.settle(outcome)
            return request, plan, outcome

    def _programs_first(self, request: ProgramsRequest) -> Mapping[Any, Place]:
        """Make the programs alone, if they are not here yet, and return where they are."""
        plan = self._observer(request, remember=True).plan(request.programs.steps, request.snapshot)
        if plan.pending:
            return self._bring(request, request.programs.steps)[1].places
        return {planned.step: planned.place for planned in plan.steps if planned.place is not None}

    def _try_options(self, request: ProgramsRequest, places: Mapping[Any, Place], server: ServerOptions) -> None:
        """Raise ``UsageError`` for an option that llama-server would refuse."""
        from llama_runner.request.server_options import FLAGS  # noqa: PLC0415 - only with options
        from llama_runner.serving.llama_server.flag_check import check_options  # noqa: PLC0415

        programs = programs_of(self.store, request.programs.node, places)
        record = self.store.records(programs).get(TREE)
        for text in () if record is None else check_options(server, programs, record.digest, self.store.private, FLAGS):
            self._sink(Warned("option", text))

    def _bring(self, request: ProgramsRequest, targets: Iterable[Step]) -> tuple[Plan, Outcome]:
        """Plan and execute until everything of the targets is there."""
        observer = self._observer(request, remember=True)
        for attempt in range(_REPLANS):
            plan = observer.plan(targets, request.snapshot)
            request.check_offline(plan)
            if not attempt:
                request.announce(plan)
            try:
                outcome = self._execute(observer, plan)
                break
            except InputVanished:  # another process evicted it in between; now the plan says that it is made again
                if attempt == _REPLANS - 1:
                    raise
        return plan, outcome

    def _quality(self, graph: Pipeline, outcome: Outcome) -> dict[Step, dict[str, float]]:
        """Return what was measured of each model that is quantized."""
        records = {step.model: self.store.record(outcome.places[step]) for step in graph.measured}
        return {model: as_numbers(record.facts) for model, record in records.items() if record is not None}

    def _made(self, step: Step, outcome: Outcome) -> Made:
        record = self.store.record(outcome.places[step])
        assert record is not None, "what was just made or found has a record"
        path, ran = file_of(self.store, step, outcome.places), step in outcome.seconds
        return Made(path, sha256_of(record), record.bytes, record.facts, ran=ran)

    def launch(
        self,
        prepared: Prepared,
        *,
        server: ServerOptions | None = None,
        terminal: IO[bytes] | None = None,
        cancelled: Callable[[], bool] = lambda: False,
        about: dict[str, Any] | None = None,
    ) -> Server:
        """Launch what was prepared and return the server once it answers.

        ``terminal`` gets what the server says, as its log does. Once ``cancelled`` says so, a server that still
        loads is stopped and ``Interrupted`` raised. ``about`` is written down with the running server.
        """
        spec, log_name = self._checked(prepared, server), new_name()
        memory = checked(spec, layout.memory_needs(self.store.private), self._sink)
        running = Server(
            spec,
            log=self.root / log_name,
            log_name=log_name,
            registry=self.servers,
            sink=self._sink,
            terminal=terminal,
            about={"build": prepared.build.get("version")} | (about or {}),
        )
        running.wait_ready(cancelled)
        return memory.remember(running)

    def detach(
        self,
        prepared: Prepared,
        *,
        server: ServerOptions | None = None,
        cancelled: Callable[[], bool] = lambda: False,
        policy: Policy = "no",
        limit: int = 5,
    ) -> RunningServer:
        """Launch what was prepared in a process of its own, and return the server once it answers.

        It goes on when we end. ``policy`` says whether it is started again when it ends, ``limit`` how many starts
        in a row may fail. At a port that is given, a detached server of the same launch that runs already is returned.
        """
        from llama_runner.serving.detached_server import detached_server  # noqa: PLC0415 - not on the warm path

        return detached_server(
            self._checked(prepared, server),
            store=self.store,
            sink=self._sink,
            about={"build": prepared.build.get("version")},
            policy=policy,
            limit=limit,
            cancelled=cancelled,
        )

    def _checked(self, prepared: Prepared, server: ServerOptions | None) -> ServerSpec:
        if prepared.facts.get("architecture") == "t5":
            self._sink(Warned("t5", "llama-server never runs this model's encoder: what it answers means nothing"))
        return spec_for(prepared, server)

    def ensure_ready(
        self, model: str | Path | None = None, *, server: ServerOptions | None = None, **wishes: Unpack[Wishes]
    ) -> Server | RunningServer:
        """Prepare, and return a server that answers: one that runs with the same options, or else a new one.

        Leaving the ``with`` block of one that ran before does not end it. Another server at its address is a
        ``PortTaken`` that names it.
        """
        from llama_runner.serving.running_server import ensure_ready  # noqa: PLC0415 - not on the warm path

        check_users(server or ServerOptions())
        prepared = self.prepare(model, server=server, **wishes)
        spec = spec_for(prepared, server)
        return ensure_ready(spec, self.servers, lambda: self.launch(prepared, server=server), sink=self._sink)

    def serve(
        self,
        model: str | Path | None = None,
        *,
        server: ServerOptions | None = None,
        terminal: IO[bytes] | None = None,
        cancelled: Callable[[], bool] = lambda: False,
        **wishes: Unpack[Wishes],
    ) -> Server:
        """Prepare, launch, and return the server once it answers. It is a context manager.

        The port is tried before any work is done.
        """
        options = server or ServerOptions()
        check_launch(options, self.servers)
        prepared = self.prepare(model, server=server, **wishes)
        return self.launch(prepared, server=options, terminal=terminal, cancelled=cancelled)

    def serve_async(
        self, model: str | Path | None = None, *, server: ServerOptions | None = None, **wishes: Unpack[Wishes]
    ) -> AsyncServer:
        """Return what ``serve`` does, for ``async with``: its calls are awaited, the event loop goes on meanwhile."""
        from llama_runner.serving.async_server import AsyncServer  # noqa: PLC0415 - not on the warm path

        return AsyncServer(lambda cancelled: self.serve(model, server=server, cancelled=cancelled, **wishes))

    def client(
        self, model: str | Path | None = None, *, server: ServerOptions | None = None, **wishes: Unpack[Wishes]
    ) -> AbstractContextManager[Requests]:
        """Prepare, and return a client for a ``with`` block: of a running server that gives the same answers, if any.

        Else a server is started on a free port; it ends with the block.
        """
        from llama_runner.serving.shared_client import NOT_SHARED, shared_client, text_server  # noqa: PLC0415

        options = text_server(server)
        prepared = self.prepare(model, server=options, **wishes)
        start = partial(self.launch, prepared, server=options, about=NOT_SHARED)
        return shared_client(options, spec_for(prepared, options), self.servers, start)

    def self_test(self) -> Iterator[Trial]:
        """Try to compile, convert, quantize and serve in a temporary root; yields each trial as it ends."""
        from llama_runner.doctor.self_test import self_test  # noqa: PLC0415 - not on the warm path

        return self_test(self.root, Runner)  # type: ignore[arg-type]  # mypy does not match Unpack with **Any

    def _observer(self, request: ProgramsRequest, *, remember: bool) -> Observer:
        from_disk = LocalSources(
            self.store,
            remember=remember,
            inspect=request.inspect,
            on_progress=lambda done, total: self._sink(StepProgress("hash", done, total, "bytes")),
        )
        return Observer(self.store, from_disk)

    def _execute(self, observer: Observer, plan: Plan) -> Outcome:
        if not plan.pending and not self.store.has_leftovers() and not self._has_transients(plan):
            return settle(plan, self.store, observer.sources, self._sink)
        from llama_runner.engine.executor import Executor  # noqa: PLC0415 - not on the warm path

        executor = Executor(self.store, observer, self._sink, lock_timeout=self._lock_timeout)
        outcome = executor.execute(plan)
        executor.evict_transients()
        return outcome

    def _has_transients(self, plan: Plan) -> bool:
        """Whether an intermediate lies there that is not to be kept."""
        places = [planned.place for planned in plan.steps if planned.step.transient]
        return any(self.store.is_evictable(place) for place in places if place is not None)
