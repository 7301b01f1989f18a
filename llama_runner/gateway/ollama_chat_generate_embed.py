"""The routes of Ollama's API that ask a model: chat, generate, embed, embeddings."""

from __future__ import annotations

import json
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from aiohttp import web

from llama_runner.gateway.errors import BadRequest, GatewayError, ServerLost
from llama_runner.gateway.ollama_http import (
    LineStream,
    body_of,
    event_stream,
    exchange_of,
    name_in,
    upstream_json,
)
from llama_runner.gateway.ollama_message_translation import Json, wrong_type_error
from llama_runner.gateway.ollama_models import shown_template
from llama_runner.gateway.ollama_request_translation import (
    ModelTraits,
    chat_request,
    embedding_inputs,
    generate_request,
    load_only,
    shortened,
    streams,
    wanted_context,
)
from llama_runner.gateway.ollama_response_translation import ResponseTranslator, Shape, UpstreamError, upstream_error
from llama_runner.gateway.ollama_times import FOREVER, keep_alive_seconds, time_text
from llama_runner.gateway.ollama_truncation import shortened_chat, truncated_tokens
from llama_runner.gateway.request_bodies import with_variant
from llama_runner.gateway.route_interface import client_of
from llama_runner.gateway.upstream_client import AnswerLost

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from llama_runner.gateway.ollama_downloads import Downloads
    from llama_runner.gateway.ollama_request_translation import UpstreamRequest
    from llama_runner.gateway.route_interface import Lease, Models
    from llama_runner.gateway.served_models import ModelFacts
    from llama_runner.gateway.sessions.session_turn import SessionTurn
    from llama_runner.gateway.upstream_client import Answer

    Translate = Callable[[Json, ModelTraits], UpstreamRequest]


