"""The HTTP application: every request is checked, answered by a route, measured and written to the access log."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from aiohttp import web

from llama_runner.core.immutable_values import Value, field
from llama_runner.gateway import errors, prompt_log, protocol_errors
from llama_runner.gateway.access_control import Keys, is_allowed_origin, is_local_host, key_digest, key_in
from llama_runner.gateway.client_rights import LOOPBACK, Client
from llama_runner.gateway.created_models import CreatedStore
from llama_runner.gateway.exchange import Exchange
from llama_runner.gateway.jobs import Jobs
from llama_runner.gateway.management.manager import Manager, Process
from llama_runner.gateway.management.routes import add_routes as add_management_routes
from llama_runner.gateway.ollama_downloads import PullRules
from llama_runner.gateway.ollama_routes import add_routes
from llama_runner.gateway.relay import AnswerError
from llama_runner.gateway.routes import Routes

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from llama_runner.gateway.gateway import Gateway
    from llama_runner.gateway.served_models import Catalogue
    from llama_runner.gateway.tracing import Tracing

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_PUBLIC = ("/health",)
_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_METHODS = "GET, HEAD, POST, PUT, DELETE, OPTIONS"
_MAX_BODY = 64 << 20
_STRANGER = Client(name="unknown", models=())


class Settings(Value):
    """What the application checks and writes down."""

    keys: Keys = field(default_factory=dict)
    insecure: bool = False
    """Whether other machines need no key."""
    fetch_images: bool = False
    """Whether llama-server may fetch images from the addresses that clients give."""
    max_body: int = _MAX_BODY
    """Bytes of a body."""
    pulls: PullRules = field(default_factory=PullRules)
    """What clients may download."""
    access_log: Callable[[str], None] | None = None
    """Gets a line of JSON for each request."""
    log_prompts: bool = False
    """Whether prompts and answers are in these lines."""


class Application:
    """Answers requests at every address of the gateway."""

    def __init__(self, gateway: Gateway, settings: Settings, process: Process | None = None) -> None:
        self.gateway, self.settings = gateway, settings
        self.tracing: Tracing | None = None
        self._in_progress: Counter[str] = Counter()
        self.web = web.Application(middlewares=[self._around], client_max_size=settings.max_body)
        self.web.on_response_prepare.append(self._add_headers)
        self._declared = gateway.catalogue
        """Of the configuration; what clients made is served beside it."""
        self._created = CreatedStore(gateway.root)
        self.jobs = Jobs()
        self._downloads = add_routes(self.web, gateway, self._created, settings.pulls, self.jobs)
        manager = Manager(gateway, self._created, self._downloads, self.jobs, process or Process())
        add_management_routes(self.web, manager)
        Routes(gateway, self._downloads, fetch_images=settings.fetch_images).add_to(self.web)

    async def change(self, settings: Settings, catalogue: Catalogue) -> None:
        """Go on with another configuration. Models that clients made are served beside those of the catalogue."""
        self.settings, self._downloads.rules, self._declared = settings, settings.pulls, catalogue
        await self.gateway.declare((await self._created.load()).merged(catalogue))

    @web.middleware
    async def _around(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Check a request, answer it, and turn errors into those of its protocol."""
        given = request.headers.get("X-Request-Id", "")
        request_id = given if _ID.fullmatch(given) else secrets.token_hex(12)
        exchange = Exchange(request_id, _STRANGER.name, keeps_text=self.settings.log_prompts)
        request["exchange"] = exchange
        status = 499
        try:
            response = await self._answered(request, handler)
            status = response.status
            if isinstance(response, web.Response) and not exchange.sent and isinstance(response.body, bytes):
                exchange.wrote(response.body)
        except asyncio.CancelledError:  # the client is gone
            exchange.error = exchange.error or "client_gone"
            raise
        except ConnectionError:
            exchange.error = exchange.error or "client_gone"
            raise
        finally:
            self._note(request, exchange, status)
        return response

    async def _answered(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            client = self._check(request)
            request["client"], request["exchange"].client = client, client.name
            if self._created.is_outdated:  # another gateway of this root may have made names
                await self.gateway.declare((await self._created.load()).merged(self._declared))
            if request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers:
                return web.Response(status=204)
            return await self._limited(request, handler, client)
        except AnswerError as error:
            failure = error.failure
        except errors.GatewayError as error:
            failure = protocol_errors.failure_of(error)
        except web.HTTPRequestEntityTooLarge:
            limit = self.settings.max_body
            failure = protocol_errors.failure_of(errors.RequestTooLarge(f"the body is larger than {limit} bytes"))
        except web.HTTPException as error:
            if error.status < 400:  # noqa: PLR2004 - a redirection
                raise
            text = {404: f"there is no {request.path}", 405: f"{request.path} does not take {request.method}"}
            message = text.get(error.status, error.reason.lower())
            failure = protocol_errors.Failure(error.status, "not_found", message, permanent=True)
        except (asyncio.CancelledError, ConnectionError):
            raise
        except Exception as error:  # noqa: BLE001 - a bug of ours ends one request, not the gateway
            failure = protocol_errors.Failure(500, "internal_error", f"{type(error).__name__}: {error}")
        return self._error(request, failure)

    def _error(self, request: web.Request, failure: protocol_errors.Failure) -> web.StreamResponse:
        exchange: Exchange = request["exchange"]
        exchange.error = failure.kind
        anthropic = "anthropic-version" in request.headers
        body = protocol_errors.error_body(
            failure, protocol_errors.protocol_of(request.path, anthropic=anthropic), exchange.request_id
        )
        data = json.dumps(body).encode()
        exchange.wrote(data)
        return web.Response(
            body=data,
            status=failure.status,
            headers={"Content-Type": "application/json", **protocol_errors.error_headers(failure)},
        )

    def _check(self, request: web.Request) -> Client:
        """Return who sends a request; ``Unauthorized`` and ``Forbidden``."""
        origin = request.headers.get("Origin")
        if origin is not None and not is_allowed_origin(origin):
            raise errors.Forbidden(f"pages of {origin!r} may not use the gateway")
        is_local = self._is_local(request)
        if is_local and not is_local_host(request.headers.get("Host", "")) and not self._is_socket(request):
            raise errors.Forbidden(
                f"the host {request.headers.get('Host', '')!r} is not this machine", hint="use localhost or 127.0.0.1"
            )
        preflight = request.method == "OPTIONS"
        key = key_in(request.headers)
        known = None if key is None else self.settings.keys.get(key_digest(key))
        if known is not None:
            return known
        if is_local or self.settings.insecure:
            return LOOPBACK if is_local else Client(name="anonymous")
        if request.path in _PUBLIC or preflight:
            return _STRANGER
        raise errors.Unauthorized(
            "the key is not known" if key else "no key was sent", hint="send Authorization: Bearer KEY"
        )

    @staticmethod
    def _is_socket(request: web.Request) -> bool:
        name = request.transport.get_extra_info("sockname") if request.transport is not None else None
        return isinstance(name, (str, bytes))

    def _is_local(self, request: web.Request) -> bool:
        """Return whether a request came over an address that only this machine reaches."""
        name = request.transport.get_extra_info("sockname") if request.transport is not None else None
        if isinstance(name, tuple) and name:
            return is_local_host(f"[{name[0]}]" if ":" in str(name[0]) else str(name[0]))
        return isinstance(name, (str, bytes))

    async def _limited(self, request: web.Request, handler: Handler, client: Client) -> web.StreamResponse:
        """Answer a request within the number that a key may have in progress."""
        if client.requests is None or request.method != "POST":
            return await handler(request)
        if self._in_progress[client.name] >= client.requests:
            raise errors.TooManyRequests(client.requests)
        self._in_progress[client.name] += 1
        try:
            return await handler(request)
        finally:
            self._in_progress[client.name] -= 1

    async def _add_headers(self, request: web.Request, response: web.StreamResponse) -> None:
        exchange: Exchange | None = request.get("exchange")
        if exchange is not None:
            response.headers["X-Request-Id"] = response.headers["Request-Id"] = exchange.request_id
        origin = request.headers.get("Origin")
        if origin is not None and is_allowed_origin(origin):
            response.headers["Access-Control-Allow-Origin"] = origin
            response.headers["Vary"] = "Origin"
            if request.method == "OPTIONS":
                asked = request.headers.get("Access-Control-Request-Headers", "*")
                response.headers["Access-Control-Allow-Methods"] = _METHODS
                response.headers["Access-Control-Allow-Headers"] = asked

    def _note(self, request: web.Request, exchange: Exchange, status: int) -> None:
        """Write a request to the access log and to the metrics."""
        seconds = time.monotonic() - exchange.began
        resource = request.match_info.route.resource
        route = resource.canonical if resource is not None else "other"
        model = exchange.model if exchange.model in self.gateway.catalogue.served else ""
        metrics = self.gateway.metrics
        metrics.count("requests_total", model=model or "", route=route, status=str(status))
        if model:
            metrics.observe("request_seconds", seconds, model=model)
            if exchange.lease is not None:
                metrics.observe("queue_seconds", exchange.waited, model=model)
            if exchange.first_byte is not None:
                metrics.observe("first_byte_seconds", exchange.first_byte, model=model)
                if exchange.streams and exchange.error is None:
                    metrics.observe("first_token_seconds", exchange.first_byte, model=model)
            for kind, count in exchange.tokens.items():
                metrics.count(f"{kind}_tokens_total", count, model=model)
        if self.tracing is not None:
            trusted = {} if exchange.client == _STRANGER.name else request.headers
            self.tracing.record(
                exchange, method=request.method, route=route, status=status, seconds=seconds, headers=trusted
            )
        if self.settings.access_log is not None:
            line = self._line(request, exchange, status, seconds)
            if exchange.answer is not None and exchange.body is not None:
                line |= prompt_log.logged_texts(exchange.body, bytes(exchange.answer), key_in(request.headers))
            self.settings.access_log(json.dumps(line))

    @staticmethod
    def _line(request: web.Request, exchange: Exchange, status: int, seconds: float) -> dict[str, Any]:
        first = exchange.first_byte
        line: dict[str, Any] = {
            "time": round(time.time(), 3),
            "request_id": exchange.request_id,
            "client": exchange.client,
            "method": request.method,
            "path": request.path,
            "model": exchange.model,
            "status": status,
            "seconds": round(seconds, 4),
            "first_byte": None if first is None else round(first, 4),
            "waited": round(exchange.waited, 4),
            "bytes": exchange.sent,
            "error": exchange.error,
        }
        if exchange.ignored:
            line["ignored"] = list(exchange.ignored)
        return line | {f"{kind}_tokens": count for kind, count in exchange.tokens.items()}
