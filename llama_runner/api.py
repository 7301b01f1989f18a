"""``Runner``: what the command line is made of, and what other programs import.

It never prints and never exits: events go to ``on_event``, and what goes wrong is raised as a ``LlamaRunnerError``.
"""

from __future__ import annotations

import os
import time
from functools import partial
from typing import IO, TYPE_CHECKING, Any

from llama_runner.core.events import Noticed, Warned
from llama_runner.core.option_values import wrong_value_error
from llama_runner.request import binaries_graph
from llama_runner.request.graph import NothingToMake, graph_of
from llama_runner.request.graph_locations import forecast_of, made_of, made_programs_of, path_of, prepared_of, spec_for
from llama_runner.request.output_copies import check_output, copied
from llama_runner.request.plan_and_execute import Preparation
from llama_runner.request.resolve import ProgramsRequest, Request
from llama_runner.request.results import BuildResult, ModelFile, PlanResult, Prepared
from llama_runner.request.runner_methods import public_method
from llama_runner.root import Root
from llama_runner.serving.llama_server.launch_spec import ServerOptions, ServerSpec
from llama_runner.serving.llama_server.memory_check import checked
from llama_runner.serving.model_deletion import checked_for_deletion, until_there
from llama_runner.serving.port_check import check_launch, check_users
from llama_runner.serving.server_log import new_name
from llama_runner.serving.server_process import Server
from llama_runner.store import layout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from typing_extensions import Unpack

    from llama_runner.benchmark.run_benchmarks import Benchmarks
    from llama_runner.client.sync_client import Requests
    from llama_runner.config.config import Config
    from llama_runner.config.deployment import Deployment
    from llama_runner.doctor.self_test import SelfTestResult
    from llama_runner.generate.files import Generated, GenerateOptions, Target
    from llama_runner.library.artifact_history import History
    from llama_runner.library.lock_check import LockCheck
    from llama_runner.request.binaries_graph import Programs
    from llama_runner.request.graph import Pipeline
    from llama_runner.request.lock_models import LockResult
    from llama_runner.request.options import RunnerKeywords
    from llama_runner.serving.async_server import AsyncServer
    from llama_runner.serving.crash_restart import Policy
    from llama_runner.serving.running_server import RunningServer


