"""The OpenAPI 3.1 document of the management API, made from the table of its routes. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_runner.gateway.management.json_schema_parts import ref
from llama_runner.gateway.management.openapi_operation import PREFIX
from llama_runner.gateway.management.schemas import SCHEMAS
from llama_runner.version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterable

    from llama_runner.gateway.management.openapi_operation import Operation, Parameter

Json = dict[str, Any]

_ERRORS = {
    400: "The request is wrong.",
    401: "A key is needed.",
    403: "The key, the origin or the host may not do this.",
    404: "What the request names does not exist.",
    409: "The store or the configuration is in a state that prevents it.",
    415: "The body is not application/json.",
    429: "Too many jobs or requests are in progress.",
    500: "The work failed.",
    502: "The Hub, or the process of a model, failed.",
    503: "The gateway shuts down, or memory does not suffice.",
    507: "The disk is full.",
}
_ALWAYS = (400, 401, 403, 500)
_TAGS = {
    "models": "Models: what is here and what is served.",
    "hub": "Search of the Hub, and what fits this machine.",
    "jobs": "Downloads, preparations and builds.",
    "sessions": "Conversations that are kept on disk.",
    "programs": "Builds of llama.cpp.",
    "configuration": "The configuration file.",
    "gateway": "State of the gateway and of the machine, events.",
}


def document(operations: Iterable[Operation]) -> Json:
    """Return the document."""
    paths: dict[str, Json] = {}
    for each in operations:
        paths.setdefault(PREFIX + each.path, {})[each.method.lower()] = _operation(each)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "llama_runner management API",
            "version": __version__,
            "description": "Manages the models, programs and configuration of one gateway.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/", "description": "This gateway."}],
        "security": [{"key": []}, {}],
        "tags": [{"name": name, "description": text} for name, text in _TAGS.items()],
        "paths": paths,
        "components": {
            "schemas": SCHEMAS,
            "securitySchemes": {
                "key": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A key that may manage. Requests on loopback need none.",
                }
            },
        },
    }


def _operation(each: Operation) -> Json:
    content = {"application/json": {"schema": each.answer}}
    if each.streams is not None:
        content["text/event-stream"] = {"schema": ref(each.streams)}
    if not each.answer:
        content.pop("application/json")
    found: Json = {
        "operationId": each.id,
        "tags": [each.tag],
        "summary": each.summary,
        "responses": {str(each.status): {"description": "Done.", "content": content}},
    }
    statuses = {*_ALWAYS, *each.errors} | ({415} if each.body is not None else set())
    for status in sorted(statuses):
        error = {"application/json": {"schema": ref("Error")}}
        found["responses"][str(status)] = {"description": _ERRORS[status], "content": error}
    if each.parameters:
        found["parameters"] = [_parameter(parameter) for parameter in each.parameters]
    if each.body is not None:
        found["requestBody"] = {
            "required": bool(each.body.get("required")),
            "content": {"application/json": {"schema": each.body}},
        }
    return found


def _parameter(each: Parameter) -> Json:
    schema = each.schema if each.default is None else {**each.schema, "default": each.default}
    return {
        "name": each.name,
        "in": each.place,
        "required": each.required or each.place == "path",
        "description": each.description,
        "schema": schema,
    }
