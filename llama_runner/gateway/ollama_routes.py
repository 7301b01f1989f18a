"""Ollama's API: all routes of it, and those that only describe."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from aiohttp import web

from llama_runner.gateway.ollama_chat_generate_embed import Inference
from llama_runner.gateway.ollama_create_copy_delete import Management
from llama_runner.gateway.ollama_downloads import Downloads
from llama_runner.gateway.ollama_http import body_of, error_response, name_in, served_name
from llama_runner.gateway.ollama_models import listed_model, running_model, shown_model
from llama_runner.gateway.route_interface import client_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from llama_runner.gateway.created_models import CreatedStore
    from llama_runner.gateway.jobs import Jobs
    from llama_runner.gateway.ollama_downloads import PullRules
    from llama_runner.gateway.route_interface import Models
    from llama_runner.gateway.served_models import ModelFacts

Json = dict[str, Any]

VERSION = "0.12.6"
"""The version of Ollama whose API this is. Clients read it as numbers and refuse versions before 0.6.4."""
_STATES = ("ready", "stopping")


def add_routes(
    application: web.Application, gateway: Models, created: CreatedStore, rules: PullRules, jobs: Jobs
) -> Downloads:
    """Add the routes; at the start of the application, the models that clients made are served too.

    The rules of the returned downloads may be replaced when the configuration is read again.
    """
    downloads = Downloads(gateway, created, rules, jobs)
    asking, changing, described = Inference(gateway, downloads), Management(gateway, created), _Descriptions(gateway)
    router = application.router
    router.add_get("/", described.alive)
    router.add_get("/api/version", described.version)
    router.add_get("/api/tags", described.tags)
    router.add_get("/api/ps", described.running)
    router.add_post("/api/show", described.show)
    router.add_post("/api/chat", asking.chat)
    router.add_post("/api/generate", asking.generate)
    router.add_post("/api/embed", asking.embed)
    router.add_post("/api/embeddings", asking.embeddings)
    router.add_post("/api/pull", downloads.pull)
    router.add_delete("/api/delete", changing.delete)
    router.add_post("/api/copy", changing.copy)
    router.add_post("/api/create", changing.create)
    router.add_route("HEAD", "/api/blobs/{digest}", _no_blob)
    router.add_post("/api/blobs/{digest}", _not_supported)
    router.add_post("/api/push", _not_supported)
    for path in ("/api/me", "/api/status", "/api/signout", "/api/experimental/{rest:.*}"):
        router.add_route("*", path, _not_found)

    async def life(_: web.Application) -> AsyncIterator[None]:
        await gateway.declare(await created.load(gateway.catalogue))
        yield
        await jobs.close()

    application.cleanup_ctx.append(life)
    return downloads


class _Descriptions:
    """Handlers of the routes that only describe."""

    def __init__(self, models: Models) -> None:
        self._models = models

    async def alive(self, _: web.Request) -> web.Response:
        """``GET /``, also as ``HEAD``: what clients ask to see whether a server is there."""
        return web.Response(text="Ollama is running")

    async def version(self, _: web.Request) -> web.Response:
        """``GET /api/version``."""
        return web.json_response({"version": VERSION})

    async def tags(self, request: web.Request) -> web.Response:
        """``GET /api/tags``: the models that are on the disk."""
        client = client_of(request)
        allowed = [each for each in self._models.catalogue.listed() if client.may_use(each.name)]
        facts = await self._facts({each.declared for each in allowed})
        found = [listed_model(each, facts[each.declared]) for each in allowed if each.declared in facts]
        return web.json_response({"models": found})

    async def running(self, request: web.Request) -> web.Response:
        """``GET /api/ps``."""
        client = client_of(request)
        running = [each for each in self._models.running() if each.state in _STATES and client.may_use(each.name)]
        facts = await self._facts({each.name for each in running})
        found = [running_model(each, facts[each.name]) for each in running if each.name in facts]
        return web.json_response({"models": found})

    async def show(self, request: web.Request) -> web.Response:
        """``POST /api/show``."""
        body = await body_of(request)
        name = served_name(self._models, asked := name_in(body), request)
        facts = await self._models.facts(name)
        if facts is None:
            return error_response(404, f"model {asked!r} is not on the disk yet; pull it, or send it a request")
        served = self._models.catalogue.find(name)
        running = next((each for each in self._models.running() if each.name == served.declared), None)
        arrays = await asyncio.to_thread(_arrays, facts.file) if body.get("verbose") is True else None
        projector = None if facts.projector is None else await asyncio.to_thread(_header, facts.projector)
        context = None if running is None else running.context
        return web.json_response(shown_model(served, facts, context=context, arrays=arrays, projector=projector))

    async def _facts(self, declared: set[str]) -> dict[str, ModelFacts]:
        """Return the facts of the declared models that are on the disk."""
        names = sorted(declared)
        found = await asyncio.gather(*(self._models.facts(name) for name in names))
        return {name: facts for name, facts in zip(names, found, strict=True) if facts is not None}


def _header(path: Path) -> Json | None:
    """Return the metadata of a GGUF file; None if it cannot be read."""
    from llama_runner.core.errors import SourceError  # noqa: PLC0415 - for a few models
    from llama_runner.request.model_inspection import inspect  # noqa: PLC0415

    try:
        return inspect(path).metadata
    except SourceError:
        return None


def _arrays(path: Path) -> Json:
    """Return the arrays of the header of a GGUF file, such as the tokens; none if it cannot be read."""
    from gguf import GGUFReader  # noqa: PLC0415 - loads numpy, for `show --verbose` only

    try:
        fields = GGUFReader(path).fields.values()
        return {each.name: each.contents() for each in fields if each.types and each.types[0].name == "ARRAY"}
    except (OSError, ValueError, LookupError, TypeError):
        return {}


async def _no_blob(_: web.Request) -> web.Response:
    return web.Response(status=404)


async def _not_supported(_: web.Request) -> web.Response:
    return error_response(501, "not supported: models come from the Hub, from files and from the configuration")


async def _not_found(_: web.Request) -> web.Response:
    return error_response(404, "not found")
