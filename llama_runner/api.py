"""``Runner``: what the command line is made of, and what other programs import.

It looks, plans, prepares and serves. It never prints and never exits: events go to ``on_event``, and what goes
wrong is raised as a ``LlamaRunnerError``.
"""

from __future__ import annotations

import os
import time
from typing import IO, TYPE_CHECKING, Any

from llama_runner import machine, paths, pipeline
from llama_runner.binaries.pin import load_pin
from llama_runner.binaries.toolchain import Toolchain, find_toolchain
from llama_runner.core.digest import short
from llama_runner.core.errors import UsageError
from llama_runner.core.events import Sink, StepProgress
from llama_runner.core.plan import Plan, RecordAt, Snapshot
from llama_runner.core.record import TREE
from llama_runner.core.step import Step, topological
from llama_runner.core.value import Value, field
from llama_runner.engine.errors import InputVanished
from llama_runner.engine.observe import Observer
from llama_runner.engine.settle import Outcome, settle
from llama_runner.engine.store import Store
from llama_runner.pipeline import Options, Pipeline
from llama_runner.server.port import check_port
from llama_runner.server.process import Server
from llama_runner.server.spec import ServerOptions, ServerSpec, spec_of
from llama_runner.sources.choose import choose
from llama_runner.sources.local import LocalFile, LocalSources

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path
    from typing import TypedDict

    from typing_extensions import Unpack

    from llama_runner.convert import Outtype
    from llama_runner.convert.checkpoint import Checkpoint
    from llama_runner.core.record import Record
    from llama_runner.core.step import Place
    from llama_runner.sources.local import LocalModel
    from llama_runner.status import Status

    class Wishes(TypedDict, total=False):
        """What may be asked for beside the model, by keyword. See ``Options`` for what each one means."""

        hf_model: str | None
        gguf_path: str | Path | None
        safetensors_dir: str | Path | None
        demo: bool
        quantization: str | None
        outtype: Outtype
        keep_f16: bool
        device: str
        jobs: int | None
        force: Iterable[str]
        """Kinds of steps that run whatever their records say; ``("all",)`` for every one."""
        fresh_tools: bool
        """Whether what another version of a tool made counts as out of date."""


_REPLANS = 5


class UnknownStep(UsageError):
    """There is no such step to force in what was asked for."""

    def __init__(self, name: str, steps: list[str]) -> None:
        self.name, self.steps = name, steps
        super().__init__(f"there is no step called {name!r} here", hint=f"the steps are {', '.join(steps)}")


class Forecast(Value):
    """What would run and why, and what would be launched."""

    pipeline: Pipeline
    plan: Plan
    spec: ServerSpec

    def to_json(self) -> dict[str, Any]:
        """Return the document of ``plan --json``."""
        source = self.pipeline.source
        return {
            "source": {"kind": source.kind, "ref": str(source.path), "revision": self._revision()},
            "steps": [
                {
                    "name": planned.step.kind,
                    "action": planned.action,
                    "key": planned.key,
                    "output": None if planned.place is None else str(planned.place).rstrip("/"),
                    "reasons": [r.to_json() for r in getattr(planned.decision, "reasons", ())],
                    "on": list(getattr(planned.decision, "on", ())),
                }
                for planned in self.plan.steps
            ],
            "needs": {"fetch": self.plan.needs.fetch, "disk": self.plan.needs.disk},
            "launch": {"argv": self.spec.argv(), "url": self.spec.url},
        }

    def _revision(self) -> str | None:
        for planned in self.plan.steps:
            if planned.step.kind in ("convert", "quantize") and (digest := planned.digests.get("model")):
                return short(digest, 12) if planned.step.kind == "convert" else None
        return None


