"""The HTTP application: every request is checked, answered by a route, measured and written to the access log."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from aiohttp import web

from llama_runner.core.immutable_values import Value, field
from llama_runner.gateway import error_bodies, errors, prompt_log
from llama_runner.gateway.access_control import (
    LOOPBACK,
    Client,
    is_allowed_origin,
    is_local_host,
    is_same_origin,
    key_in,
)
from llama_runner.gateway.created_models import CreatedStore
from llama_runner.gateway.jobs import Jobs
from llama_runner.gateway.management.route_handlers import add_routes as add_management_routes
from llama_runner.gateway.management.shared_by_handlers import Manager, Process
from llama_runner.gateway.ollama_downloads import PullRules
from llama_runner.gateway.ollama_routes import add_routes
from llama_runner.gateway.page_routes import PageRoutes, is_public
from llama_runner.gateway.page_sign_in import SignIns, id_in
from llama_runner.gateway.read_keys_and_limits import Keys, key_digest
from llama_runner.gateway.relay import AnswerError
from llama_runner.gateway.request_limits import LARGEST_BODY, RequestLimits
from llama_runner.gateway.request_log_entry import Exchange
from llama_runner.gateway.routes import Routes
from llama_runner.web import page_files

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from llama_runner.gateway.gateway import Gateway
    from llama_runner.gateway.served_models import Catalogue
    from llama_runner.gateway.tracing import Tracing

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_PUBLIC = ("/health",)
_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_METHODS = "GET, HEAD, POST, PUT, DELETE, OPTIONS"
_STRANGER = Client(name="unknown", models=())


class Settings(Value):
    """What the application checks and writes down."""

    keys: Keys = field(default_factory=dict)
    insecure: bool = False
    """Whether other machines need no key."""
    fetch_images: bool = False
    """Whether llama-server may fetch images from the addresses that clients give."""
    max_body: int = LARGEST_BODY
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
        self._limits = RequestLimits()
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
        self._sign_ins = SignIns()
        PageRoutes(self._sign_ins, lambda: self.settings.keys).add_to(self.web)

    async def change(self, settings: Settings, catalogue: Catalogue) -> None:
        """Go on with another configuration. Models that clients made are served beside those of the catalogue."""
        self.settings, self._downloads.rules, self._declared = settings, settings.pulls, catalogue
        await self.gateway.declare(await self._created.load(catalogue))

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
            digest = self._known_key(request)
            client = self._check(request, digest)
            request["client"], request["exchange"].client = client, client.name
            request["namespace"] = digest or client.name
            request["may_go_on"] = partial(self._may_go_on, request, client)
            if self._created.is_outdated:  # another gateway of this root may have made names
                await self.gateway.declare(await self._created.load(self._declared))
            if request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers:
                return web.Response(status=204)
            with self._limits.count(client, request.method):
                return await handler(request)
        except AnswerError as error:
            failure = error.failure
        except errors.GatewayError as error:
            failure = error_bodies.failure_of(error)
        except web.HTTPRequestEntityTooLarge:
            limit = self.settings.max_body
            failure = error_bodies.failure_of(errors.RequestTooLarge(f"the body is larger than {limit} bytes"))
        except web.HTTPException as error:
            if error.status < 400:  # noqa: PLR2004 - a redirection
                raise
            text = {404: f"there is no {request.path}", 405: f"{request.path} does not take {request.method}"}
            message = text.get(error.status, error.reason.lower())
            failure = error_bodies.Failure(error.status, "not_found", message, permanent=True)
        except (asyncio.CancelledError, ConnectionError):
            raise
        except Exception as error:  # noqa: BLE001 - a bug of ours ends one request, not the gateway
            failure = error_bodies.Failure(500, "internal_error", f"{type(error).__name__}: {error}")
        return self._error(request, failure)

    def _error(self, request: web.Request, failure: error_bodies.Failure) -> web.StreamResponse:
        exchange: Exchange = request["exchange"]
        exchange.error = failure.kind
        anthropic = "anthropic-version" in request.headers
        body = error_bodies.error_body(
            failure, error_bodies.protocol_of(request.path, anthropic=anthropic), exchange.request_id
        )
        data = json.dumps(body).encode()
        exchange.wrote(data)
        return web.Response(
            body=data,
            status=failure.status,
            headers={"Content-Type": "application/json", **error_bodies.error_headers(failure)},
        )

    def _may_go_on(self, request: web.Request, client: Client) -> bool:
        """Return whether a request would be let in now as it was: its key or sign-in may have ended."""
        try:
            return self._check(request, self._known_key(request, is_use=False)) == client
        except errors.GatewayError:
            return False

    def _known_key(self, request: web.Request, *, is_use: bool = True) -> str | None:
        """Return the digest of the key of a request, or of its sign-in; None unless that is one of the keys."""
        key = key_in(request.headers)
        if key is not None:
            digest: str | None = key_digest(key)
        else:
            id_ = id_in(request)
            digest = None if id_ is None else self._sign_ins.key_digest(id_, is_use=is_use)
        return digest if digest in self.settings.keys else None

    def _check(self, request: web.Request, digest: str | None) -> Client:
        """Return who sends a request with the digest of a key; ``Unauthorized`` and ``Forbidden``."""
        origin, host = request.headers.get("Origin"), request.headers.get("Host", "")
        if origin is not None and not is_allowed_origin(origin):
            own = is_same_origin(origin, host) and (digest is not None or is_public(request))
            if not own:
                raise errors.Forbidden(f"pages of {origin!r} may not use the gateway")
        is_local = self._is_local(request)
        if is_local and not is_local_host(host) and not self._is_socket(request):
            raise errors.Forbidden(f"the host {host!r} is not this machine", hint="use localhost or 127.0.0.1")
        if digest is not None:
            return self.settings.keys[digest]
        if is_local or self.settings.insecure:
            return LOOPBACK if is_local else Client(name="anonymous")
        if request.path in _PUBLIC or request.method == "OPTIONS" or is_public(request):
            return _STRANGER
        raise errors.Unauthorized(
            "the key is not known" if key_in(request.headers) else "no key was sent",
            hint="send Authorization: Bearer KEY",
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

    async def _add_headers(self, request: web.Request, response: web.StreamResponse) -> None:
        exchange: Exchange | None = request.get("exchange")
        if exchange is not None:
            response.headers["X-Request-Id"] = response.headers["Request-Id"] = exchange.request_id
        if is_public(request):
            response.headers.update(page_files.HEADERS)
            response.headers["Content-Security-Policy"] = page_files.page().policy
        elif request.path.startswith("/api/v1/"):
            response.headers["X-Content-Type-Options"] = "nosniff"
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
        model = self.gateway.catalogue.counted_name(exchange.model or "")
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
        if exchange.session is not None:
            line |= {"session": exchange.session.outcome, "session_source": exchange.session.source}
        if exchange.ignored:
            line["ignored"] = list(exchange.ignored)
        return line | {f"{kind}_tokens": count for kind, count in exchange.tokens.items()}