class Inference:
    """Handlers of the routes. ``downloads`` fetches a model on the first request for it."""

    def __init__(self, models: Models, downloads: Downloads) -> None:
        self._models, self._downloads = models, downloads

    async def chat(self, request: web.Request) -> web.StreamResponse:
        """``POST /api/chat``."""
        return await self._answer(request, "chat", chat_request)

    async def generate(self, request: web.Request) -> web.StreamResponse:
        """``POST /api/generate``."""
        return await self._answer(request, "generate", generate_request)

    async def _answer(self, request: web.Request, shape: Shape, translate: Translate) -> web.StreamResponse:
        began, body = time.monotonic_ns(), await body_of(request)
        if "X-Session-Mode" in request.headers:
            hint = "use /v1/chat/completions"
            raise BadRequest("X-Session-Mode is not for Ollama's API", field="X-Session-Mode", hint=hint)
        name = name_in(body)
        streamed, keep = streams(body), _keep_alive(request, body)
        translator = ResponseTranslator(shape, name, created=_now)
        if load_only(body, chat=shape == "chat"):
            return await self._load(request, name, keep, translator, body)
        served = await self._served_name(name, request)
        if (facts := await self._models.facts(served)) is not None:
            translate(body, _traits(name, facts, None))  # what is wrong is said before a model is loaded for it
        async with self._acquire(served, keep, request, body) as lease:
            wanted = translate(body, _traits(name, lease.facts, lease.context))
            translator.load_ns = int(lease.waited * 1e9)
            exchange_of(request).ignored += _ignored(wanted.ignored, body, lease.context)
            sent = with_variant(wanted.path, wanted.body, lease.model)
            turn = await _turn(request, lease, wanted.path, sent)
            async with self._upstream(lease, wanted.path, sent, shorten=body.get("truncate") is True) as answer:
                if streamed:
                    return await _stream(request, lease, answer, translator, began, turn)
                read = await _read(lease, answer)
                found = translator.whole(read, time.monotonic_ns() - began)
                if turn is not None:
                    await turn.whole(json.dumps(read).encode())
                    turn.ended()
        exchange_of(request).tokens = _tokens(found)
        return web.json_response(found, headers={} if turn is None else turn.headers())

    async def _served_name(self, name: str, request: web.Request) -> str:
        exchange = exchange_of(request)
        exchange.model = name
        served: str = await self._downloads.served_name(name, request)
        exchange.model = served
        return served

    async def _load(
        self, request: web.Request, name: str, keep: float | None, translator: ResponseTranslator, body: Json
    ) -> web.Response:
        """Load or unload a model: a request without messages or a prompt."""
        served = await self._served_name(name, request)
        if keep == 0:
            await self._models.unload(served)
            return web.json_response(translator.loaded(unloaded=True))
        async with self._acquire(served, keep, request, body) as lease:
            lease.answered = True
        return web.json_response(translator.loaded())

    @asynccontextmanager
    async def _acquire(self, served: str, keep: float | None, request: web.Request, body: Json) -> AsyncIterator[Lease]:
        keep_alive, context = -1 if keep == FOREVER else keep, wanted_context(body)
        exchange = exchange_of(request)
        async with self._models.acquire(
            served, keep_alive=keep_alive, client=client_of(request), context=context, adapters=exchange.adapters
        ) as lease:
            exchange.lease = lease
            yield lease

    @asynccontextmanager
    async def _upstream(self, lease: Lease, path: str, body: Json, *, shorten: bool) -> AsyncIterator[Answer]:
        """Send a request; with ``shorten`` without the oldest turns where it is too long. Raises ``UpstreamError``."""
        while True:
            async with lease.request("POST", path, json=body) as answer:
                if answer.status == web.HTTPOk.status_code:
                    yield answer
                    return
                error = upstream_error(answer.status, await answer.read())
            if not shorten or error.tokens is None or "messages" not in body:
                raise error
            shorter = shortened_chat(body["messages"], error.tokens)
            if shorter is None:
                raise error
            body = {**body, "messages": shorter}

    async def embed(self, request: web.Request) -> web.Response:
        """``POST /api/embed``."""
        began, body = time.monotonic_ns(), await body_of(request)
        name, texts, dimensions = name_in(body), embedding_inputs(body), _dimensions(body)
        async with self._embedding_lease(request, body, name) as lease:
            vectors, tokens = await _vectors(lease, texts, truncate=body.get("truncate") is not False)
            waited = lease.waited
        exchange_of(request).tokens = {"prompt": tokens}
        return web.json_response(
            {
                "model": name,
                "embeddings": [shortened(vector, dimensions) for vector in vectors],
                "total_duration": time.monotonic_ns() - began,
                "load_duration": int(waited * 1e9),
                "prompt_eval_count": tokens,
            }
        )

    async def embeddings(self, request: web.Request) -> web.Response:
        """``POST /api/embeddings``: one vector, as the model gives it."""
        body = await body_of(request)
        prompt = body.get("prompt") or ""
        if not isinstance(prompt, str):
            raise wrong_type_error("prompt", "a text", prompt)
        async with self._embedding_lease(request, body, name_in(body)) as lease:
            vectors, tokens = await _vectors(lease, [prompt] if prompt else [], truncate=True, normalized=False)
        exchange_of(request).tokens = {"prompt": tokens}
        return web.json_response({"embedding": next(iter(vectors), [])})

    @asynccontextmanager
    async def _embedding_lease(self, request: web.Request, body: Json, name: str) -> AsyncIterator[Lease]:
        keep = _keep_alive(request, body)
        served = await self._served_name(name, request)
        async with self._acquire(served, keep, request, body) as lease:
            yield lease


async def _turn(request: web.Request, lease: Lease, path: str, body: Json) -> SessionTurn | None:
    """Return the turn of a session that a request is; None without one."""
    if lease.sessions is None:
        return None
    from llama_runner.gateway.sessions.session_turn import begin_turn  # noqa: PLC0415 - only for sessions

    return await begin_turn(lease, request, path, body)


async def _stream(
    request: web.Request,
    lease: Lease,
    answer: Answer,
    translator: ResponseTranslator,
    began: int,
    turn: SessionTurn | None,
) -> web.StreamResponse:
    """Translate a stream of events into a stream of lines; each write waits until the client takes it."""
    stream = LineStream(request)
    stream.response.headers.update({} if turn is None else turn.headers())
    exchange_of(request).streams = True
    try:
        async for events in event_stream(_pieces(lease, answer)):
            if turn is not None:
                turn.take(events)
            await stream.send([each for data in events for each in translator.feed(data)])
        if not translator.ended:
            raise ServerLost(lease.model.name)
        lines = translator.finish(time.monotonic_ns() - began)
        exchange_of(request).tokens = _tokens(lines[-1])
        if turn is not None:
            turn.ended()
        await stream.send(lines)
    except GatewayError as error:
        return await stream.fail(error)
    return await stream.end()


