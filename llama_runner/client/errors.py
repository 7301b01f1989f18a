"""Errors of requests to a server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llama_runner.core.errors import ServerError, UsageError

if TYPE_CHECKING:
    from llama_runner.client.reply_types import Json
    from llama_runner.core.errors import LlamaRunnerError

_LONGEST = 500
_NO_LOGITS = "not logits computation"
"""Part of llama-server's message, with status 500, if a server with ``--embeddings`` should generate text."""

_NOT_FOUND, _UNAUTHORIZED, _UNAVAILABLE, _SERVER = 404, 401, 503, 500


class KeyRefused(ServerError):
    """The server requires an API key and rejects the given one, or none was given."""

    def __init__(self, url: str) -> None:
        self.url = url
        super().__init__(
            f"{url} requires an API key and refuses the given one",
            hint="set LLAMA_API_KEY; if it is set, another server uses the port",
        )


class RequestNotSent(UsageError):
    """The request cannot be written as JSON, for example because of an infinite number."""

    def __init__(self, why: str) -> None:
        self.why = why
        super().__init__(f"the request cannot be sent: {why}")


class RequestRefused(UsageError):
    """The server rejects the request: status 400 to 499, or 501 for a disabled feature."""

    def __init__(self, url: str, status: int, said: str, *, hint: str | None = None) -> None:
        self.url, self.status, self.said = url, status, said
        super().__init__(f"the server refuses the request: {said} ({status})", hint=hint)


class ContextExceeded(RequestRefused):
    """The prompt is longer than the server's context; both in tokens."""

    def __init__(self, url: str, said: str, tokens: int, context: int) -> None:
        self.tokens, self.context = tokens, context
        super().__init__(url, 400, said, hint=f"start it with --ctx-size {tokens + 1} or more, or ask less")


class StillLoading(ServerError):
    """The server is still loading the model."""

    def __init__(self, url: str, said: str) -> None:
        self.url, self.said = url, said
        super().__init__(f"{url} is not ready: {said}", hint="try again when /health answers 200")


class RequestFailed(ServerError):
    """The server failed while processing the request."""

    def __init__(self, url: str, status: int, said: str) -> None:
        self.url, self.status, self.said = url, status, said
        super().__init__(f"the server failed: {said} ({status})")


class Unreachable(ServerError):
    """No connection to the server is possible."""

    def __init__(self, url: str, why: str) -> None:
        self.url, self.why = url, why
        super().__init__(f"cannot reach {url}: {why}", hint="llama-runner ps shows what runs")


class ConnectionLost(ServerError):
    """The connection ended before the reply was complete; ``text`` is the part received."""

    def __init__(self, url: str, why: str, text: str) -> None:
        self.url, self.why, self.text = url, why, text
        after = f" after {len(text)} characters" if text else ""
        super().__init__(f"the connection to {url} broke{after}: {why}", hint="the server's log may say why")


class TimedOut(ServerError):
    """The server sent no data for too long."""

    def __init__(self, url: str, seconds: float, text: str) -> None:
        self.url, self.seconds, self.text = url, seconds, text
        super().__init__(f"no data from {url} for {seconds:g} s", hint="use a larger timeout")


class StrangeAnswer(ServerError):
    """The response is not one of a llama-server."""

    def __init__(self, url: str, said: str) -> None:
        self.url, self.said = url, said
        super().__init__(f"{url} is not a llama-server: it answers {said[:_LONGEST]!r}", hint="check the address")


def response_error(url: str, status: int, body: Json | None, text: str) -> LlamaRunnerError:
    """Return the error for a response with another status than 200: ``body`` is its JSON, ``text`` its raw content."""
    found = (body or {}).get("error")
    about: Json = found if isinstance(found, dict) else {"message": found or text[:_LONGEST] or "no reason given"}
    said = str(about.get("message", "")).strip() or "no reason given"
    if status == _UNAUTHORIZED:
        return KeyRefused(url)
    if status == _UNAVAILABLE:
        return StillLoading(url, said)
    tokens, context = about.get("n_prompt_tokens"), about.get("n_ctx")
    if isinstance(tokens, int) and isinstance(context, int):
        return ContextExceeded(url, said, tokens, context)
    if about.get("type") == "not_supported_error":
        return RequestRefused(url, status, said)
    if _NO_LOGITS in said:
        return RequestRefused(url, status, said, hint="it returns embeddings only; start one without --embeddings")
    if status >= _SERVER:
        return RequestFailed(url, status, said)
    hint = "check the address, which must not include /v1" if status == _NOT_FOUND else None
    return RequestRefused(url, status, said, hint=hint)
