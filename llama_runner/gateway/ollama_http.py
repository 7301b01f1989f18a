"""What the routes of Ollama's API share: reading a request, names, responses and streams of lines."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from aiohttp import web

from llama_runner.core.errors import LlamaRunnerError, SourceError, UsageError
from llama_runner.gateway.error_bodies import failure_of
from llama_runner.gateway.errors import BadRequest, Forbidden, GatewayError, UnknownModel
from llama_runner.gateway.ollama_message_translation import Json, wrong_type_error
from llama_runner.gateway.ollama_response_translation import UpstreamError, error_body, event_data, line, upstream_error
from llama_runner.gateway.request_bodies import check, parsed
from llama_runner.gateway.route_interface import client_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from llama_runner.gateway.request_log_entry import Exchange
    from llama_runner.gateway.route_interface import Models
    from llama_runner.gateway.upstream_client import Answer

NDJSON = "application/x-ndjson"
_CHAT = "/v1/chat/completions"
_LONGEST_NAME = 500
_LONGEST_EVENT = 64 << 20
"""Maximum bytes of one event: the last one of ``/completion`` repeats the prompt."""


async def body_of(request: web.Request) -> Json:
    """Return the JSON object of a request, whatever its content type. Raises ``BadRequest``, also for deep nesting."""
    content = await request.read()
    if not content.strip():
        raise BadRequest("missing request body")
    found = parsed(content)
    exchange = exchange_of(request)
    exchange.adapters, exchange.body = check(_CHAT, found), found
    return found


def name_in(body: Json, *members: str) -> str:
    """Return the name of a model in a request; ``name`` is the older word for ``model``. Raises ``BadRequest``."""
    for member in members or ("model", "name"):
        found = body.get(member)
        if found is not None and found != "":
            if not isinstance(found, str):
                raise wrong_type_error(member, "a text", found)
            if len(found) > _LONGEST_NAME:
                raise BadRequest(f"{member}: no model has a name of {len(found)} characters", field=member)
            return found
    raise BadRequest("model is required", field="model")


def served_name(models: Models, name: str, request: web.Request) -> str:
    """Return the name under which a model is served. Raises ``UnknownModel``, also where the client may not use it."""
    client = client_of(request)
    try:
        found = models.catalogue.find(name)
    except UnknownModel:
        found = None
    if found is None or not client.may_use_model(found):
        raise UnknownModel(name, [each.name for each in models.catalogue.listed() if client.may_use(each.name)])
    return found.name


def check_manages(request: web.Request, what: str) -> None:
    """Raise ``Forbidden`` unless the client may change what is served."""
    if not client_of(request).manages:
        raise Forbidden(f"this key may not {what} models")


def error_response(status: int, text: str) -> web.Response:
    """Return an error of Ollama's API."""
    return web.json_response(error_body(text), status=status)


def client_error(error: LlamaRunnerError) -> GatewayError:
    """Return an error of the store or the pipeline as one with a status: 400 for what the client named, else 500."""
    if isinstance(error, GatewayError):
        return error
    if isinstance(error, (UsageError, SourceError)):
        return BadRequest(str(error), hint=error.hint)
    return GatewayError(str(error), hint=error.hint)


def exchange_of(request: web.Request) -> Exchange:
    """Return what the access log and the metrics are told of a request."""
    found: Exchange = request["exchange"]
    return found


class LineStream:
    """A response of lines of JSON. The status is sent with the first line; after that an error is a line."""

    def __init__(self, request: web.Request) -> None:
        self._request = request
        self.response = web.StreamResponse(headers={"Content-Type": NDJSON})

    async def send(self, lines: list[Json]) -> None:
        """Send lines and wait until the client takes them. ``ConnectionError`` if it has left."""
        if not self.response.prepared:
            await self.response.prepare(self._request)
        if lines:
            data = b"".join(map(line, lines))
            exchange_of(self._request).wrote(data)
            await self.response.write(data)

    async def fail(self, error: GatewayError) -> web.StreamResponse:
        """End the stream with an error; before the first line, raise it."""
        if not self.response.prepared:
            raise error
        exchange_of(self._request).error = error.kind
        await self.send([error_body(failure_of(error).message)])
        return await self.end()

    async def end(self) -> web.StreamResponse:
        """End the stream."""
        await self.response.write_eof()
        return self.response


async def event_stream(pieces: AsyncIterator[bytes]) -> AsyncIterator[list[str]]:
    """Yield the data of the events of each piece that arrives from llama-server. Raises ``UpstreamError``."""
    rest: list[bytes] = []
    size = 0
    async for piece in pieces:
        rest.append(piece)
        size += len(piece)
        if size > _LONGEST_EVENT:
            raise UpstreamError(500, f"llama-server sent an event of more than {_LONGEST_EVENT} bytes")
        if b"\n" not in piece:
            continue
        *lines, last = b"".join(rest).split(b"\n")
        rest, size = [last], len(last)
        found = [data for text in lines if (data := event_data(text.decode("utf-8", "replace"))) is not None]
        if found:
            yield found


async def upstream_json(answer: Answer) -> Any:  # noqa: ANN401 - JSON is anything
    """Return the JSON of a response of llama-server. Raises ``UpstreamError`` for an error, and for no JSON."""
    content = await answer.read()
    if answer.status != web.HTTPOk.status_code:
        raise upstream_error(answer.status, content)
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        raise UpstreamError(500, "llama-server sent no JSON") from None
