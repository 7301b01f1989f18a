"""Passes requests on to the process of a model, and its answer back as bytes.

What changes on the way: the name of the model in answers, statuses and bodies of errors. An answer that streams is
written as it comes; reading stops while the client does not read. When the client is gone the connection to the process
is closed, which ends the work on it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from aiohttp import HttpVersion11, web

from llama_runner.core.immutable_values import Value
from llama_runner.gateway import error_bodies, errors, request_bodies
from llama_runner.gateway.adapters import FIELD
from llama_runner.gateway.anthropic_messages import MessageStream, chat_request, message_bytes
from llama_runner.gateway.route_interface import client_of
from llama_runner.gateway.upstream_client import AnswerLost

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from llama_runner.gateway.gateway import Gateway
    from llama_runner.gateway.process_lease import Lease
    from llama_runner.gateway.request_log_entry import Exchange
    from llama_runner.gateway.sessions.session_turn import SessionTurn
    from llama_runner.gateway.upstream_client import Answer

    Translate = Callable[[bytes], bytes]
    """Changes complete events, or a whole answer."""

_EVENTS = "text/event-stream"
_MESSAGES, _CHAT = "/v1/messages", "/v1/chat/completions"
_UNSENT = 1 << 16
"""Bytes that a client has not taken; nothing more is received for it then."""


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
    _check_stateful(request, gateway, passed, served)
    async with gateway.acquire(served, client=client_of(request), adapters=exchange.adapters) as lease:
        exchange.lease = lease
        headers = {"Content-Type": request.headers.get("Content-Type", "application/json")} if passed.body else None
        query = request.rel_url.raw_query_string
        path = f"{passed.path}?{query}" if query else passed.path
        sent, turn = await _body(request, passed, lease)
        as_message = passed.path == _MESSAGES and bool(lease.adapters.all.names)
        if as_message:
            path, sent = _CHAT, json.dumps(chat_request(json.loads(sent), lease.model.sampling)).encode()
        rename = _renaming(lease, passed.model)
        async with lease.request(passed.method, path, data=sent, headers=headers) as answer:
            kind = answer.content_type or "application/json"
            if answer.status < 400 and kind.startswith(_EVENTS):  # noqa: PLR2004
                translate = MessageStream(passed.model).translated if as_message else rename
                return await _stream(request, answer, translate, lease, turn)
            body = await _read(answer, lease)
            if answer.status >= 400:  # noqa: PLR2004 - an error
                raise AnswerError(error_bodies.failure_of_answer(answer.status, body))
        shown = {"Content-Type": kind}
        body = message_bytes(body, passed.model) if as_message else body if rename is None else rename(body)
        if turn is not None:
            body = await turn.whole(body)
            turn.ended()
            shown |= turn.headers()
    exchange.wrote(body)
    return web.Response(body=body, status=answer.status, headers=shown)


def _check_stateful(request: web.Request, gateway: Gateway, passed: Passed, served: str) -> None:
    """Refuse what needs sessions for a model that keeps none, before it is loaded."""
    previous = passed.path == "/v1/responses" and (passed.json or {}).get("previous_response_id") is not None
    if not previous and "X-Session-Mode" not in request.headers:
        return
    declared = gateway.catalogue.declared[gateway.catalogue.find(served).declared]
    if declared.sessions is None:
        field = "previous_response_id" if previous else "X-Session-Mode"
        raise errors.BadRequest(
            f"{field} is not supported for {served}: it keeps no sessions",
            field=field,
            hint="send the whole conversation, or set sessions = true for the model",
        )


class AnswerError(errors.GatewayError):
    """llama-server answered with an error."""

    def __init__(self, failure: error_bodies.Failure) -> None:
        self.failure = failure
        super().__init__(failure.message)


async def _body(request: web.Request, passed: Passed, lease: Lease) -> tuple[bytes, SessionTurn | None]:
    """Return what the process is sent, and the turn of a session that it is."""
    if passed.json is None:
        return passed.body, None
    changed, turn = passed.json, None
    if lease.sessions is not None and lease.sessions.takes_slot(passed.method, passed.path):
        from llama_runner.gateway.sessions.session_turn import begin_turn  # noqa: PLC0415 - only for sessions

        turn = await begin_turn(lease, request, passed.path, changed)
        changed = changed if turn is None else turn.body
    changed = request_bodies.with_variant(passed.path, changed, lease.model)
    if FIELD in changed:  # what the process gets is the list of its ids
        changed = {name: value for name, value in changed.items() if name != FIELD}
    if turn is not None:
        turn.body = changed
    return passed.body if changed is passed.json else json.dumps(changed).encode(), turn


def _renaming(lease: Lease, name: str) -> Translate | None:
    """Return what calls the model as the client does, in members of JSON; None where the process does so too."""
    old = b'"model":%s' % json.dumps(lease.child.name).encode()  # in a text the quotes are escaped
    new = b'"model":%s' % json.dumps(name).encode()
    return None if old == new else lambda data: data.replace(old, new)


async def _read(answer: Answer, lease: Lease) -> bytes:
    try:
        return await answer.read()
    except AnswerLost as error:
        lease.answered = False
        raise errors.ServerLost(lease.model.name) from error


async def _stream(
    request: web.Request, answer: Answer, translate: Translate | None, lease: Lease, turn: SessionTurn | None
) -> web.StreamResponse:
    """Write events as they come. The rest of an event that was not finished is left out before an error."""
    exchange: Exchange = request["exchange"]
    exchange.streams = True
    response = _EventResponse(headers={"Content-Type": _EVENTS, "Cache-Control": "no-cache"})
    response.headers["X-Accel-Buffering"] = "no"
    response.headers.update({} if turn is None else turn.headers())
    writer, client = await response.prepare(request), request.transport
    assert writer is not None
    if client is None:
        raise ConnectionResetError
    events = _Events(answer, client, exchange, translate, turn, is_chunked=request.version >= HttpVersion11)
    last = b""
    try:
        events.take(await answer.piece())
        await response.write(events.held())  # with the headers
        while not await answer.pass_on(events.take):
            await events.store()
            await writer.drain()
        events.end()
        await events.store()
        if turn is not None:
            turn.ended()
        last = events.held()
    except AnswerLost:
        lease.answered = False
        failure = error_bodies.failure_of(errors.ServerLost(lease.model.name))
        exchange.error = failure.kind
        protocol = error_bodies.protocol_of(request.path)
        await response.write(error_bodies.stream_error(failure, protocol, exchange.request_id))
    await response.write_eof(last)
    return response


class _EventResponse(web.StreamResponse):
    """An answer whose headers are sent with its first events: the client wakes up once, as with llama-server."""

    _send_headers_immediately = False


class _Events:
    """Passes whole events on to the connection of a client. The end of an answer waits until its history has it."""

    __slots__ = ("_answer", "_client", "_exchange", "_held", "_is_chunked", "_rest", "_translate", "_turn", "_unstored")

    def __init__(
        self,
        answer: Answer,
        client: asyncio.Transport,
        exchange: Exchange,
        translate: Translate | None,
        turn: SessionTurn | None,
        *,
        is_chunked: bool,
    ) -> None:
        self._answer, self._client, self._exchange, self._is_chunked = answer, client, exchange, is_chunked
        self._translate, self._turn = translate, turn
        self._rest = self._unstored = b""
        self._held: bytes | None = b""
        """The first and the last events, which are sent with the head and the end of the answer."""

    def held(self) -> bytes:
        """Return what is to be sent with the head or the end. Later events are sent as they come."""
        data, self._held = self._held or b"", None
        return data

    def take(self, data: bytes) -> bool:
        """Write the events that are complete. Return whether the client takes more."""
        if self._rest:
            data = self._rest + data
        if data.endswith(b"\n\n"):
            self._rest = b""
        else:
            end = data.rfind(b"\n\n") + 2
            if end < 2:  # noqa: PLR2004 - no event is complete
                self._rest = data
                return True
            data, self._rest = data[:end], data[end:]
        self._write(data)
        is_full = self._unstored or self._client.get_write_buffer_size() > _UNSENT or self._client.is_closing()
        return not is_full

    def end(self) -> None:
        """Write what came after the last event."""
        if self._rest:
            self._write(self._rest)

    async def store(self) -> None:
        """Write the answer into the history, where it has come to its end, and that end to the client."""
        if self._turn is not None and self._unstored:
            await self._turn.store()
            data, self._unstored = self._unstored, b""
            self._send(data)

    def _write(self, data: bytes) -> None:
        if self._translate is not None and not (data := self._translate(data)):
            return
        if self._turn is not None:
            data = self._turn.feed(data)
            if self._unstored or self._turn.is_to_store:
                self._unstored += data
                return
        self._send(data)

    def _send(self, data: bytes) -> None:
        self._exchange.wrote(data)
        if self._held is not None or self._answer.at_end:
            self._held = (self._held or b"") + data
        elif not self._client.is_closing():
            self._client.write(b"%x\r\n%b\r\n" % (len(data), data) if self._is_chunked else data)