class Prepared(Value):
    """Everything that a launch needs, on disk."""

    alias: str
    """The name that the API gives the model."""
    model: Path
    """The file to serve: in the store, or the user's own."""
    sha256: str | None
    """Of the model; None for a file that is used where it lies, which nobody has hashed."""
    binaries: Path
    facts: dict[str, Any]
    """Of the model: architecture, quantization, context_length, …"""
    build: dict[str, Any] = field(default_factory=dict)
    """Of the binaries: version, build, backend."""
    ran: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    seconds: float = 0.0
    step_seconds: dict[str, float] = field(default_factory=dict)
    """What each step of this run took; a skipped one is not in it."""

    @property
    def server(self) -> Path:
        """The llama-server to launch."""
        return self.binaries / ("llama-server.exe" if os.name == "nt" else "llama-server")

    def to_json(self) -> dict[str, Any]:
        """Return the document of ``prepare --json``."""
        return {
            "model": str(self.model),
            "sha256": self.sha256,
            "server": str(self.server),
            "ran": list(self.ran),
            "skipped": list(self.skipped),
            "seconds": self.seconds,
        }


class Runner:
    """The pipeline over one root.

    ``root`` defaults to ``LLAMA_RUNNER_ROOT``, the checkout that the package runs from, or the user's data
    directory. ``on_event`` is called with every event, from several threads. ``lock_timeout`` is how many
    seconds to wait for another process that makes the same thing.
    """

    def __init__(
        self,
        root: str | os.PathLike[str] | None = None,
        *,
        on_event: Sink = lambda _event: None,
        lock_timeout: float = 6 * 3600,
    ) -> None:
        self.root = paths.find_root(root)
        self.store = Store(self.root, on_event)
        self._sink, self._lock_timeout = on_event, lock_timeout

    def plan(
        self, model: str | Path | None = None, *, server: ServerOptions | None = None, **wishes: Unpack[Wishes]
    ) -> Forecast:
        """Say what ``serve`` would run and why. Writes nothing."""
        graph = self._graph(model, wishes)
        plan = self._observer(remember=False).plan(graph.targets, _snapshot(graph, wishes))
        binaries = plan.of(graph.binaries).place
        assert binaries is not None, "the source tree is pinned, so the key of the build is always known"
        prepared = Prepared(
            alias=_alias(graph),
            model=graph.source.path if graph.model is None else self.store.path(_place(plan, graph.model)),
            sha256=None,
            binaries=self.store.path(binaries),
            facts=self._facts_before(graph, plan),
        )
        return Forecast(graph, plan, _spec(prepared, server or ServerOptions()))

    def prepare(self, model: str | Path | None = None, **wishes: Unpack[Wishes]) -> Prepared:
        """Make what is missing, and return where everything is."""
        began = time.monotonic()
        graph = self._graph(model, wishes)
        observer = self._observer(remember=True)
        for attempt in range(_REPLANS):
            plan = observer.plan(graph.targets, _snapshot(graph, wishes))
            try:
                outcome = self._execute(observer, plan)
                break
            except InputVanished:  # another process evicted it in between; now the plan says that it is made again
                if attempt == _REPLANS - 1:
                    raise
        ran = outcome.seconds
        model_record = None if graph.model is None else self.store.record(outcome.places[graph.model])
        build = self.store.record(outcome.places[graph.binaries])
        return Prepared(
            alias=_alias(graph),
            model=graph.source.path if graph.model is None else self.store.path(outcome.places[graph.model]),
            sha256=None if model_record is None else model_record.digest.removeprefix("sha256:"),
            binaries=self.store.path(outcome.places[graph.binaries]),
            facts=_facts(graph.source, model_record),
            build={} if build is None else build.facts,
            ran=tuple(step.kind for step in ran),
            skipped=tuple(p.step.kind for p in plan.steps if p.step not in ran),
            seconds=round(time.monotonic() - began, 3),
            step_seconds={step.kind: seconds for step, seconds in ran.items()},
        )

    def launch(
        self,
        prepared: Prepared,
        *,
        server: ServerOptions | None = None,
        terminal: IO[bytes] | None = None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Server:
        """Launch what was prepared and return the server once it answers.

        ``terminal`` gets what the server says, as its log does. Once ``cancelled`` says so, a server that still
        loads is stopped and ``Interrupted`` raised.
        """
        log_name = f"logs/run-server-{time.strftime('%Y-%m-%dT%H-%M-%S', time.gmtime())}-{os.getpid()}.log"
        running = Server(
            _spec(prepared, server or ServerOptions()),
            log=self.root / log_name,
            log_name=log_name,
            registry=self.store.private / "servers",
            sink=self._sink,
            terminal=terminal,
        )
        running.wait_ready(cancelled)
        return running

    def serve(
        self,
        model: str | Path | None = None,
        *,
        server: ServerOptions | None = None,
        terminal: IO[bytes] | None = None,
        **wishes: Unpack[Wishes],
    ) -> Server:
        """Prepare, launch, and return the server once it answers. It is a context manager.

        The port is tried before any work is done.
        """
        options = server or ServerOptions()
        check_port(options.host, options.port)
        return self.launch(self.prepare(model, **wishes), server=options, terminal=terminal)

    def stop(self, name: str | None = None) -> list[dict[str, Any]]:
        """End the servers of this root that run, or those of one model name, URL or process id; return them.

        Raises ``NoSuchServer`` when a name was given that fits none.
        """
        from llama_runner.server.registry import stop  # noqa: PLC0415 - not on the warm path

        return stop(self.store.private / "servers", name)

    def status(self) -> Status:
        """Say what the store holds and which servers run. Reads records only."""
        from llama_runner.status import take_stock  # noqa: PLC0415 - not on the warm path

        return take_stock(self.store)

    def _graph(self, model: str | Path | None, wishes: Wishes) -> Pipeline:
        source = choose(
            model,
            hf_model=wishes.get("hf_model"),
            gguf_path=wishes.get("gguf_path"),
            safetensors_dir=wishes.get("safetensors_dir"),
            demo=wishes.get("demo", False),
        )
        options = Options(
            quantization=wishes.get("quantization"),
            outtype=wishes.get("outtype", "auto"),
            keep_f16=wishes.get("keep_f16", False),
            device=wishes.get("device", "auto"),
            jobs=wishes.get("jobs"),
        )
        return pipeline.build(
            source, options, pin=load_pin(paths.pin_file()), toolchain=self._toolchain(), environment=os.environ
        )

    def _toolchain(self) -> Toolchain:
        """Find the compilers; those that built something here before are known by their stamps."""
        builds = (records.get(TREE) for _, records in self.store.directories(f"bins/{machine.platform_tag()}", "*"))
        return find_toolchain(os.environ, [record.noted for record in builds if record is not None])

    def _observer(self, *, remember: bool) -> Observer:
        from_disk = LocalSources(
            self.store,
            remember=remember,
            inspect=_inspect,
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

    def _facts_before(self, graph: Pipeline, plan: Plan) -> dict[str, Any]:
        """Return what is known of a model that may not have been made yet."""
        record = None if graph.model is None else plan.snapshot.answers.get(RecordAt(_place(plan, graph.model)))
        facts = _facts(graph.source, record)
        if not facts:
            facts = {"context_length": _inspect(graph.source.path).context_length}
        return facts


def _inspect(directory: Path) -> Checkpoint:
    from llama_runner.convert import inspect  # noqa: PLC0415 - not on the warm path

    return inspect(directory)


def _facts(source: LocalModel | LocalFile, record: Record | None) -> dict[str, Any]:
    if record is not None:
        return record.facts
    return source.header.facts() if isinstance(source, LocalFile) else {}


def _place(plan: Plan, step: Step) -> Place:
    place = plan.of(step).place
    assert place is not None, "a model lies in the directory of its source, whose digest was observed"
    return place


def _alias(graph: Pipeline) -> str:
    """Return the name that the API gives the model: the source's, and the quantization if we chose it."""
    name = graph.source.name.replace(",", "_")
    if graph.model is None:
        return name
    return f"{name}:{getattr(graph.model, 'type', None) or getattr(graph.model, 'outtype', '')}"


def _spec(prepared: Prepared, options: ServerOptions) -> ServerSpec:
    return spec_of(
        options,
        binary=prepared.server,
        model=prepared.model,
        alias=prepared.alias,
        trained_context=prepared.facts.get("context_length"),
        cores=machine.physical_cores(),
    )


def _snapshot(graph: Pipeline, wishes: Wishes) -> Snapshot:
    forced = frozenset(wishes.get("force", ()))
    steps = [node.kind for node in topological(graph.targets) if isinstance(node, Step)]
    if "all" in forced:
        forced = frozenset(steps)
    for name in sorted(forced - set(steps)):
        raise UnknownStep(name, steps)
    return Snapshot({}, forced, wishes.get("fresh_tools", False))
