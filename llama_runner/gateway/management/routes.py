"""Makes routes of the table of operations: checks who asks and what is sent, calls the handler, sends JSON."""

from __future__ import annotations

import asyncio
import json
import os
from functools import cache
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from aiohttp import web

from llama_runner.gateway.access_control import is_same_origin
from llama_runner.gateway.client_rights import LOOPBACK
from llama_runner.gateway.errors import BadRequest, Forbidden, GatewayError
from llama_runner.gateway.management import openapi
from llama_runner.gateway.management.checks import check, from_text
from llama_runner.gateway.management.operation import PREFIX, Call, Operation
from llama_runner.gateway.management.operations import OPERATIONS
from llama_runner.gateway.management.running import Ticker
from llama_runner.gateway.request_bodies import parsed
from llama_runner.gateway.route_interface import client_of
from llama_runner.serving.port_owner import users_of_connection

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from llama_runner.gateway.client_rights import Client
    from llama_runner.gateway.management.manager import Manager

Json = dict[str, Any]
_MOST_BODY = 4 << 20
_OWN: WeakKeyDictionary[asyncio.BaseTransport, bool] = WeakKeyDictionary()
"""Whether a connection comes from the gateway's user or from root. The kernel takes its time for an answer."""


class WrongContentType(GatewayError):
    """The body is not JSON. A page of another origin can send other types without asking the browser first."""

    status = 415
    kind = "unsupported_media_type"
    permanent = True

    def __init__(self, found: str) -> None:
        super().__init__(f"the content type is {found!r}", hint="send Content-Type: application/json")


def add_routes(application: web.Application, manager: Manager) -> None:
    """Add the routes of the management API to an application."""
    router = application.router
    router.add_get(f"{PREFIX}/openapi.json", _document)
    for each in OPERATIONS:
        path = PREFIX + each.path.replace("{name}", "{name:.+}")
        router.add_route(each.method, path, _handler(manager, each))
    ticker = Ticker(manager)
    manager.events.on_reader = ticker.start
    manager.jobs.on_change = lambda job: manager.events.add("job", {"job": job.to_json()})

    async def life(_: web.Application) -> AsyncIterator[None]:
        yield
        ticker.stop()
        manager.close()

    application.cleanup_ctx.append(life)
    application.on_shutdown.append(_close_events(manager))


def _close_events(manager: Manager) -> Callable[[web.Application], Awaitable[None]]:
    async def close(_: web.Application) -> None:
        manager.events.close()

    return close


@cache
def _openapi() -> bytes:
    return json.dumps(openapi.document(OPERATIONS)).encode()


async def _document(_: web.Request) -> web.Response:
    return web.Response(body=_openapi(), content_type="application/json")


def _handler(manager: Manager, operation: Operation) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def handle(request: web.Request) -> web.StreamResponse:
        client = client_of(request)
        check_access(request, client)
        if operation.method != "GET" and client is LOOPBACK:
            await check_user(request)
        call = Call(client, _values(request, operation), await _body(request, operation), request)
        answer = await operation.handler(manager, call)
        if isinstance(answer, web.StreamResponse):
            return answer
        data = json.dumps(answer, default=str).encode()
        request["exchange"].wrote(data)
        return web.Response(body=data, status=operation.status, content_type="application/json")

    return handle


def check_access(request: web.Request, client: Client) -> None:
    """Raise ``Forbidden`` unless a client may manage everything, and its page is that of the gateway or has a key."""
    if not client.manages or "*" not in client.models:
        raise Forbidden("this key may not manage the gateway", hint="use a key with manage = true and every model")
    origin = request.headers.get("Origin")
    if client is LOOPBACK and origin is not None and not is_same_origin(origin, request.headers.get("Host", "")):
        raise Forbidden(f"pages of {origin!r} need a key to manage the gateway", hint="send Authorization: Bearer KEY")
    if client is LOOPBACK and request.headers.get("Sec-Fetch-Site") in ("cross-site", "same-site"):
        raise Forbidden("pages of another site need a key to manage the gateway", hint="send Authorization: Bearer KEY")


async def check_user(request: web.Request) -> None:
    """Raise ``Forbidden`` unless the process at the other end of a connection has the gateway's user, or is root's.

    Who changes the configuration can run programs with the rights of the gateway.
    """
    transport = request.transport
    ends = [transport.get_extra_info(name) for name in ("sockname", "peername")] if transport is not None else []
    if len(ends) != 2 or not all(isinstance(end, tuple) for end in ends):  # noqa: PLR2004 - a UNIX socket has a mode
        return
    assert transport is not None
    is_own = _OWN.get(transport)
    if is_own is None:
        users = await asyncio.to_thread(users_of_connection, ends[0][1], ends[1][1])
        is_own = _OWN[transport] = users is None or (bool(users) and users <= {os.geteuid(), 0})
    if not is_own:
        raise Forbidden("another user of this machine needs a key to do this", hint="send Authorization: Bearer KEY")


def _values(request: web.Request, operation: Operation) -> Json:
    """Return the parameters of a request; ``BadRequest``."""
    found: Json = {}
    for each in operation.parameters:
        sources: dict[str, Any] = {"path": request.match_info, "query": request.query, "header": request.headers}
        text = sources[each.place].get(each.name)
        if text is None and each.required:
            raise BadRequest(f"{each.name} is required", field=each.name)
        found[each.name] = each.default if text is None else from_text(text, each.schema, each.name)
    known = {each.name for each in operation.parameters if each.place == "query"}
    for name in request.query:
        if name not in known:
            hint = f"the parameters are {', '.join(sorted(known))}" if known else "there are none"
            raise BadRequest(f"unknown parameter {name[:80]!r}", field=name[:80], hint=hint)
    return found


async def _body(request: web.Request, operation: Operation) -> Json:
    """Return the JSON object of a request that fits its schema; ``BadRequest``, ``WrongContentType``."""
    if operation.method == "GET":
        return {}
    if request.content_type != "application/json" and (request.can_read_body or request.content_length):
        raise WrongContentType(request.content_type)
    if request.method != "DELETE" and request.content_type != "application/json":
        raise WrongContentType(request.content_type)
    content = await request.read()
    if len(content) > _MOST_BODY:
        raise BadRequest(f"the body has {len(content)} bytes")
    found = parsed(content) if content.strip() else {}
    check(found, operation.body or {"type": "object", "properties": {}, "additionalProperties": False}, "")
    return found