class Runner(Root):
    """The pipeline over one root: plan, prepare and serve models, and everything else that the command line does.

    ``root`` defaults to ``LLAMA_RUNNER_ROOT``, the checkout that the package runs from, or the user's data
    directory. ``on_event`` is called with every event, from several threads. ``lock_timeout`` is how many
    seconds to wait for another process that makes the same thing. ``config`` is a configuration file: where a method
    takes a model, it takes a name that the file declares too. What is given to the method counts more than the file.
    """

    @property
    def benchmarks(self) -> Benchmarks:
        """Measurements: bench, tune."""
        from llama_runner.benchmark.run_benchmarks import Benchmarks  # noqa: PLC0415 - not on the warm path

        return Benchmarks(self.store, self.prepare, self.launch)

    @public_method
    def plan(
        self,
        model: str | Path | None = None,
        *,
        server: ServerOptions | None = None,
        **keywords: Unpack[RunnerKeywords],
    ) -> PlanResult:
        """Return which steps ``serve`` would run, and why. Writes nothing.

        Raises what ``serve`` would say of the options of ``server`` before any work, where the programs are here.
        """
        model, server, keywords = self._declared(model, server, keywords)
        if server is not None:
            check_users(server)
        request = Request(model, keywords, store=self.store, sink=self._sink, remember=False, remotes=self._remotes)
        graph = graph_of(request)
        plan = self._preparation.plan(request, graph)
        self._preparation.check_options(graph, plan, server)
        spec = spec_for(forecast_of(self.store, graph, plan), server)
        if not (request.offline and plan.pending):
            return PlanResult(graph, plan, spec)
        from llama_runner.request.fetch_notices import missing  # noqa: PLC0415 - not on the warm path

        return PlanResult(graph, plan, spec, missing(plan))

    @public_method
    def check(
        self,
        model: str | Path | None = None,
        *,
        server: ServerOptions | None = None,
        **keywords: Unpack[RunnerKeywords],
    ) -> PlanResult:
        """Raise the error that ``serve`` would end with, as far as it is known before any work; return the plan.

        These are: what ``plan`` raises, what is missing offline, and, where all is here, whether memory suffices. The
        port is not tried.
        """
        model, server, keywords = self._declared(model, server, keywords)
        check_users(server or ServerOptions())
        forecast = self.plan(model, server=server, **keywords)
        if forecast.missing:
            from llama_runner.request.fetch_notices import check_offline  # noqa: PLC0415 - not on the warm path

            check_offline(forecast.plan)
        if not forecast.plan.pending:
            checked(forecast.spec, layout.memory_needs(self.store.private), self._sink)
        return forecast

    @public_method
    def prepare(
        self,
        model: str | Path | None = None,
        *,
        server: ServerOptions | None = None,
        **keywords: Unpack[RunnerKeywords],
    ) -> Prepared:
        """Make what is missing, and return where everything is.

        What ``server`` passes on to llama-server is tried on the programs before a model is fetched or made.
        """
        model, server, keywords = self._declared(model, server, keywords)
        began = time.monotonic()

        def ask() -> tuple[Request, Pipeline]:
            request = Request(model, keywords, store=self.store, sink=self._sink, remember=True, remotes=self._remotes)
            return request, graph_of(request)

        graph, plan, outcome = self._preparation.make(ask, server=server)
        return prepared_of(self.store, graph, plan, outcome).replace(seconds=round(time.monotonic() - began, 3))

    @public_method
    def make(
        self, model: str | Path | None = None, *, output: str | Path | None = None, **keywords: Unpack[RunnerKeywords]
    ) -> list[ModelFile]:
        """Make the model files that are asked for, without what serving them needs; copy the first to ``output``.

        An output that ends with a slash is a directory, in which the copy is named after the model.
        """
        model, _, keywords = self._declared(model, None, keywords)

        def ask() -> tuple[Request, Pipeline]:
            request = Request(model, keywords, store=self.store, sink=self._sink, remember=True, remotes=self._remotes)
            graph = graph_of(request)
            if graph.model is None:
                raise NothingToMake(str(path_of(graph.source)))
            if output is not None:
                check_output(graph, output, self.root)
            return request, graph

        graph, _, outcome = self._preparation.make(ask, lambda graph: (*graph.files, *graph.measured))
        files = made_of(self.store, graph, outcome)
        return files if output is None else copied(self.store, graph, files, output)

    @public_method
    def deployment(
        self, *names: str, config: Config | str | os.PathLike[str] | None = None, locked: bool = False
    ) -> Deployment:
        """Return the models that a configuration file declares, to plan and prepare them together.

        ``names`` are some of them; none means all. ``config`` defaults to that of the ``Runner``. With ``locked``
        nothing may differ from the lock file.
        """
        from llama_runner.config.deployment import Deployment  # noqa: PLC0415 - not on the warm path

        return Deployment(
            self._configured(config),
            names,
            store=self.store,
            sink=self._sink,
            remotes=self._remotes,
            profile=self._profile,
            locked=locked,
            lock_timeout=self._lock_timeout,
        )

    @public_method
    def lock(self, *models: str | Path, **keywords: Unpack[RunnerKeywords]) -> LockResult:
        """Prepare models and write commit, recipes, tools and digests of each into a lock file.

        ``lock_file`` defaults to ``llama-runner.lock`` in the working directory. A model that is locked already stays
        as it is; with ``update`` it is resolved and made anew. The keywords are for each of the models; without
        ``models`` they name one, as those of ``plan`` do.
        """
        from llama_runner.request.lock_models import Locker  # noqa: PLC0415 - not on the warm path

        locker = Locker(self._preparation, self.store, self._sink, keywords.get("lock_file"))
        return locker.lock([self._declared(model, None, keywords)[::2] for model in models or (None,)])

    @public_method
    def check_lock(self, *names: str, lock_file: str | Path | None = None, offline: bool = False) -> LockCheck:
        """Compare a lock file with the store, the programs of this machine and, unless ``offline``, the Hub.

        ``names`` are those in the file; none means all. ``lock_file`` defaults to the nearest ``llama-runner.lock``.
        """
        from llama_runner.library.lock_check import LockChecker  # noqa: PLC0415 - not on the warm path
        from llama_runner.request.lock_names import lock_file_path, opened  # noqa: PLC0415
        from llama_runner.system.network_settings import is_offline  # noqa: PLC0415

        lock = opened(lock_file_path({"lock_file": lock_file}))
        offline = offline or is_offline(os.environ)
        return LockChecker(self.store, self._sink, self._preparation, offline=offline).check(lock, names)

    @public_method
    def why(self, name: str) -> History:
        """Return the history of a model file: how it was made, what used it, what would make its steps run again.

        ``name`` is as for ``models.show``, with ``:QUANT`` where there are several files. Uses no network.
        """
        from llama_runner.library.artifact_history import history_of  # noqa: PLC0415 - not on the warm path

        inventory, lineage = self.models.lineage(name)
        return history_of(inventory, lineage, self.plan, self._sink)

    @public_method
    def make_programs(self, **keywords: Unpack[RunnerKeywords]) -> BuildResult:
        """Make llama.cpp's programs, without a model."""
        began = time.monotonic()

        def ask() -> tuple[ProgramsRequest, Programs]:
            request = ProgramsRequest(keywords, store=self.store, sink=self._sink, remotes=self._remotes)
            return request, binaries_graph.build(request.wanted, request.program_facts)

        programs, _, outcome = self._preparation.make(ask)
        return made_programs_of(self.store, programs, outcome).replace(seconds=time.monotonic() - began)

    @public_method
    def generate(
        self,
        target: Target,
        *names: str,
        config: Config | str | os.PathLike[str] | None = None,
        options: GenerateOptions | None = None,
    ) -> Generated:
        """Return the files that run declared models elsewhere; ``Generated.write`` writes them.

        ``target`` is ``compose``, ``quadlet``, ``kubernetes``, ``systemd`` or ``dockerfile``. ``names`` are those of
        the configuration file; none means all. ``config`` defaults to that of the ``Runner``. Uses no network.
        ``CannotGenerate`` for what cannot run there.
        """
        from llama_runner.generate.files import GenerateOptions, generate  # noqa: PLC0415 - not on the warm path
        from llama_runner.generate.memory import known_memory  # noqa: PLC0415

        quietly = Runner(self.root)
        memory = partial(known_memory, quietly.plan, layout.memory_needs(self.store.private))
        found = None if target == "dockerfile" else self._configured(config)
        return generate(target, found, names, options or GenerateOptions(), memory)

    @public_method
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

        ``terminal`` gets the output of the server, like its log. Once ``cancelled`` returns True, a server that still
        loads is stopped and ``Interrupted`` raised. ``about`` has further members of the registry entry. A model that
        was deleted since is a ``ServerError``: prepare it again, as ``serve`` does by itself.
        """
        spec, log_name = self._checked(prepared, server), new_name()
        memory = checked(spec, layout.memory_needs(self.store.private), self._sink)
        with checked_for_deletion(prepared.model, self.root):
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

    @public_method
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

        It continues after this process. ``policy`` says whether it is restarted when it ends, ``limit`` how many starts
        in a row may fail. A detached server of the same launch that runs already is returned instead. A model that
        was deleted since is an error, as in ``launch``.
        """
        from llama_runner.serving.detached_server import detached_server  # noqa: PLC0415 - not on the warm path

        with checked_for_deletion(prepared.model, self.root):
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
        if not isinstance(prepared, Prepared):
            raise wrong_value_error("prepared", "what Runner.prepare returns", prepared)
        if prepared.facts.get("architecture") == "t5":
            self._sink(Warned("t5", "llama-server never runs this model's encoder: what it answers means nothing"))
        return spec_for(prepared, server)

    @public_method
    def ensure_ready(
        self,
        model: str | Path | None = None,
        *,
        server: ServerOptions | None = None,
        **keywords: Unpack[RunnerKeywords],
    ) -> Server | RunningServer:
        """Prepare, and return a server that answers: one that runs with the same options, or else a new one.

        Leaving the ``with`` block of one that ran before does not end it. Another server at its address is a
        ``PortTaken`` that names it.
        """
        model, server, keywords = self._declared(model, server, keywords)
        from llama_runner.serving.running_server import ensure_ready  # noqa: PLC0415 - not on the warm path

        check_users(server or ServerOptions())

        def start() -> Server | RunningServer:
            prepared = self.prepare(model, server=server, **keywords)
            spec = spec_for(prepared, server)
            return ensure_ready(spec, self.servers, lambda: self.launch(prepared, server=server), sink=self._sink)

        return until_there(start)

    @public_method
    def serve(
        self,
        model: str | Path | None = None,
        *,
        server: ServerOptions | None = None,
        terminal: IO[bytes] | None = None,
        cancelled: Callable[[], bool] = lambda: False,
        **keywords: Unpack[RunnerKeywords],
    ) -> Server:
        """Prepare, launch, and return the server once it answers. It is a context manager.

        The port is tried before any work is done.
        """
        model, server, keywords = self._declared(model, server, keywords)
        options = server or ServerOptions()
        check_launch(options, self.servers)

        def start() -> Server:
            prepared = self.prepare(model, server=server, **keywords)
            return self.launch(prepared, server=options, terminal=terminal, cancelled=cancelled)

        return until_there(start)

    @public_method
    def serve_async(
        self,
        model: str | Path | None = None,
        *,
        server: ServerOptions | None = None,
        **keywords: Unpack[RunnerKeywords],
    ) -> AsyncServer:
        """Return the server of ``serve`` for ``async with``; its calls are awaited and do not block the event loop."""
        from llama_runner.serving.async_server import AsyncServer  # noqa: PLC0415 - not on the warm path

        return AsyncServer(lambda cancelled: self.serve(model, server=server, cancelled=cancelled, **keywords))

    @public_method
    def client(
        self,
        model: str | Path | None = None,
        *,
        server: ServerOptions | None = None,
        url: str | None = None,
        **keywords: Unpack[RunnerKeywords],
    ) -> AbstractContextManager[Requests]:
        """Prepare, and return a client for a ``with`` block: of a running server that gives the same answers, if any.

        ``model`` may also name a server that runs, or be the URL of any, and may be left out where one runs. One that
        serves the model in another quantization is used unless a quantization is asked for. Else a server is started
        on a free port; it ends with the block. ``url`` is the address of any server.
        """
        model, server, keywords = self._declared(model, server, keywords)
        from llama_runner.request.running_model import address_of, named_server, server_of_model  # noqa: PLC0415 - not on the warm path
        from llama_runner.serving import client_for_model as shared  # noqa: PLC0415

        if (address := url or address_of(model)) is not None:
            return shared.client_at(self.servers, address)
        options = shared.text_server(server)
        if shared.may_share(options):
            if (about := named_server(self.servers, model, keywords)) is not None:
                return shared.client_of(about)
            launch = lambda: self.plan(model, server=options, **keywords).spec  # noqa: E731
            if (about := server_of_model(self.servers, model, keywords, launch)) is not None:
                self._sink(Noticed("uses", f"{about['alias']} at {about['url']} answers; -q chooses a quantization"))
                return shared.client_of(about)
        prepare = partial(self.prepare, model, server=options, **keywords)
        unused = [prepare()]
        spec = spec_for(unused[0], options)

        def start() -> Server:
            return self.launch(unused.pop() if unused else prepare(), server=options, about=shared.NOT_SHARED)

        return shared.shared_client(options, spec, self.servers, partial(until_there, start))

    def self_test(self) -> Iterator[SelfTestResult]:
        """Try to compile, convert, quantize and serve in a temporary root; yields each trial as it ends."""
        from llama_runner.doctor.self_test import self_test  # noqa: PLC0415 - not on the warm path

        return self_test(self.root, Runner)  # type: ignore[arg-type]  # mypy does not match Unpack with **Any

    def _declared(
        self, model: str | Path | None, server: ServerOptions | None, keywords: RunnerKeywords
    ) -> tuple[str | Path | None, ServerOptions | None, RunnerKeywords]:
        """Return the source and the options of a model that the configuration declares; of any other as they are."""
        config = self.config
        if config is None or not isinstance(model, str) or config.find(model) is None:
            return model, server, keywords
        return config.resolved(model, self._profile).over(server, keywords)

    def _profile(self, name: str) -> dict[str, str]:
        from llama_runner.serving import profiles  # noqa: PLC0415 - only for a declared model

        return profiles.read(layout.profiles(self.root), name)

    @property
    def _preparation(self) -> Preparation:
        return Preparation(self.store, self._sink, lock_timeout=self._lock_timeout)
