"""The process of the gateway: reads the configuration, listens, drains and reloads on signals."""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import logging
import os
import signal
import sys
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from llama_runner.config.config import Config
from llama_runner.core.errors import Interrupted, LlamaRunnerError, UsageError
from llama_runner.core.events import Warned
from llama_runner.gateway import scheduler_state as state
from llama_runner.gateway.configuration import MemoryLimits, catalogue_from, limits_of
from llama_runner.gateway.gateway import Gateway
from llama_runner.gateway.http_application import Application, Settings
from llama_runner.gateway.listeners import address_of, check_addresses, forget, listen, tls_context
from llama_runner.gateway.management import shared_by_handlers as management
from llama_runner.gateway.ollama_downloads import PullRules
from llama_runner.gateway.read_keys_and_limits import read_keys
from llama_runner.gateway.tracing import Tracing, tracing_from
from llama_runner.serving import tuned_profiles
from llama_runner.serving.gateway_process import register_gateway
from llama_runner.serving.port_check import check_port
from llama_runner.serving.server_log import Log
from llama_runner.serving.systemd_and_launchd_units import notify_ready
from llama_runner.serving.unix_socket import check_socket
from llama_runner.store import layout
from llama_runner.system.background_writer import BackgroundWriter
from llama_runner.system.platforms import allow_many_files, take_signals

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Sequence

    from llama_runner.api import Runner
    from llama_runner.core.events import Event
    from llama_runner.gateway.served_models import Catalogue
    from llama_runner.request.request_keywords import RunnerKeywords

DEFAULT_LISTEN = ("127.0.0.1:8080",)
GRACE_S = 30.0
"""Seconds that requests in progress may take after SIGTERM; a second signal ends them."""


