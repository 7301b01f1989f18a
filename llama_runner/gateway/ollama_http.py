"""What the routes of Ollama's API share: reading a request, names, responses and streams of lines."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NoReturn

import aiohttp
from aiohttp import web

from llama_runner.core.errors import LlamaRunnerError, SourceError, UsageError
from llama_runner.core.printable import printable
from llama_runner.gateway.errors import BadRequest, Forbidden, GatewayError, UnknownModel
from llama_runner.gateway.interface import client_of
from llama_runner.gateway.ollama_messages import Json, wrong_type_error
from llama_runner.gateway.ollama_names import find_name
from llama_runner.gateway.ollama_responses import UpstreamError, error_body, event_data, line

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from llama_runner.gateway.interface import Models

NDJSON = "application/x-ndjson"
_LONGEST_EVENT = 64 << 20
"""Maximum bytes of one event: the last one of ``/completion`` repeats the prompt."""


async def body_of(request: web.Request) -> Json:
    """Return the JSON object of a request, whatever its content type. Raises ``BadRequest``."""
    content = await request.read()
    if not content.strip():
        raise BadRequest("missing request body")
    try:
        found = json.loads(content, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"the body is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise wrong_type_error("body", "an object", found)
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def name_in(body: Json, *members: str) -> str:
    """Return the name of a model in a request; ``name`` is the older word for ``model``. Raises ``BadRequest``."""
    for member in members or ("model", "name"):
        found = body.get(member)
        if found is not None and found != "":
            if not isinstance(found, str):
                raise wrong_type_error(member, "a text", found)
            return found
    raise BadRequest("model is required", field="model")


def served_name(models: Models, name: str, request: web.Request) -> str:
    """Return the name under which a model is served. Raises ``UnknownModel``, also where the client may not use it."""
    found = find_name(name, models.catalogue.served)
    client = client_of(request)
    if found is None or not client.may_use(found):
        raise UnknownModel(name, [each.name for each in models.catalogue.listed() if client.may_use(each.name)])
    return found


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


def error_text(error: BaseException) -> str:
    """Return the text of an error with its hint."""
    if isinstance(error, LlamaRunnerError) and error.hint:
        return f"{error}; {error.hint}"
    if isinstance(error, (aiohttp.ClientError, TimeoutError)):
        return f"the process of the model ended while it answered: {printable(str(error), limit=200)}"
    return str(error)


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
            await self.response.write(b"".join(map(line, lines)))

    async def fail(self, error: BaseException) -> web.StreamResponse:
        """End the stream with an error; before the first line, raise it."""
        if not self.response.prepared:
            raise error
        await self.send([error_body(error_text(error))])
        return await self.end()

    async def end(self) -> web.StreamResponse:
        """End the stream."""
        await self.response.write_eof()
        return self.response


async def event_stream(content: aiohttp.StreamReader) -> AsyncIterator[list[str]]:
    """Yield the data of the events of each piece that arrives from llama-server. Raises ``UpstreamError``."""
    rest = b""
    async for piece in content.iter_any():
        *lines, rest = (rest + piece).split(b"\n")
        if len(rest) > _LONGEST_EVENT:
            raise UpstreamError(500, f"llama-server sent an event of more than {_LONGEST_EVENT} bytes")
        found = [data for text in lines if (data := event_data(text.decode("utf-8", "replace"))) is not None]
        if found:
            yield found


async def upstream_json(answer: aiohttp.ClientResponse) -> Any:  # noqa: ANN401 - JSON is anything
    """Return the JSON of a response of llama-server, or its text where it is none."""
    text = (await answer.read()).decode("utf-8", "replace")
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
