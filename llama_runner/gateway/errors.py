"""Errors of the gateway. Each protocol makes its own body of the fields; ``status`` is the HTTP status."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_runner.core.errors import ExitCode, LlamaRunnerError, ServerError, StoreError
from llama_runner.core.events import snake_case
from llama_runner.core.printable_text import printable, printable_message
from llama_runner.core.sizes import size_text

if TYPE_CHECKING:
    from collections.abc import Iterable

_NAMES = 8


class GatewayError(ServerError):
    """Base class of the errors that a client gets as an HTTP status.

    ``status`` is the HTTP status. ``kind`` is a stable word for the cause. ``retry_after`` is the number of seconds
    after which a new attempt may succeed, or None. ``permanent`` says that the same request fails again.
    """

    status: int = 500
    kind: str = "server_error"
    permanent: bool = False
    retry_after: int | None = None


class BadRequest(GatewayError):
    """The request is wrong. ``field`` is the member of the body, or None."""

    status = 400
    kind = "invalid_request"
    permanent = True

    def __init__(self, message: str, *, field: str | None = None, hint: str | None = None) -> None:
        self.field = field
        super().__init__(message, hint=hint)


class RequestTooLarge(BadRequest):
    """The body is larger than the gateway reads."""

    status = 413
    kind = "request_too_large"


class Unauthorized(GatewayError):
    """The address needs a key, and the request has none that is known."""

    status = 401
    kind = "unauthorized"
    permanent = True


class Forbidden(GatewayError):
    """The key, the ``Host`` or the origin of the request is not allowed to do this."""

    status = 403
    kind = "forbidden"
    permanent = True


_STATUS_OF = {
    ExitCode.USAGE: 400,
    ExitCode.SOURCE: 400,
    ExitCode.DOWNLOAD: 502,
    ExitCode.STORE: 409,
    ExitCode.SERVER: 409,
}
"""HTTP statuses of errors of the library, by their exit status; 500 for the others."""
_FULL = "disk_full"
_MEMBERS = (
    (" or choose another --root, and", ", and"),
    ("choose another --root (LLAMA_RUNNER_ROOT)", "start the gateway with another root"),
    ("--force", "force = true"),
    ("--update", "update = true"),
    ("run the command again", "send the request again"),
)
"""What a client of the API does in place of what hints say of the command line."""
_NOT_FOUND = (
    *("no_such_session", "no_such_model", "no_such_server", "no_such_build", "unknown_model"),
    *("no_such_repository", "no_such_revision", "no_such_quantization", "no_such_file"),
)
_STATUS_OF_KIND = {**dict.fromkeys(_NOT_FOUND, 404), _FULL: 507, "needs_force": 409}
"""HTTP statuses of errors by their word, which counts more."""


class CallFailed(GatewayError):
    """A call of the library failed. ``kind`` is the class of its error in snake case, ``status`` follows from it.

    ``exit_status`` is what the command line would end with. ``tail`` are the last lines of the log of what failed.
    """

    def __init__(
        self,
        message: str,
        *,
        kind: str = "call_failed",
        code: int = 0,
        hint: str | None = None,
        tail: Iterable[str] = (),
    ) -> None:
        self.kind, self.exit_status, self.tail = kind, code, tuple(tail)
        self.status = _STATUS_OF_KIND.get(kind) or _STATUS_OF.get(code, 500)
        self.permanent = self.status in (400, 404)
        super().__init__(message, hint=None if hint is None else _hint_for_clients(hint))


def kind_of(error: LlamaRunnerError) -> str:
    """Return the word for the cause of an error of the library."""
    return _FULL if isinstance(error, StoreError) and error.no_room else snake_case(type(error).__name__)


def _hint_for_clients(hint: str) -> str:
    """Return a hint of the command line for clients of the API, which have members of a request in place of flags."""
    for flag, member in _MEMBERS:
        hint = hint.replace(flag, member)
    return hint


def gateway_error(error: LlamaRunnerError) -> GatewayError:
    """Return an error of the library as one with an HTTP status."""
    if isinstance(error, GatewayError):
        return error
    return CallFailed(str(error), kind=kind_of(error), code=error.code, hint=error.hint)


class UnknownModel(GatewayError):
    """No model has this name. ``known`` are the names that are listed."""

    status = 404
    kind = "model_not_found"
    permanent = True

    def __init__(self, name: str, known: Iterable[str] = ()) -> None:
        self.name, self.known = name, tuple(known)
        shown = ", ".join(map(printable, self.known[:_NAMES])) + (", …" if len(self.known) > _NAMES else "")
        super().__init__(f"model {name!r} not found", hint=f"models: {shown}" if shown else "no models are declared")


class TooManyRequests(GatewayError):
    """A key has as many requests in progress as it may have."""

    status = 429
    kind = "rate_limit"

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.retry_after = 1
        super().__init__(f"{limit} requests of this key are in progress", hint="wait until one of them ends")


class QueueFull(GatewayError):
    """Too many requests wait for a model."""

    status = 503
    kind = "queue_full"

    def __init__(self, name: str, limit: int, retry_after: int = 5) -> None:
        self.name, self.limit, self.retry_after = name, limit, retry_after
        super().__init__(f"{limit} requests wait for model {name!r}", hint="try again later")


class WaitedTooLong(GatewayError):
    """A request waited for memory for the maximum time."""

    status = 503
    kind = "waited_too_long"

    def __init__(self, name: str, seconds: float, retry_after: int = 5) -> None:
        self.name, self.seconds, self.retry_after = name, seconds, retry_after
        super().__init__(
            f"model {name!r} was not available in {seconds:.0f} s: requests in progress hold it or its memory",
            hint="try again later",
        )


class NeverFits(GatewayError):
    """A model needs more memory than there is when everything that may be stopped is stopped.

    ``lacks`` has rows of place (``Host`` or a device), bytes needed, bytes available.
    """

    status = 503
    kind = "out_of_memory"
    permanent = True

    def __init__(self, name: str, lacks: Iterable[tuple[str, int, int]], retry_after: int = 60) -> None:
        self.name, self.lacks, self.retry_after = name, tuple(lacks), retry_after
        told = " and ".join(
            f"{size_text(wanted)} on {place}, where {size_text(max(0, free))} are available"
            for place, wanted, free in self.lacks
        )
        super().__init__(
            f"model {name!r} needs {told}", hint="choose a smaller quantization or context, or unpin other models"
        )


class LoadFailed(GatewayError):
    """A model could not be prepared or started. ``log`` has the last lines of its log."""

    status = 500
    kind = "load_failed"
    permanent = True

    def __init__(self, name: str, reason: str, *, hint: str | None = None, log: Iterable[str] = ()) -> None:
        self.name, self.reason, self.log = name, reason, tuple(log)
        super().__init__(f"model {name!r} could not be loaded: {reason}", hint=hint)


class LoadingCrashed(GatewayError):
    """A model failed several times in a row and is not started until ``retry_after`` seconds have passed."""

    status = 503
    kind = "crashing"

    def __init__(
        self,
        name: str,
        failures: int,
        reason: str,
        retry_after: int,
        *,
        hint: str | None = None,
        log: Iterable[str] = (),
    ) -> None:
        self.name, self.failures, self.reason = name, failures, reason
        self.retry_after, self.log = retry_after, tuple(log)
        super().__init__(
            f"model {name!r} failed {failures} times in a row and is started again in {retry_after} s: {reason}",
            hint=hint,
        )


class ServerLost(GatewayError):
    """The process of a model ended, or closed the connection, while it answered a request."""

    status = 502
    kind = "server_lost"

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(
            f"model {name!r} stopped while it answered: the connection broke", hint="send the request again"
        )


class ServerGone(ServerLost):
    """The process of a model ended before a request, or as it came: nothing of it was answered."""


class Closing(GatewayError):
    """The gateway shuts down."""

    status = 503
    kind = "closing"
    retry_after = 5

    def __init__(self) -> None:
        super().__init__("the gateway shuts down", hint="try again later")


def error_json(error: GatewayError) -> dict[str, Any]:
    """Return an error as the management API has it."""
    return {
        "type": error.kind,
        "message": str(error),
        "hint": error.hint,
        "field": getattr(error, "field", None),
        "log": [printable_message(line) for line in getattr(error, "log", ())],
    }