class Process:
    """One gateway from its start to its end. ``write`` gets a line of text for each event and each request."""

    def __init__(self, given: argparse.Namespace, write: Callable[[str], None]) -> None:
        self._path, self._write, self._given = given.config, write, given
        self._reloading: asyncio.Task[None] | None = None
        self._is_reloading = asyncio.Lock()
        self.interrupted = False
        self._urls: list[str] = []
        self._reloads = 0
        self._config = self._read()
        table = self._config.gateway
        self._root = layout.usable_root(given.root)
        self._servers = layout.servers(self._root / layout.PRIVATE)
        self._addresses = [address_of(text) for text in given.listen or table.listen or DEFAULT_LISTEN]
        self._settings = self._settings_of(self._config)
        check_addresses(self._addresses, has_keys=bool(self._settings.keys), insecure=table.insecure)
        self._tls: ssl.SSLContext | None = None
        if table.tls_cert is not None or table.tls_key is not None:
            from llama_runner.serving.check_access_options import check_access  # noqa: PLC0415 - only with TLS
            from llama_runner.serving.llama_server.launch_spec import ServerOptions  # noqa: PLC0415 - as above

            check_access(ServerOptions(tls_cert=table.tls_cert, tls_key=table.tls_key), {})
            assert table.tls_cert is not None
            assert table.tls_key is not None
            self._tls = tls_context(table.tls_cert, table.tls_key)

    def check_ports(self) -> None:
        """Raise ``PortTaken`` or ``ServerError`` unless the gateway could listen now."""
        for address in self._addresses:
            if address.port is None:
                check_socket(address.host, self._servers)
            else:
                check_port(address.host, address.port, self._servers)

    def _read(self) -> Config:
        config = Config.load(self._path)
        return config.only(self._given.model) if self._given.model else config

    def _settings_of(self, config: Config) -> Settings:
        table = config.gateway
        keys = read_keys(table.api_key_file, table.limits_file)
        pulls = PullRules(tuple(table.allow_pull), table.max_pull)
        return Settings(
            keys=keys,
            insecure=table.insecure,
            fetch_images=table.fetch_images,
            pulls=pulls,
            access_log=self._write,
            log_prompts=table.log_prompts or self._given.log_prompts,
        )

    def _catalogue(self, config: Config) -> Catalogue:
        found = catalogue_from(
            config,
            lambda name: tuned_profiles.read(layout.profiles(self._root), name),
            self._adapter_version,
        )
        if not self._given.locked:
            return found
        from llama_runner.config.prepare_declared_models import locked_keywords  # noqa: PLC0415 - it loads the pipeline

        locked = {
            name: model.replace(keywords=dict(locked_keywords(config, cast("RunnerKeywords", model.keywords))))
            for name, model in found.declared.items()
        }
        return found.replace(declared=locked)

    def _adapter_version(self, where: str) -> tuple[int, ...]:
        from llama_runner.sources.parse_lora_option import adapter_version  # noqa: PLC0415 - only with adapters
        from llama_runner.training.adapter_versions import adapter_directory  # noqa: PLC0415

        return adapter_version(str(adapter_directory(self._root, where) or where))

    def _load(self) -> Runner:
        """Load the pipeline, which takes as long as the rest of the start."""
        from llama_runner.api import Runner  # noqa: PLC0415 - once the gateway listens

        return Runner(self._root, on_event=self._on_event)

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT; SIGHUP reads the configuration again."""
        loop, ending = asyncio.get_running_loop(), asyncio.Event()
        table = self._config.gateway
        limits = limits_of({"queue": table.queue, "max_wait": table.max_wait})
        memory = MemoryLimits(**table.memory.__dict__)
        gateway = Gateway(self._root, self._load, self._catalogue(self._config), memory=memory, limits=limits)
        gateway.observers.append(self._on_scheduling)
        gateway.session_observers.append(self._on_session)
        about = management.Process(
            config=self._path, urls=lambda: self._urls, reload=lambda: self._reload_now(application)
        )
        application = Application(gateway, self._settings, about)
        application.tracing = tracing = self._tracing()
        logging.getLogger("aiohttp.server").addFilter(_is_our_mistake)
        server = web.AppRunner(application.web, handler_cancellation=True, access_log=None, shutdown_timeout=1.0)
        try:
            await server.setup()
            urls: list[str] = []
            for address in self._addresses:
                urls += await listen(server, address, self._tls, self._servers)
            gateway.start()
            again = asyncio.Event()

            def on_end(number: int) -> None:
                self.interrupted = self.interrupted or number == signal.SIGINT
                (again if ending.is_set() else ending).set()

            take_signals(loop, on_end, partial(self._start_reload, application))
            self._urls = urls
            self._register(gateway)
            notify_ready(os.environ)
            self._tell("gateway_ready", urls=urls, pid=os.getpid(), models=list(gateway.catalogue.declared))
            await ending.wait()
            self._tell("gateway_stopping")
            for site in list(server.sites):
                await site.stop()
            closing = asyncio.ensure_future(gateway.close(GRACE_S))
            forced = asyncio.ensure_future(again.wait())
            await asyncio.wait({closing, forced}, return_when=asyncio.FIRST_COMPLETED)
            forced.cancel()
            if not closing.done():
                await gateway.close(0.0)
            await closing
        finally:
            if not gateway.is_closed:
                await gateway.close(0.0)
            await server.cleanup()
            forget(self._addresses)
            if tracing is not None:
                await asyncio.to_thread(tracing.close)
        self._tell("gateway_stopped")

    def _start_reload(self, application: Application) -> None:
        self._reloading = asyncio.ensure_future(self._reload(application))

    async def _reload(self, application: Application) -> None:
        """Read the configuration again. One that is wrong changes nothing."""
        try:
            await self._reload_now(application)
        except LlamaRunnerError as error:
            self._tell("reload_failed", error=str(error), hint=error.hint)
            async with self._is_reloading:
                await asyncio.to_thread(self._register, application.gateway, str(error))

    async def _reload_now(self, application: Application) -> None:
        """Read the configuration again. Raises what is wrong with it, and changes nothing then.

        One reload after the other: an earlier one that takes longer would put back what it has read.
        """
        async with self._is_reloading:
            self._config, settings, catalogue = await asyncio.to_thread(self._read_again)
            await application.change(settings, catalogue)
            await asyncio.to_thread(self._register, application.gateway)
        self._tell("reloaded", models=list(application.gateway.catalogue.declared))

    def _read_again(self) -> tuple[Config, Settings, Catalogue]:
        config = self._read()
        settings = self._settings_of(config)
        check_addresses(self._addresses, has_keys=bool(settings.keys), insecure=config.gateway.insecure)
        return config, settings, self._catalogue(config)

    def _register(self, gateway: Gateway, failure: str | None = None) -> None:
        """Write down that this gateway is ready, and whether it could read its configuration the last time."""
        self._reloads += 1
        register_gateway(
            self._servers,
            urls=self._urls,
            log=self._given.log,
            config=self._path,
            models=gateway.catalogue.declared,
            reloads=self._reloads,
            failure=failure,
            detached=self._given.detached,
            log_prompts=self._given.log_prompts,
            only=list(self._given.model),
            locked=self._given.locked,
            listen=list(self._given.listen),
        )

    def _on_event(self, event: Event) -> None:
        """Write events of the pipeline and of servers. Called from threads."""
        if isinstance(event, Warned):
            self._tell("warned", what=event.what, text=event.text)

    def _tracing(self) -> Tracing | None:
        """Return what makes traces; without a usable exporter there is a warning, and none are made."""
        try:
            return tracing_from(os.environ)
        except UsageError as error:
            self._tell("warned", what="traces", text=str(error), hint=error.hint)
            return None

    def _on_scheduling(self, what: state.Event | state.Effect) -> None:
        """Write down which models are loaded and stopped, and which fail."""
        if isinstance(what, state.Ready):
            self._tell("model_ready", model=what.model, seconds=round(what.seconds, 3), memory=what.need)
        elif isinstance(what, state.LoadFailed):
            self._tell("load_failed", model=what.model, text=what.failure.reason, hint=what.failure.hint)
        elif isinstance(what, state.Died):
            self._tell("model_died", model=what.model, text=what.failure.reason, hint=what.failure.hint)
        elif isinstance(what, state.Stop):
            self._tell("model_stopping", model=what.model, cause=what.cause)

    def _on_session(self, model: str, event: str, **facts: object) -> None:
        """Write down what becomes of sessions; what came of a request is in its own line."""
        if event == "sessions_limited":
            self._tell("warned", what="sessions", text=f"{model}: {facts['text']}")
        elif event != "session_requested":
            self._tell(event, model=model, **facts)

    def _tell(self, event: str, **facts: object) -> None:
        self._write(json.dumps({"event": event, **facts}))


def _is_our_mistake(record: logging.LogRecord) -> bool:
    """Return whether aiohttp tells of more than bytes of a client that are no request: each would be a traceback."""
    return record.exc_info is None or not isinstance(record.exc_info[1], HttpProcessingError)


class Lines:
    """Where the lines of a gateway go: to its log, and to whoever watches. A slow reader loses lines."""

    def __init__(self, given: argparse.Namespace, show: Callable[[str], None] | None) -> None:
        self._writers: list[BackgroundWriter] = []
        self._show = show
        if show is None and not (given.log and given.detached):
            self._writers.append(BackgroundWriter(sys.stdout.buffer, patience=0.0))
        if given.log:
            log = Log(layout.user_path(given.root) / given.log, self._on_trouble)
            self._writers.append(BackgroundWriter(cast("IO[bytes]", log), patience=0.0))

    def __call__(self, line: str) -> None:
        """Write a line."""
        for writer in self._writers:
            writer.write(line.encode("utf-8", "backslashreplace") + b"\n")
        if self._show is not None:
            self._show(line)

    def flush(self) -> None:
        """Wait until all is written, or a reader takes nothing any more."""
        for writer in self._writers:
            writer.flush()

    def _on_trouble(self, error: OSError) -> None:
        """Tell that the log cannot be written. The gateway goes on."""
        text = f"cannot write the log: {error.strerror or error}"
        self(json.dumps({"event": "warned", "what": "no_log", "text": text}))


def serve(arguments: Sequence[str], show: Callable[[str], None] | None = None) -> None:
    """Run a gateway to its end. ``show`` gets a line of JSON for each event and each request; else standard output.

    With ``--log`` the lines are in that file too. Raises ``LlamaRunnerError`` before it listens, and ``Interrupted``
    once Ctrl-C has ended it.
    """
    given = _parser().parse_args(arguments)
    gc.enable()  # the command line switches it off, and a process that lives for weeks needs it
    allow_many_files()
    lines = Lines(given, show)
    process = Process(given, lines)
    try:
        asyncio.run(process.run())
    finally:
        lines.flush()
    if process.interrupted:
        raise Interrupted


def check(arguments: Sequence[str], *, ports: bool) -> None:
    """Raise the error that a gateway with these arguments would end with before it is ready. Writes nothing.

    With ``ports``, an address that is taken is one.
    """
    process = Process(_parser().parse_args(arguments), lambda _line: None)
    if ports:
        process.check_ports()


def start() -> int:
    """Run the gateway that the arguments of this process describe, and return the exit status."""
    try:
        serve(sys.argv[1:])
    except Interrupted as error:
        return error.code
    except LlamaRunnerError as error:
        failed = {"event": "gateway_failed", "text": str(error), "hint": error.hint, "code": error.code}
        print(json.dumps(failed), flush=True)  # noqa: T201 - for whoever started this process
        return error.code
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m llama_runner.gateway", description="Serve declared models.")
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="configuration file")
    parser.add_argument("--root", type=Path, metavar="DIR", help="root of the store")
    listen_help = "HOST:PORT or the path of a UNIX socket"
    parser.add_argument("--listen", action="append", default=[], metavar="ADDRESS", help=listen_help)
    parser.add_argument("--model", action="append", default=[], metavar="NAME", help="serve only this model")
    parser.add_argument("--locked", action="store_true", help="fail if a model differs from the lock file")
    parser.add_argument("--log", default="", metavar="FILE", help="also write the lines to this file below the root")
    parser.add_argument("--detached", action="store_true", help="write the lines to the log only")
    parser.add_argument("--log-prompts", action="store_true", help="write prompts and answers to the log")
    return parser
