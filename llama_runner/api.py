"""``Runner``: what the command line is made of, and what other programs import.

It never prints and never exits: events go to ``on_event``, and what goes wrong is raised as a ``LlamaRunnerError``.
"""

from __future__ import annotations

from functools import partial
from typing import IO, TYPE_CHECKING, Any

from llama_runner.api_preparation import Maker
from llama_runner.core.events import Noticed, Warned
from llama_runner.core.option_values import wrong_value_error
from llama_runner.request.check_method_arguments import public_method
from llama_runner.request.make_launch_spec import spec_for
from llama_runner.request.result_types import Prepared
from llama_runner.serving.check_before_launch import checked
from llama_runner.serving.llama_server.launch_spec import ServerOptions, ServerSpec
from llama_runner.serving.model_deletion import checked_for_deletion, until_there
from llama_runner.serving.port_check import check_launch, check_users
from llama_runner.serving.server_log import new_name
from llama_runner.serving.server_process import Server

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from typing_extensions import Unpack

    from llama_runner.benchmark.run_benchmarks import Benchmarks
    from llama_runner.client.sync_client import Requests
    from llama_runner.config.config import Config
    from llama_runner.doctor.self_test import SelfTestResult
    from llama_runner.library.adapters import Adapters
    from llama_runner.request.request_keywords import RunnerKeywords
    from llama_runner.serving.async_server import AsyncServer
    from llama_runner.serving.crash_restart import Policy
    from llama_runner.serving.listed_server import ServerEntry
    from llama_runner.serving.prestarted_process import SpareProcess
    from llama_runner.serving.running_server import RunningServer


class Runner(Maker):
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

    @property
    def adapters(self) -> Adapters:
        """LoRA adapters that are trained here: train, list, show, compare, roll back, merge, export, test, remove."""
        from llama_runner.library.adapters import Adapters  # noqa: PLC0415 - not on the warm path

        return Adapters(
            self.store,
            self._sink,
            lock_timeout=self._lock_timeout,
            remotes=self._remotes,
            make=self.make,
            serve=self.serve,
        )

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
        return self._launch(prepared, server, terminal, cancelled, about)

    def _launch(
        self,
        prepared: Prepared,
        server: ServerOptions | None,
        terminal: IO[bytes] | None,
        cancelled: Callable[[], bool],
        about: dict[str, Any] | None,
        spare: SpareProcess | None = None,
        *,
        register: bool = True,
    ) -> Server:
        spec, log_name = self._checked(prepared, server), new_name()
        memory = checked(spec, self.store.private, self._sink, cancelled=cancelled)
        with checked_for_deletion(prepared.model, self.root):
            running = Server(
                spec,
                log=self.root / log_name,
                log_name=log_name,
                registry=self.servers,
                sink=self._sink,
                terminal=terminal,
                about={"build": prepared.build.get("version")} | (about or {}),
                spare=spare,
            )
            running.wait_ready(cancelled, register=register)
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
        about: dict[str, Any] | None = None,
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
                about={"build": prepared.build.get("version")} | (about or {}),
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
    def up(
        self,
        *names: str,
        config: Config | str | os.PathLike[str] | None = None,
        locked: bool = False,
        listen: Iterable[str] = (),
        log_prompts: bool = False,
        gateway: bool = False,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> ServerEntry:
        """Prepare declared models and serve them in the background; return the entry of what answers.

        One model is served as ``detach`` serves it. Several, or one with ``listen``, ``log_prompts`` or ``gateway``,
        are served by the gateway, at the addresses of ``listen`` or else of the configuration. With ``log_prompts`` its
        log has prompts and answers. What runs already with the same launch stays; ``down`` stops it. The other
        arguments are those of ``deployment``.
        """
        from llama_runner.serving.listed_server import ServerEntry  # noqa: PLC0415 - not on the warm path

        deployment = self.deployment(*names, config=config, locked=locked)
        prepared, listen = deployment.prepare(self.prepare), tuple(listen)
        if listen or log_prompts or gateway or not deployment.is_one_server:
            return deployment.start_gateway(listen, cancelled, log_prompts=log_prompts)
        [(name, layers)] = deployment.models.items()
        server = self.detach(
            prepared[name],
            server=layers.server,
            cancelled=cancelled,
            policy=layers.life_cycle.get("restart", "no"),
            limit=layers.life_cycle.get("restart_limit", 5),
            about={"config": str(deployment.config.path)},
        )
        return ServerEntry(server.about)

    @public_method
    def ui(
        self,
        *,
        config: Config | str | os.PathLike[str] | None = None,
        listen: Iterable[str] = (),
        cancelled: Callable[[], bool] = lambda: False,
    ) -> ServerEntry:
        """Return the entry of the gateway of a configuration, whose page is at ``/ui``; start one where none runs.

        It runs in the background until ``down``. Without a configuration an empty one is written to the root.
        """
        from llama_runner.config.prepare_declared_models import gateway_of_page  # noqa: PLC0415 - not on the warm path

        return gateway_of_page(self._config_path(config), self.store, listen=listen, cancelled=cancelled)

    @public_method
    def down(self, *, config: Config | str | os.PathLike[str] | None = None) -> list[ServerEntry]:
        """Stop the servers and the gateway that run for a configuration; return their entries.

        The file is not read. Without one, what runs for the only configuration of this root is stopped; ``UsageError``
        for several.
        """
        from llama_runner.serving.stop_servers_of_configuration import down  # noqa: PLC0415 - not on the warm path

        return down(self.servers, self._config_path(config), self._sink)

    @public_method
    def reload(self, *, config: Config | str | os.PathLike[str] | None = None) -> list[ServerEntry]:
        """Let what runs for a configuration follow a change of the file; return the entries of that.

        Only models whose launch changed are stopped and started; what serves some models of the file goes on with
        these. Raises ``ServerError`` for a server in the foreground
        of another process whose launch changed, and for a gateway that cannot use the file.
        """
        from llama_runner.config.reloading import reload  # noqa: PLC0415 - not on the warm path

        return reload(partial(self.deployment, config=config), self.prepare, partial(self.up, config=config))

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
