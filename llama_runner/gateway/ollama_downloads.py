"""Downloads of Ollama's API: ``/api/pull``, and the download on the first request for a model of the allow-list."""

from __future__ import annotations

import re
from contextlib import aclosing
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from aiohttp import web

from llama_runner.core.errors import LlamaRunnerError
from llama_runner.core.immutable_values import Value
from llama_runner.core.printable_text import printable
from llama_runner.gateway.errors import BadRequest, Forbidden, GatewayError, UnknownModel
from llama_runner.gateway.jobs import Jobs, Work
from llama_runner.gateway.ollama_http import LineStream, body_of, check_manages, client_error, name_in, served_name
from llama_runner.gateway.ollama_names import LATEST, find_name, plain_name
from llama_runner.gateway.ollama_progress import ProgressTranslator
from llama_runner.gateway.ollama_request_translation import streams
from llama_runner.gateway.route_interface import client_of
from llama_runner.gateway.served_models import DeclaredModel
from llama_runner.gateway.start_runner_call_worker import Question

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from llama_runner.gateway.created_models import CreatedStore
    from llama_runner.gateway.ollama_message_translation import Json
    from llama_runner.gateway.route_interface import Models


_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w./-]+)?(:[\w.-]+)?", re.ASCII)


def check_repository(name: str) -> None:
    """Raise ``BadRequest`` unless a name is that of a repository on the Hub: clients must not name paths or URLs."""
    if not _REPOSITORY.fullmatch(name):
        raise BadRequest(
            f"{printable(repr(name), limit=200)} is no name of a repository on the Hub",
            field="model",
            hint="use ORG/MODEL, ORG/MODEL:QUANTIZATION, or hf.co/ before one of these",
        )


class PullRules(Value):
    """What the configuration says of downloads."""

    allow: tuple[str, ...] = ()
    """Glob patterns of the names that are downloaded on the first request: ``unsloth/*:Q4_K_M``."""
    largest: int | None = None
    """Maximum bytes of a download."""

    def allows(self, name: str) -> bool:
        """Return whether a name is downloaded on the first request. Case counts; a pattern has to fit all of it."""
        plain = plain_name(name)
        return any(fnmatchcase(plain, plain_name(pattern)) for pattern in self.allow)


class Downloads:
    """Pulls models and serves them from then on."""

    def __init__(self, models: Models, created: CreatedStore, rules: PullRules, jobs: Jobs) -> None:
        self._models, self._created, self._jobs, self.rules = models, created, jobs, rules

    async def served_name(self, name: str, request: web.Request) -> str:
        """Return the name under which a model is served; one of the allow-list is downloaded first.

        A client that leaves does not stop that download. Raises ``UnknownModel``, ``PullFailed``.
        """
        try:
            return served_name(self._models, name, request)
        except UnknownModel:
            known = find_name(name, self._models.catalogue.served) is not None
            if known or not self.rules.allows(name) or not client_of(request).may_use(plain_name(name)):
                raise
            check_repository(plain_name(name))
        async for _ in self._pulled(name, update=False, keep=True):
            pass
        return served_name(self._models, name, request)

    async def pull(self, request: web.Request) -> web.StreamResponse:
        """``POST /api/pull``."""
        check_manages(request, "download")
        body = await body_of(request)
        name, streamed = name_in(body), streams(body)
        if not client_of(request).may_use(plain_name(name)):
            raise Forbidden(f"this key may not use {printable(name)}")
        statuses = self._pulled(name, update=True, keep=False)
        if not streamed:
            return web.json_response([status async for status in statuses][-1])
        stream = LineStream(request)
        async with aclosing(statuses):
            try:
                async for status in statuses:
                    await stream.send([status])
            except GatewayError as error:
                return await stream.fail(error)
        return await stream.end()

    async def _pulled(self, name: str, *, update: bool, keep: bool) -> AsyncGenerator[Json, None]:
        """Yield the statuses of a pull; before its last one, ``success``, the model is served."""
        job = await self._jobs.start(self.work(name, update=update), keep=keep)
        yield {"status": "pulling manifest"}
        translator = ProgressTranslator()
        sent: dict[str, Json] = {}
        async with aclosing(self._jobs.follow(job)) as events:
            async for event in events:
                for status in translator.statuses(event):
                    if sent.get(status["status"]) != status:
                        sent[status["status"]] = status
                        yield status
        yield {"status": "writing manifest"}
        yield {"status": "success"}

    def work(self, name: str, *, update: bool, is_stored: bool = False) -> Work:
        """Return the job that fetches or makes a model and serves it. ``update``: ask the Hub what the name means now.

        Raises ``BadRequest`` for what is neither a served model, nor stored, nor the name of a repository.
        """
        found = find_name(name, self._models.catalogue.served)
        source: str = plain_name(name)
        keywords: Json = {"update": True} if update else {}
        if found is not None:
            declared = self._models.catalogue.declared[self._models.catalogue.served[found].declared]
            source, own = _source_of(declared)
            keywords = own | (keywords if found in self._created.current.pulled else {})
        elif not is_stored:
            check_repository(source)
        arguments = {"name": source, "keywords": keywords, "largest": self.rules.largest}
        question = Question(root=self._models.root, call="download", arguments=arguments)

        async def serve(_: Any) -> None:  # noqa: ANN401 - the files
            await self._serve(name, source)

        return Work(kind="download", name=source, question=question, finish=serve)

    async def _serve(self, name: str, source: str) -> None:
        """Serve a pulled model, under the name that the client gave it if it has none yet."""
        name, catalogue = name.removesuffix(LATEST), self._models.catalogue
        if find_name(name, catalogue.served) is None:
            try:
                await self._created.change(lambda made: made.with_pulled(name, source))
            except LlamaRunnerError as error:
                raise client_error(error) from error
            catalogue = self._models.catalogue.with_model(DeclaredModel(name=name, source=source))
        await self._models.declare(catalogue)


def _source_of(declared: DeclaredModel) -> tuple[str, Json]:
    """Return what makes a declared model: the name and the keywords for the pipeline."""
    if declared.source is not None:
        return str(declared.source), dict(declared.keywords)
    keywords = dict(declared.keywords)
    if keywords.pop("demo", False):
        return "demo", keywords
    raise BadRequest(f"{declared.name} is declared by its parts", hint="llama-runner prepare makes it")
