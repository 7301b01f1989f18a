"""Makes routes of the table of operations: checks who asks and what is sent, calls the handler, sends JSON."""

from __future__ import annotations

import json
from functools import cache
from typing import TYPE_CHECKING, Any

from aiohttp import web

from llama_runner.gateway.access_control import LOOPBACK, check_may_manage, check_user_of_connection
from llama_runner.gateway.errors import BadRequest, GatewayError
from llama_runner.gateway.management import openapi
from llama_runner.gateway.management.check_json_schema import check, check_depth, from_text
from llama_runner.gateway.management.openapi_operation import PREFIX, Call, Operation
from llama_runner.gateway.management.route_table import OPERATIONS
from llama_runner.gateway.management.running_models import Ticker
from llama_runner.gateway.request_bodies import parsed
from llama_runner.gateway.route_interface import client_of, completed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from llama_runner.gateway.management.shared_by_handlers import Manager

Json = dict[str, Any]
_MOST_BODY = 4 << 20


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
    manager.jobs.on_remove = lambda id_: manager.events.add("job_removed", {"id": id_})
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
        check_may_manage(request, client)
        if operation.method != "GET" and client is LOOPBACK:
            await check_user_of_connection(request)
        call = Call(client, _values(request, operation), await _body(request, operation), request)
        work = operation.handler(manager, call)
        answer = await (work if operation.method == "GET" else completed(work))
        if isinstance(answer, web.StreamResponse):
            return answer
        data = json.dumps(answer, default=str).encode()
        request["exchange"].wrote(data)
        return web.Response(body=data, status=operation.status, content_type="application/json")

    return handle


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
    check_depth(found)
    check(found, operation.body or {"type": "object", "properties": {}, "additionalProperties": False}, "")
    return found
