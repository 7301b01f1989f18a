"""Routes of OpenAI's and Anthropic's APIs, of llama-server per model, and of the gateway itself."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

from aiohttp import web

from llama_runner.gateway import request_bodies
from llama_runner.gateway.errors import BadRequest, Forbidden
from llama_runner.gateway.relay import Passed, relay
from llama_runner.gateway.route_interface import client_of
from llama_runner.version import __version__

if TYPE_CHECKING:
    from llama_runner.gateway.gateway import Gateway
    from llama_runner.gateway.ollama_downloads import Downloads
    from llama_runner.gateway.request_log_entry import Exchange
    from llama_runner.gateway.served_models import ServedModel

PASSED = (
    *("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/embeddings", "/v1/rerank", "/v1/reranking"),
    *("/v1/messages", "/v1/messages/count_tokens", "/v1/chat/completions/input_tokens"),
    *("/tokenize", "/detokenize", "/v1/audio/transcriptions"),
)
"""Routes whose body names the model."""
_OF_MODEL_GET = ("props", "slots", "metrics")
_OF_MODEL_POST = ("infill", "apply-template", "tokenize", "detokenize", "completion", "embedding")


class Routes:
    """Handlers of the routes."""

    def __init__(self, gateway: Gateway, downloads: Downloads, *, fetch_images: bool) -> None:
        self._gateway, self._downloads, self._fetch_images = gateway, downloads, fetch_images

    def add_to(self, application: web.Application) -> None:
        """Add the routes to an application."""
        router = application.router
        for path in PASSED:
            router.add_post(path, self._pass)
        for path in ("/v1/models", "/models"):
            router.add_get(path, self._models)
        router.add_get("/v1/models/{id:.+}", self._model)
        router.add_get("/models/{id:.+}/{tail:" + "|".join(_OF_MODEL_GET) + "}", self._get_of_model)
        router.add_post("/models/{id:.+}/{tail:" + "|".join(_OF_MODEL_POST) + "}", self._post_of_model)
        router.add_post("/models/{id:.+}/{action:load|unload}", self._load)
        router.add_get("/health", self._health)
        router.add_get("/running", self._running)
        router.add_get("/metrics", self._metrics)

    async def _pass(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        if request.content_type == "multipart/form-data":
            name = request_bodies.model_of_form(body, request.headers.get("Content-Type", ""))
            if not name:
                raise BadRequest("the form has no field model", field="model")
            return await self._relay(request, Passed(name, request.path, body))
        found = request_bodies.parsed(body)
        name = request_bodies.model_name(found)
        request["exchange"].adapters = request_bodies.check(request.path, found, fetch_images=self._fetch_images)
        return await self._relay(request, Passed(name, request.path, body, found))

    async def _relay(self, request: web.Request, passed: Passed) -> web.StreamResponse:
        """Pass a request on; a model of the allow-list that is not here is downloaded first."""
        exchange: Exchange = request["exchange"]
        exchange.model, exchange.body = passed.model, passed.json
        if passed.method == "POST":  # a web page may send a GET
            exchange.model = await self._downloads.served_name(passed.model, request)
        else:
            exchange.model = self._gateway.find(passed.model, client_of(request)).name
        return await relay(request, self._gateway, passed, exchange.model)

    async def _get_of_model(self, request: web.Request) -> web.StreamResponse:
        path = "/" + request.match_info["tail"]
        return await self._relay(request, Passed(request.match_info["id"], path, method="GET"))

    async def _post_of_model(self, request: web.Request) -> web.StreamResponse:
        path, body = "/" + request.match_info["tail"], await request.read()
        found = request_bodies.parsed(body)
        request["exchange"].adapters = request_bodies.check(path, found, fetch_images=self._fetch_images)
        return await self._relay(request, Passed(request.match_info["id"], path, body, found))

    async def _load(self, request: web.Request) -> web.Response:
        """Load a model, or stop it once its requests have ended."""
        client = client_of(request)
        if not client.manages:
            raise Forbidden("this key may not load and unload models")
        name = request.match_info["id"]
        if request.match_info["action"] == "unload":
            name = self._gateway.find(name, client).name
            return web.json_response({"model": name, "unloaded": await self._gateway.unload(name)})
        name = await self._downloads.served_name(name, request)
        async with self._gateway.acquire(name, client=client) as lease:
            lease.answered = True
            return web.json_response({"model": name, "loaded": True, "seconds": round(lease.waited, 3)})

    async def _models(self, request: web.Request) -> web.Response:
        models = self._gateway.listed(client_of(request))
        if _is_anthropic(request):
            listed = [self._for_anthropic(model) for model in models]
            page, more = _page(listed, request)
            first, last = (page[0]["id"], page[-1]["id"]) if page else (None, None)
            return web.json_response({"data": page, "has_more": more, "first_id": first, "last_id": last})
        return web.json_response({"object": "list", "data": [self._for_openai(model) for model in models]})

    async def _model(self, request: web.Request) -> web.Response:
        model = self._gateway.find(request.match_info["id"], client_of(request))
        shown = self._for_anthropic(model) if _is_anthropic(request) else self._for_openai(model)
        return web.json_response(shown)

    def _for_openai(self, model: ServedModel) -> dict[str, Any]:
        return {
            "id": model.name,
            "object": "model",
            "created": int(self._gateway.started_at),
            "owned_by": "llama-runner",
        }

    def _for_anthropic(self, model: ServedModel) -> dict[str, Any]:
        made = dt.datetime.fromtimestamp(int(self._gateway.started_at), dt.timezone.utc)
        created = made.isoformat().replace("+00:00", "Z")
        return {"type": "model", "id": model.name, "display_name": model.name, "created_at": created}

    async def _health(self, _request: web.Request) -> web.Response:
        """Say whether requests are accepted. Models are loaded on demand, so that none has to be ready."""
        closing = self._gateway.scheduler.is_closing
        return web.json_response({"status": "closing" if closing else "ok"}, status=503 if closing else 200)

    async def _running(self, request: web.Request) -> web.Response:
        client = client_of(request)
        models = []
        for model in self._gateway.running():
            names = [name for name, served in self._gateway.catalogue.served.items() if served.declared == model.name]
            if any(map(client.may_use, names)):
                shown = {**model.__dict__, "names": [name for name in names if client.may_use(name)]}
                models.append({key: value for key, value in shown.items() if client.manages or key != "pid"})
        available = self._gateway.scheduler.available or {}
        return web.json_response({"models": models, "memory": available, "version": __version__})

    async def _metrics(self, request: web.Request) -> web.Response:
        if not client_of(request).manages:
            raise Forbidden("this key may not see the metrics of all models")
        gateway = self._gateway
        text = gateway.metrics.text(gateway.running(), gateway.scheduler.available or {}, gateway.started_at)
        return web.Response(text=text, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})


def _is_anthropic(request: web.Request) -> bool:
    return "anthropic-version" in request.headers


def _page(listed: list[dict[str, Any]], request: web.Request) -> tuple[list[dict[str, Any]], bool]:
    """Return the part of a list that ``limit``, ``after_id`` and ``before_id`` ask for, and whether there is more."""
    ids = [each["id"] for each in listed]
    try:
        limit = int(request.query.get("limit", 1000))
    except ValueError:
        limit = 0
    if not 1 <= limit <= 1000:  # noqa: PLR2004 - as Anthropic
        raise BadRequest("limit is not a number from 1 to 1000", field="limit")
    if (before := request.query.get("before_id")) in ids:
        part = listed[: ids.index(str(before))]
        return part[-limit:], len(part) > limit
    after = request.query.get("after_id")
    part = listed[ids.index(after) + 1 :] if after in ids else listed
    return part[:limit], len(part) > limit
