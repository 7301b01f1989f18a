"""The routes of Ollama's API that change what is served: delete, copy, create."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from aiohttp import web

from llama_runner.core.errors import LlamaRunnerError
from llama_runner.gateway.errors import BadRequest
from llama_runner.gateway.ollama_http import (
    LineStream,
    body_of,
    check_manages,
    client_error,
    error_response,
    name_in,
    served_name,
)
from llama_runner.gateway.ollama_message_translation import wrong_type_error
from llama_runner.gateway.ollama_models import shown_template
from llama_runner.gateway.ollama_names import find_name, plain_name
from llama_runner.gateway.ollama_request_translation import sampling_options, streams
from llama_runner.gateway.route_interface import completed
from llama_runner.gateway.served_models import ServedModel

if TYPE_CHECKING:
    from pathlib import Path

    from llama_runner.gateway.created_models import CreatedStore
    from llama_runner.gateway.ollama_message_translation import Json
    from llama_runner.gateway.route_interface import Models
    from llama_runner.gateway.served_models import ModelFacts

_NOT_MADE = ("files", "adapters", "quantize", "messages", "modelfile", "path")
"""Members of ``/api/create`` that no variant can have."""
_LONGEST_NAME = 200


class Management:
    """Handlers of the routes."""

    def __init__(self, models: Models, created: CreatedStore) -> None:
        self._models, self._created = models, created

    async def delete(self, request: web.Request) -> web.Response:
        """``DELETE /api/delete``: a name that a client made ends; of another model the file is deleted."""
        check_manages(request, "delete")
        name = served_name(self._models, name_in(await body_of(request)), request)
        await completed(self._delete(name))
        return web.Response()

    async def _delete(self, name: str) -> None:
        served = self._models.catalogue.served[name]
        if not self._created.has_name(name):
            if served.name != served.declared:
                raise BadRequest(f"{name} is declared in the configuration", hint="remove it there")
            facts = await self._models.facts(name)
            if facts is None and not self._created.has(name):
                raise BadRequest(f"{name} is declared in the configuration, and is not on the disk")
            if facts is not None:
                await self._models.unload(name)
                try:
                    await asyncio.to_thread(_remove_file, self._models.root, facts.file)
                except LlamaRunnerError as error:
                    raise client_error(error) from error
        if self._created.has(name):
            try:
                await self._created.forget(name, self._models)
            except LlamaRunnerError as error:
                raise client_error(error) from error

    async def copy(self, request: web.Request) -> web.Response:
        """``POST /api/copy``: one more name for a model."""
        check_manages(request, "copy")
        body = await body_of(request)
        source = served_name(self._models, name_in(body, "source"), request)
        target = self._new_name(name_in(body, "destination"))
        if target != source:
            served = self._models.catalogue.find(source)
            await completed(self._serve(served.replace(name=target, is_alias=True, hidden=False)))
        return web.Response()

    async def create(self, request: web.Request) -> web.StreamResponse:
        """``POST /api/create``: a variant, which is a model with a system prompt and parameters of its own."""
        check_manages(request, "create")
        body = await body_of(request)
        streamed = streams(body)
        for member in _NOT_MADE:
            if body.get(member):
                return error_response(501, f"{member}: only from, system and parameters make a model here")
        target = self._new_name(name_in(body))
        source = served_name(self._models, name_in(body, "from"), request)
        facts = await self._models.facts(source)
        if (template := body.get("template")) and not _is_template_of(template, facts):
            return error_response(501, "template: only the model's own is supported")
        served, ignored = _variant(self._models.catalogue.find(source), target, body)
        statuses = [{"status": f"parameter {name} is ignored"} for name in ignored]
        if facts is not None:
            statuses.append({"status": f"using existing layer {facts.digest}"})
        await completed(self._serve(served))
        statuses += [{"status": "writing manifest"}, {"status": "success"}]
        if not streamed:
            return web.json_response(statuses[-1])
        stream = LineStream(request)
        await stream.send(statuses)
        return await stream.end()

    def _new_name(self, name: str) -> str:
        """Return the name of a model to make. Raises ``BadRequest`` for one that a client did not make so."""
        plain = plain_name(name)
        if not plain.strip() or len(plain) > _LONGEST_NAME or not plain.isprintable():
            raise BadRequest(f"no model can be called {name[:_LONGEST_NAME]!r}", field="model")
        found = find_name(plain, self._models.catalogue.served)
        if found is not None and not self._created.has_name(found):
            raise BadRequest(f"a model is called {found} already", field="model", hint="choose another name")
        return found or plain

    async def _serve(self, served: ServedModel) -> None:
        try:
            await self._created.change(lambda made: made.with_name(served))
        except LlamaRunnerError as error:
            raise client_error(error) from error
        await self._models.declare(self._models.catalogue.with_name(served))


def _variant(base: ServedModel, name: str, body: Json) -> tuple[ServedModel, tuple[str, ...]]:
    """Return a variant, and the names of the parameters that it cannot have."""
    system = body.get("system") or base.system
    if system is not None and not isinstance(system, str):
        raise wrong_type_error("system", "a text", system)
    sampling, ignored = sampling_options(body.get("parameters"))
    served = ServedModel(
        name=name,
        declared=base.declared,
        sampling={**base.sampling, **sampling},
        template=base.template,
        system=system,
        base=base.base,
        adapters=base.adapters,
    )
    return served, ignored


def _is_template_of(template: Any, facts: ModelFacts | None) -> bool:  # noqa: ANN401 - as the client sent it
    if not isinstance(template, str):
        raise wrong_type_error("template", "a text", template)
    if facts is None:
        return False
    return template.split() in ((facts.template or "").split(), shown_template(facts).split())


def _remove_file(root: Path, file: Path) -> None:
    """Delete a model file of the store; with it everything of its source where it is the only model file of it."""
    from llama_runner.api_management import Management  # noqa: PLC0415 - loads the library
    from llama_runner.library.declared_models import PulledByClient  # noqa: PLC0415

    library = Management(root).models
    for model in library.list():
        for artifact in model.files:
            if file != root / artifact.path and root / artifact.path not in file.parents:
                continue
            bucket = model.directories[0].split("/")[2]
            name = bucket if len(model.files) == 1 else f"{bucket}:{artifact.path.rpartition('/')[2]}"
            try:
                library.remove(name)
            except PulledByClient:  # which is what is deleted
                library.remove(name, force=True)
            return
    raise BadRequest(
        f"{file.name} is not a file of the store", hint="delete the file, or its entry in the configuration"
    )
