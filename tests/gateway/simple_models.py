"""The routes of Ollama's API over servers that ``Runner`` starts: an application without a scheduler."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from llama_runner import Runner, Server
from llama_runner.gateway.clients import LOOPBACK, Client
from llama_runner.gateway.errors import GatewayError, ServerLost, UnknownModel
from llama_runner.gateway.models import Catalogue, DeclaredModel, ModelFacts, RunningModel, ServedModel
from llama_runner.gateway.ollama_downloads import PullRules
from llama_runner.gateway.ollama_routes import add_routes
from llama_runner.request.model_inspection import inspect
from llama_runner.request.results import Prepared


class SimpleLease:
    """A server that runs, for one request."""

    def __init__(self, models: SimpleModels, served: ServedModel, server: Server, waited: float) -> None:
        self.model, self.url, self.key, self.session = served, server.url, "", models.session
        self.facts = models.known[served.declared]
        self.context: int | None = 1024
        self.waited = self.loading = waited

    @asynccontextmanager
    async def request(self, method: str, path: str, **options: Any) -> AsyncIterator[aiohttp.ClientResponse]:
        try:
            answer = await self.session.request(method, self.url + path, **options)
        except aiohttp.ClientConnectionError as error:
            raise ServerLost(self.model.name) from error
        try:
            yield answer
        finally:
            answer.close()


class SimpleModels:
    """Starts a server on the first request for a model, and stops it when ``keep_alive`` is 0."""

    def __init__(self, root: Path, catalogue: Catalogue, capabilities: Mapping[str, tuple[str, ...]]) -> None:
        self.root, self.catalogue, self._capabilities = root, catalogue, capabilities
        self.servers: dict[str, Server] = {}
        self.known: dict[str, ModelFacts] = {}
        self.expires: dict[str, float | None] = {}
        self.loads: list[str] = []
        self._lock = asyncio.Lock()
        self.session: aiohttp.ClientSession

    @asynccontextmanager
    async def acquire(
        self, name: str, *, keep_alive: float | None = None, client: Client = LOOPBACK
    ) -> AsyncIterator[SimpleLease]:
        served = self.catalogue.find(name)
        if not client.may_use(served.name):
            raise UnknownModel(name)
        declared, began = self.catalogue.declared[served.declared], time.monotonic()
        async with self._lock:
            if declared.name not in self.servers:
                self.servers[declared.name] = await asyncio.to_thread(self._start, declared)
        if keep_alive is not None or declared.name not in self.expires:
            keep = 300.0 if keep_alive is None else keep_alive
            self.expires[declared.name] = None if keep < 0 else time.time() + keep
        yield SimpleLease(self, served, self.servers[declared.name], time.monotonic() - began)
        if keep_alive == 0:
            await self.unload(name)

    def _start(self, declared: DeclaredModel) -> Server:
        self.loads.append(declared.name)
        runner = Runner(self.root)
        prepared = runner.prepare(declared.source, **declared.keywords)
        self.known[declared.name] = self._facts(declared.name, prepared)
        return runner.launch(prepared, server=declared.server.replace(port=0))

    def _facts(self, name: str, prepared: Prepared) -> ModelFacts:
        seen = inspect(prepared.model)
        return ModelFacts(
            file=prepared.model,
            sha256=str(prepared.sha256 or "ab" * 32).removeprefix("sha256:"),
            bytes=seen.bytes,
            modified_at=prepared.model.stat().st_mtime,
            architecture=str(seen.architecture),
            name=seen.metadata.get("general.name"),
            parameters=seen.parameters,
            quantization=prepared.facts.get("quantization"),
            context_length=seen.context_length,
            template=seen.template,
            metadata=seen.metadata,
            capabilities=self._capabilities.get(name, ("completion",)),
        )

    async def unload(self, name: str) -> bool:
        declared = self.catalogue.find(name).declared
        if (server := self.servers.pop(declared, None)) is None:
            return False
        await asyncio.to_thread(server.stop)
        return True

    def running(self) -> list[RunningModel]:
        return [
            RunningModel(
                name=name,
                state="ready",
                pinned=False,
                in_flight=0,
                queued=0,
                expires_at=self.expires[name],
                memory={"Host": 5 << 20},
                context=1024,
            )
            for name in self.servers
        ]

    async def facts(self, name: str) -> ModelFacts | None:
        found = self.known.get(self.catalogue.find(name).declared)
        return found if found is not None and found.file.exists() else None

    async def declare(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue


@web.middleware
async def errors(request: web.Request, handler: Any) -> web.StreamResponse:
    try:
        answer: web.StreamResponse = await handler(request)
    except GatewayError as error:
        text = f"{error}; {error.hint}" if error.hint else str(error)
        return web.json_response({"error": text}, status=error.status)
    return answer


class Address:
    """A gateway that runs in a thread of its own."""

    def __init__(self, models: SimpleModels, rules: PullRules, clients: Mapping[str, Client]) -> None:
        self.models, self._rules, self._clients = models, rules, clients
        self.url = ""
        self._started, self._stop = threading.Event(), asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=lambda: self._loop.run_until_complete(self._serve()))

    async def _serve(self) -> None:
        @web.middleware
        async def keys(request: web.Request, handler: Any) -> web.StreamResponse:
            key = request.headers.get("Authorization", "").removeprefix("Bearer ")
            request._state["client"] = self._clients.get(key, LOOPBACK)
            answer: web.StreamResponse = await handler(request)
            return answer

        application = web.Application(middlewares=[errors, keys])
        add_routes(application, self.models, self._rules)
        async with aiohttp.ClientSession() as session:
            self.models.session = session
            runner = web.AppRunner(application, handler_cancellation=True)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
            self.url = f"http://127.0.0.1:{port}"
            self._started.set()
            await self._stop.wait()
            await runner.cleanup()
        for server in self.models.servers.values():
            await asyncio.to_thread(server.stop)

    def __enter__(self) -> Address:  # noqa: PYI034 - it is never subclassed
        self._thread.start()
        assert self._started.wait(30)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        self._loop.close()


@contextmanager
def serving(
    root: Path,
    catalogue: Catalogue,
    *,
    capabilities: Mapping[str, tuple[str, ...]] | None = None,
    rules: PullRules | None = None,
    clients: Mapping[str, Client] | None = None,
) -> Iterator[Address]:
    """Serve a catalogue in this process for a ``with`` block."""
    models = SimpleModels(root, catalogue, capabilities or {})
    with Address(models, rules or PullRules(), clients or {}) as address:
        yield address
