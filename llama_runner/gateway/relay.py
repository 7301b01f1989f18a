"""Passes requests on to the process of a model, and its answer back as bytes.

What changes on the way: the name of the model in answers, statuses and bodies of errors. An answer that streams is
written as it comes; reading stops while the client does not read. When the client is gone the connection to the process
is closed, which ends the work on it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import aiohttp
from aiohttp import web

from llama_runner.core.immutable_values import Value
from llama_runner.gateway import errors, protocol_errors, request_bodies
from llama_runner.gateway.route_interface import client_of

if TYPE_CHECKING:
    from llama_runner.gateway.exchange import Exchange
    from llama_runner.gateway.gateway import Gateway, Lease

_EVENTS = "text/event-stream"
_LOST = (aiohttp.ClientError, OSError)


class Passed(Value):
    """A request for a process."""

    model: str
    """The name that the client gave."""
    path: str
    """The path at the process."""
    body: bytes = b""
    json: dict[str, Any] | None = None
    """The body, where it is a JSON object."""
    method: str = "POST"


async def relay(request: web.Request, gateway: Gateway, passed: Passed, served: str) -> web.StreamResponse:
    """Send a request to the process of the model ``served`` and return its answer. Raises ``GatewayError``."""
    exchange: Exchange = request["exchange"]
    async with gateway.acquire(served, client=client_of(request)) as lease:
        exchange.lease = lease
        headers = {"Accept-Encoding": "identity"}
        headers |= {"Content-Type": request.headers.get("Content-Type", "application/json")} if passed.body else {}
        async with lease.request(
            passed.method, passed.path, data=_body(passed, lease) or None, headers=headers, params=request.query
        ) as answer:
            kind = answer.headers.get("Content-Type", "application/json")
            if answer.status < 400 and kind.startswith(_EVENTS):  # noqa: PLR2004
                return await _stream(request, answer, _names(lease, passed.model), lease)
            body = await _read(answer, lease)
            if answer.status >= 400:  # noqa: PLR2004 - an error
                raise AnswerError(protocol_errors.failure_of_answer(answer.status, body))
    old, new = _names(lease, passed.model)
    body = body.replace(old, new)
    exchange.wrote(body)
    return web.Response(body=body, status=answer.status, headers={"Content-Type": kind})


class AnswerError(errors.GatewayError):
    """llama-server answered with an error."""

    def __init__(self, failure: protocol_errors.Failure) -> None:
        self.failure = failure
        super().__init__(failure.message)


def _body(passed: Passed, lease: Lease) -> bytes:
    if passed.json is None:
        return passed.body
    changed = request_bodies.with_variant(passed.path, passed.json, lease.model)
    return passed.body if changed is passed.json else json.dumps(changed).encode()


def _names(lease: Lease, name: str) -> tuple[bytes, bytes]:
    """Return how a process and the client call the model, as members of JSON. In a text the quotes are escaped."""
    return b'"model":%s' % json.dumps(lease.child.name).encode(), b'"model":%s' % json.dumps(name).encode()


async def _read(answer: aiohttp.ClientResponse, lease: Lease) -> bytes:
    try:
        return await answer.read()
    except _LOST as error:
        lease.answered = False
        raise errors.ServerLost(lease.model.name) from error


async def _stream(
    request: web.Request, answer: aiohttp.ClientResponse, names: tuple[bytes, bytes], lease: Lease
) -> web.StreamResponse:
    """Write events as they come. The rest of an event that was not finished is left out before an error."""
    exchange: Exchange = request["exchange"]
    exchange.streams = True
    response = web.StreamResponse(headers={"Content-Type": _EVENTS, "Cache-Control": "no-cache"})
    response.headers["X-Accel-Buffering"] = "no"
    await response.prepare(request)
    (old, new), rest = names, b""
    while True:
        try:
            chunk = await answer.content.readany()
        except _LOST:
            lease.answered = False
            failure = protocol_errors.failure_of(errors.ServerLost(lease.model.name))
            exchange.error = failure.kind
            protocol = protocol_errors.protocol_of(request.path)
            await response.write(protocol_errors.stream_error(failure, protocol, exchange.request_id))
            break
        data = rest + chunk
        end = len(data) if not chunk else data.rfind(b"\n\n") + 2
        if end < 2 and chunk:  # noqa: PLR2004 - no event is complete
            rest = data
            continue
        data, rest = data[:end], data[end:]
        if data:
            data = data.replace(old, new)
            exchange.wrote(data)
            await response.write(data)
        if not chunk:
            break
        del chunk, data  # a thousand streams that wait for their next event keep none
    await response.write_eof()
    return response
