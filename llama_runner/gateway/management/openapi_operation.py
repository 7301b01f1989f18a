"""What a route of the management API is: one value, from which the route and its description are made."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Literal

from llama_runner.core.immutable_values import Value, field
from llama_runner.gateway.management.json_schema_parts import TEXT

if TYPE_CHECKING:
    from aiohttp import web

    from llama_runner.gateway.access_control import Client
    from llama_runner.gateway.management.shared_by_handlers import Manager

Json = dict[str, Any]

PREFIX = "/api/v1"


class Parameter(Value):
    """A parameter in the path, the query or a header."""

    name: str
    description: str
    schema: Json = field(default_factory=lambda: dict(TEXT))
    place: Literal["path", "query", "header"] = "query"
    required: bool = False
    default: Any = None


class Call(Value, eq=False):
    """One request: who sends it, and its parameters and body, which fit their schemas."""

    client: Client
    values: Json
    """The parameters by name; an optional one that was not sent has its default."""
    body: Json
    request: web.Request


Handler = Callable[["Manager", Call], Coroutine[Any, Any, Any]]
"""Returns the JSON of the answer, or an answer that streams."""


class Operation(Value, eq=False):
    """One route."""

    method: Literal["GET", "POST", "PUT", "DELETE"]
    path: str
    """Below ``PREFIX``."""
    id: str
    tag: str
    summary: str
    handler: Handler
    answer: Json
    """The schema of the answer."""
    parameters: tuple[Parameter, ...] = ()
    body: Json | None = None
    status: int = 200
    errors: tuple[int, ...] = ()
    """Statuses of errors that only this operation has."""
    streams: str | None = None
    """The schema of the events, by name, where the answer is a stream of events too."""
