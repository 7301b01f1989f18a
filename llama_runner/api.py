"""``Runner``: what the command line is made of, and what other programs import.

It looks, plans, prepares and serves. It never prints and never exits: events go to ``on_event``, and what goes
wrong is raised as a ``LlamaRunnerError``.
"""

from __future__ import annotations

import os
import time
from typing import IO, TYPE_CHECKING, Any

from llama_runner.core.events import Noticed, Sink, Warned
from llama_runner.request import binaries_graph
from llama_runner.request.graph import NothingToMake, graph_of
from llama_runner.request.locations import forecast_of, made_of, made_programs_of, path_of, prepared_of, spec_for
from llama_runner.request.output_copies import check_output, copies_of
from llama_runner.request.preparation import Preparation
from llama_runner.request.resolve import ProgramsRequest, Request
from llama_runner.request.results import Forecast, Made, MadePrograms, Prepared
from llama_runner.serving.llama_server.launch_spec import ServerOptions, ServerSpec
from llama_runner.serving.llama_server.memory_check import checked
from llama_runner.serving.port_check import check_launch
from llama_runner.serving.server_log import new_name
from llama_runner.serving.server_process import Server
from llama_runner.store import layout
from llama_runner.store.artifacts import Store

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from typing_extensions import Unpack

    from llama_runner.llama_cpp.installed_builds import BuildStore
    from llama_runner.request.binaries_graph import Programs
    from llama_runner.request.graph import Pipeline
    from llama_runner.request.options import Wishes
    from llama_runner.serving.async_server import AsyncServer
    from llama_runner.serving.running_server import RunningServer
    from llama_runner.serving.supervisor import Policy
    from llama_runner.sources.hub.search import Found
    from llama_runner.status import Status


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
        self.root = layout.find_root(root)
        self.store = Store(self.root, on_event)
        self._sink, self._lock_timeout = on_event, lock_timeout
        self._preparation = Preparation(self.store, on_event, lock_timeout=lock_timeout)

    @property
    def bins(self) -> BuildStore:
        """The builds of llama.cpp under this root: list, use, remove, export, take in."""
        from llama_runner.serving.build_store import open_builds  # noqa: PLC0415 - not on the warm path

        return open_builds(self.store, sink=self._sink, lock_timeout=self._lock_timeout)

    @property
    def servers(self) -> Path:
        """Where the servers that run are written down."""
        return layout.servers(self.store.private)

    def plan(
        self, model: str | Path | None = None, *, server: ServerOptions | None = None, **wishes: Unpack[Wishes]
    ) -> Forecast:
        """Say what ``serve`` would run and why. Writes nothing."""
        request = Request(model, wishes, store=self.store, sink=self._sink, remember=False)
        graph = graph_of(request)
        plan = self._preparation.plan(request, graph)
        return Forecast(graph, plan, spec_for(forecast_of(self.store, graph, plan), server))

    def prepare(
        self, model: str | Path | None = None, *, server: ServerOptions | None = None, **wishes: Unpack[Wishes]
    ) -> Prepared:
        """Make what is missing, and return where everything is.

        What ``server`` passes on to llama-server is tried on the programs before a model is fetched or made.
        """
        began = time.monotonic()

        def ask() -> tuple[Request, Pipeline]:
            request = Request(model, wishes, store=self.store, sink=self._sink, remember=True)
            return request, graph_of(request)

        graph, plan, outcome = self._preparation.make(ask, server=server)
        return prepared_of(self.store, graph, plan, outcome).but(seconds=round(time.monotonic() - began, 3))

    def make(
        self, model: str | Path | None = None, *, output: str | Path | None = None, **wishes: Unpack[Wishes]
    ) -> list[Made]:
        """Make the model files that are asked for, without what serving them needs; copy the first to ``output``."""
        target = None if output is None else layout.user_path(output)

        def ask() -> tuple[Request, Pipeline]:
            request = Request(model, wishes, store=self.store, sink=self._sink, remember=True)
            graph = graph_of(request)
            if graph.model is None:
                raise NothingToMake(str(path_of(graph.source)))
            if target is not None:
                check_output(graph.model, target, self.root)
            return request, graph

        graph, _, outcome = self._preparation.make(ask, lambda graph: (*graph.files, *graph.measured))
        files = made_of(self.store, graph, outcome)
        self.store.copy_out({} if target is None else copies_of(graph.model, files[0].path, target))
        return files

    def make_programs(self, **wishes: Unpack[Wishes]) -> MadePrograms:
        """Make llama.cpp's programs, without a model."""
        began = time.monotonic()

        def ask() -> tuple[ProgramsRequest, Programs]:
            request = ProgramsRequest(wishes, store=self.store, sink=self._sink)
            return request, binaries_graph.build(request.wanted, request.program_facts)

        programs, _, outcome = self._preparation.make(ask)
        return made_programs_of(self.store, programs, outcome).but(seconds=time.monotonic() - began)

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
        from llama_runner.serving.access import key_for  # noqa: PLC0415 - not on the warm path
        from llama_runner.serving.daemon import detach, restarts_as  # noqa: PLC0415
        from llama_runner.serving.running_server import ensure_ready  # noqa: PLC0415

        spec, about = self._checked(prepared, server), {"build": prepared.build.get("version")}

        def start() -> RunningServer:
            memory, log_name = checked(spec, layout.memory_needs(self.store.private), self._sink), new_name()
            running = detach(
                spec,
                log=self.root / log_name,
                log_name=log_name,
                registry=self.servers,
                sink=self._sink,
                about=about,
                policy=policy,
                limit=limit,
                key=key_for(spec),
                cancelled=cancelled,
            )
            return memory.remember(running)

        if spec.port == 0 and spec.socket is None:
            return start()
        return ensure_ready(spec, self.servers, start, cancelled, accepts=restarts_as(policy, limit), sink=self._sink)

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
        from llama_runner.serving.access import check_access  # noqa: PLC0415 - not on the warm path
        from llama_runner.serving.llama_server.variables import with_variables  # noqa: PLC0415
        from llama_runner.serving.running_server import ensure_ready  # noqa: PLC0415

        check_access(with_variables(server or ServerOptions(), os.environ), os.environ)
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

    def search(self, words: str, *, limit: int = 10, token_file: str | Path | None = None) -> list[Found]:
        """Return repositories on the Hub with GGUF files that fit the words, the most downloaded first."""
        from llama_runner.sources.hub.search import search  # noqa: PLC0415 - not on the warm path

        return search(
            words,
            environment=os.environ,
            token_file=None if token_file is None else layout.user_path(token_file),
            limit=limit,
            notice=lambda what, text: self._sink(Noticed(what, text)),
        )

    def stop(self, name: str | None = None) -> list[dict[str, Any]]:
        """End all servers, or the one of a name, URL or process id. Raises ``NoSuchServer`` or ``AmbiguousName``."""
        from llama_runner.serving.server_control import stop  # noqa: PLC0415 - not on the warm path

        return stop(self.servers, name, self._sink)

    def restart(self, name: str) -> dict[str, Any]:
        """End a detached server and start it anew; return what is written down of it once it is ready."""
        from llama_runner.serving.server_control import restart  # noqa: PLC0415 - not on the warm path

        return restart(self.servers, name)

    def running(self) -> list[dict[str, Any]]:
        """Return the servers of this root that run, with what they do now, and those in the background that failed."""
        from llama_runner.serving.status_probe import look_at_all  # noqa: PLC0415 - not on the warm path

        return look_at_all(self.servers)

    def status(self) -> Status:
        """Say what the store holds and which servers run. Reads records only."""
        from llama_runner.status import take_stock  # noqa: PLC0415 - not on the warm path

        return take_stock(self.store)