async def _pieces(lease: Lease, answer: Answer) -> AsyncIterator[bytes]:
    """Yield the bytes of a response as they come. Raises ``ServerLost`` when the process ends."""
    while True:
        try:
            piece = await answer.piece()
        except AnswerLost as error:
            lease.answered = False
            raise ServerLost(lease.model.name) from error
        if not piece:
            return
        yield piece


def _tokens(last: Json) -> dict[str, int]:
    """Return the counts of the last line, as the metrics name them."""
    return {"prompt": last["prompt_eval_count"], "generated": last["eval_count"]}


async def _vectors(
    lease: Lease, texts: list[str], *, truncate: bool, normalized: bool = True
) -> tuple[list[list[float]], int]:
    """Return a vector for each text, and the number of their tokens. Raises ``UpstreamError``."""
    if not texts:
        lease.answered = True
        return [], 0
    body: Json = {"input": texts, "encoding_format": "float"}
    if not normalized:
        body["embd_normalize"] = -1
    try:
        return await _embed_once(lease, body)
    except UpstreamError as error:
        if not truncate or error.tokens is None or not error.tokens[1]:
            raise
        limit = error.tokens[1]
    cut = [await _cut(lease, text, limit) for text in texts]
    return await _embed_once(lease, {**body, "input": cut})


async def _embed_once(lease: Lease, body: Json) -> tuple[list[list[float]], int]:
    found = await _post(lease, "/v1/embeddings", body)
    try:
        rows = sorted(found["data"], key=lambda row: int(row["index"]))
        return [[float(value) for value in row["embedding"]] for row in rows], int(found["usage"]["prompt_tokens"])
    except (LookupError, TypeError, ValueError):
        raise UpstreamError(500, "llama-server sent no embeddings") from None


async def _cut(lease: Lease, text: str, limit: int) -> list[int]:
    """Return the tokens of a text, with the special ones of the model, at most ``limit``."""
    whole = await _post(lease, "/tokenize", {"content": text, "add_special": True})
    bare = await _post(lease, "/tokenize", {"content": text})
    try:
        return truncated_tokens(whole["tokens"], bare["tokens"], limit)
    except (LookupError, TypeError):
        raise UpstreamError(500, "llama-server sent no tokens") from None


async def _post(lease: Lease, path: str, body: Json) -> Any:  # noqa: ANN401 - JSON is anything
    async with lease.request("POST", path, json=body) as answer:
        return await _read(lease, answer)


async def _read(lease: Lease, answer: Answer) -> Any:  # noqa: ANN401 - JSON is anything
    try:
        return await upstream_json(answer)
    except AnswerLost as error:
        lease.answered = False
        raise ServerLost(lease.model.name) from error


def _keep_alive(request: web.Request, body: Json) -> float | None:
    """Return ``keep_alive`` in seconds. That of a client that may not manage models changes nothing."""
    found = keep_alive_seconds(body.get("keep_alive"))
    if found is None or client_of(request).manages:
        return found
    exchange_of(request).ignored += ("keep_alive",)
    return None


def _ignored(options: tuple[str, ...], body: Json, context: int | None) -> tuple[str, ...]:
    """Return the options that change nothing: ``num_ctx`` is not one of them where the model has so much."""
    wanted = wanted_context(body)
    fits = wanted is not None and context is not None and wanted <= context
    return tuple(name for name in options if name != "num_ctx" or not fits)


def _dimensions(body: Json) -> int:
    found = body.get("dimensions") or 0
    if isinstance(found, bool) or not isinstance(found, int) or found < 0:
        raise wrong_type_error("dimensions", "a number that is not negative", found)
    return found


def _traits(name: str, facts: ModelFacts, context: int | None) -> ModelTraits:
    return ModelTraits(name, facts.capabilities, context, shown_template(facts))


def _now() -> str:
    return time_text(time.time())
