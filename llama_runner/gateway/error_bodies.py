"""Errors in the shape of each protocol: OpenAI, Anthropic, Ollama. Pure.

``status``, ``kind`` and the texts come from a ``GatewayError`` or from an answer of llama-server.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Literal

from llama_runner.core.immutable_values import Value
from llama_runner.core.printable_text import printable_message
from llama_runner.gateway.errors import error_json

if TYPE_CHECKING:
    from llama_runner.gateway.errors import GatewayError

Protocol = Literal["openai", "responses", "anthropic", "ollama", "management"]

_OPENAI_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "invalid_request_error",
    413: "invalid_request_error",
    429: "rate_limit_error",
    501: "not_supported_error",
}
_ANTHROPIC_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}
_OF_CLIENT = re.compile(
    r"json\.exception\.|input is not supported|mmproj|[Ff]ailed to parse|[Ii]nvalid|[Uu]nsupported|not supported"
    r"|[Mm]issing|must be|must have|required|[Ee]xpected|unknown (?:type|role)|does not support|template"
    r"|[Cc]annot (?:use|combine)"
)
"""Messages of llama-server with the status 500 that tell a mistake of the client."""
_NOT_OF_CLIENT = re.compile(r"[Ff]ailed to (?:decode|allocate)|out of memory|Compute error|[Ii]nternal")


_TOO_LONG = "exceed_context_size_error"


class Failure(Value):
    """An error as a client gets it."""

    status: int
    kind: str
    """A stable word for the cause."""
    message: str
    permanent: bool = False
    """Whether the same request fails again: clients are told not to repeat it."""
    retry_after: int | None = None
    field: str | None = None
    details: tuple[tuple[str, Any], ...] = ()
    """Members of llama-server's own error that clients of it read."""
    cause: GatewayError | None = None
    """The error that it stands for, for protocols that have its hint apart from its message."""


def failure_of(error: GatewayError) -> Failure:
    """Return the failure that an error stands for. The hint and the last lines of a log are part of its message."""
    lines = [str(error), *(f"  {printable_message(line)}" for line in getattr(error, "log", ()))]
    lines += [f"hint: {error.hint}"] if error.hint else []
    field = getattr(error, "field", None)
    return Failure(error.status, error.kind, "\n".join(lines), error.permanent, error.retry_after, field, cause=error)


def failure_of_answer(status: int, body: bytes) -> Failure:
    """Return the failure that llama-server answered with. It gives 500 for several mistakes of the client: 400 here."""
    message, kind, details = "", "", []
    try:
        found = json.loads(body)["error"]
        message, kind = (found, "") if isinstance(found, str) else (str(found["message"]), str(found.get("type", "")))
        if kind == _TOO_LONG:
            details = [(name, found[name]) for name in ("type", "n_prompt_tokens", "n_ctx") if name in found]
    except (ValueError, LookupError, TypeError, RecursionError):
        message = body[:1000].decode("utf-8", "replace").strip() or f"llama-server answered with {status}"
    if status == 500 and _OF_CLIENT.search(message) and not _NOT_OF_CLIENT.search(message):  # noqa: PLR2004
        status, kind = 400, "invalid_request_error"
    permanent = status < 500 or status == 501  # noqa: PLR2004 - it is not supported by this process
    kind = kind or _OPENAI_TYPES.get(status, "server_error")
    return Failure(status, kind, message, permanent, details=tuple(details))


def protocol_of(path: str, *, anthropic: bool = False) -> Protocol:
    """Return the protocol that a path belongs to; ``anthropic`` says whether the request has ``anthropic-version``."""
    if path.startswith("/api/v1/") or path == "/api/v1":
        return "management"
    if path.startswith("/api/") or path == "/api":
        return "ollama"
    if path.startswith("/v1/messages") or anthropic:
        return "anthropic"
    return "responses" if path.startswith("/v1/responses") else "openai"


def error_body(failure: Failure, protocol: Protocol, request_id: str) -> dict[str, Any]:
    """Return the body of an error."""
    if protocol == "management":
        if failure.cause is not None:
            return {"error": error_json(failure.cause)}
        plain: dict[str, Any] = {"hint": None, "field": failure.field, "log": []}
        return {"error": {"type": failure.kind, "message": failure.message, **plain}}
    if protocol == "ollama":
        return {"error": failure.message}
    if protocol == "anthropic":
        kind = _ANTHROPIC_TYPES.get(failure.status, "api_error")
        return {"type": "error", "error": {"type": kind, "message": failure.message}, "request_id": request_id}
    kind = _OPENAI_TYPES.get(failure.status, "server_error")
    told = {"message": failure.message, "type": kind, "param": failure.field, "code": failure.kind}
    return {"error": told | dict(failure.details)}


def error_headers(failure: Failure) -> dict[str, str]:
    """Return the headers of an error. The SDKs of OpenAI and Anthropic repeat a request unless told not to."""
    headers = {"x-should-retry": "false"} if failure.permanent else {}
    return headers | ({"Retry-After": str(failure.retry_after)} if failure.retry_after is not None else {})


def stream_error(failure: Failure, protocol: Protocol, request_id: str) -> bytes:
    """Return what ends a stream that has begun, in the framing of its protocol."""
    body = error_body(failure, protocol, request_id)
    if protocol == "ollama":
        return json.dumps(body).encode() + b"\n"
    if protocol == "responses":
        told = {"type": "error", "code": failure.kind, "message": failure.message, "param": None, "sequence_number": 0}
        return b"event: error\ndata: " + json.dumps(told).encode() + b"\n\n"
    event = b"event: error\n" if protocol == "anthropic" else b""
    return event + b"data: " + json.dumps(body).encode() + b"\n\n"
