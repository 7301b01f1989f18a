"""Why a server gives no answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llama_runner.core.errors import ServerError, UsageError

if TYPE_CHECKING:
    from llama_runner.client.replies import Json
    from llama_runner.core.errors import LlamaRunnerError

_LONGEST = 500
_NO_LOGITS = "not logits computation"
"""What llama-server says, with status 500, when one that was started with ``--embeddings`` is to write."""

_NOT_FOUND, _UNAUTHORIZED, _UNAVAILABLE, _SERVER = 404, 401, 503, 500


class KeyRefused(ServerError):
    """The server asks for an API key and refuses the one it is given."""

    def __init__(self, url: str) -> None:
        self.url = url
        super().__init__(
            f"{url} asks for an API key and refuses ours", hint="set LLAMA_API_KEY; if it is set, another took the port"
        )


class RequestNotSent(UsageError):
    """What is asked cannot be written as JSON: a number that is infinite, or not a number."""

    def __init__(self, why: str) -> None:
        self.why = why
        super().__init__(f"the request cannot be sent: {why}")


class RequestRefused(UsageError):
    """The server does not accept what was asked: status 400 to 499, or 501 for what it was not started for."""

    def __init__(self, url: str, status: int, said: str, *, hint: str | None = None) -> None:
        self.url, self.status, self.said = url, status, said
        super().__init__(f"the server refuses the request: {said} ({status})", hint=hint)


class ContextExceeded(RequestRefused):
    """The prompt is longer than the server's context. Both in tokens."""

    def __init__(self, url: str, said: str, tokens: int, context: int) -> None:
        self.tokens, self.context = tokens, context
        super().__init__(url, 400, said, hint=f"start it with --ctx-size {tokens + 1} or more, or ask less")


class StillLoading(ServerError):
    """The server is there and not ready."""

    def __init__(self, url: str, said: str) -> None:
        self.url, self.said = url, said
        super().__init__(f"{url} is not ready: {said}", hint="try again when /health answers 200")


class RequestFailed(ServerError):
    """The server failed at something that it accepted."""

    def __init__(self, url: str, status: int, said: str) -> None:
        self.url, self.status, self.said = url, status, said
        super().__init__(f"the server failed: {said} ({status})")


class Unreachable(ServerError):
    """Nobody answers there."""

    def __init__(self, url: str, why: str) -> None:
        self.url, self.why = url, why
        super().__init__(f"cannot reach {url}: {why}", hint="llama-runner ps shows what runs")


class ConnectionLost(ServerError):
    """The connection broke before the answer was whole; ``text`` is what had come of it."""

    def __init__(self, url: str, why: str, text: str) -> None:
        self.url, self.why, self.text = url, why, text
        after = f" after {len(text)} characters" if text else ""
        super().__init__(f"the connection to {url} broke{after}: {why}", hint="the server's log may say why")


class TimedOut(ServerError):
    """The server said nothing for too long."""

    def __init__(self, url: str, seconds: float, text: str) -> None:
        self.url, self.seconds, self.text = url, seconds, text
        super().__init__(f"{url} said nothing for {seconds:g} s", hint="a larger timeout waits longer")


class StrangeAnswer(ServerError):
    """What answers is not what a llama-server says."""

    def __init__(self, url: str, said: str) -> None:
        self.url, self.said = url, said
        super().__init__(f"{url} answers what no llama-server does: {said[:_LONGEST]!r}", hint="is the address right?")


def refusal(url: str, status: int, body: Json | None, text: str) -> LlamaRunnerError:
    """Return the error for an answer that is not 200: ``body`` is its JSON, ``text`` the same as it came."""
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
        return RequestRefused(url, status, said, hint="it gives vectors, not text; start one without --embeddings")
    if status >= _SERVER:
        return RequestFailed(url, status, said)
    hint = "is the address right? it ends before /v1" if status == _NOT_FOUND else None
    return RequestRefused(url, status, said, hint=hint)
