"""What the routes of every protocol use of the gateway: names, leases, life cycle.

``gateway.gateway.Gateway`` implements it. A module with routes has one function
``add_routes(application: aiohttp.web.Application, gateway: Models)``, which ``gateway/http_application.py`` calls.
Keys, ``Host`` and origins are checked before a route is called, and ``client_of(request)`` says who asks. A
``GatewayError`` that leaves a route before the first byte of its answer becomes an error of the protocol that the path
belongs to.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar, cast

from llama_runner.gateway.access_control import LOOPBACK, Client

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from aiohttp import web

    from llama_runner.gateway.adapters import LoadedAdapters
    from llama_runner.gateway.served_models import Catalogue, ModelFacts, RunningModel, ServedModel
    from llama_runner.gateway.sessions.save_and_restore_sessions import ProcessSessions
    from llama_runner.gateway.sessions.session_use import SessionUse
    from llama_runner.gateway.upstream_client import Answer

_Result = TypeVar("_Result")
_GOING_ON: set[asyncio.Task[Any]] = set()
"""Tasks that nothing else may refer to."""


class Call(NamedTuple):
    """A request that was sent to the process of a model. Times are those of ``time.monotonic``."""

    method: str
    path: str
    began: float
    ended: float
    status: int | None
    """None: there was no answer."""


class Lease(Protocol):
    """A model that is ready and is not stopped until the lease ends."""

    model: ServedModel
    """The name that was asked for, or the fallback that answers instead."""
    url: str
    """Base address of the process, without a slash at its end."""
    key: str
    """Its private key: ``Authorization: Bearer KEY``."""
    facts: ModelFacts
    context: int | None
    """Tokens of the context that the process was started with."""
    waited: float
    """Seconds between the request and the lease, loading included."""
    answered: bool
    """Whether the process has answered. A lease that ends without it counts as a failure of the process."""
    loading: float
    """Seconds of ``waited`` in which the model was loaded; 0 where it was ready."""
    asked: float
    """When it was asked for, as ``time.monotonic`` says it."""
    sessions: ProcessSessions | None
    """The sessions of the process; None where it keeps none."""
    session_use: SessionUse | None
    """The session that the next request to the process is of."""
    adapters: LoadedAdapters
    """The adapters of the process; ``adapters.applied(model)`` are those of this request."""
    calls: list[Call]
    """What was sent to the process, once each has ended."""

    def request(
        self,
        method: str,
        path: str,
        **options: Any,  # noqa: ANN401 - those of ``UpstreamClient.request``
    ) -> AbstractAsyncContextManager[Answer]:
        """Send a request to the process, with its key: ``async with lease.request("POST", "/tokenize", json=…)``.

        ``ServerLost`` when the process cannot be reached. Leaving the block closes the connection, which ends
        the work on an answer that was not read to its end.
        """
        ...


class Models(Protocol):
    """The gateway, as the routes see it. All methods are called in the event loop."""

    catalogue: Catalogue
    """The names that are served now. The routes replace it with ``declare`` only."""
    root: Path

    def acquire(
        self,
        name: str,
        *,
        keep_alive: float | None = None,
        client: Client = LOOPBACK,
        context: int | None = None,
        adapters: dict[str, float] | None = None,
    ) -> AbstractAsyncContextManager[Lease]:
        """Wait until a model is ready; within the block it is not stopped.

        ``keep_alive`` has seconds that the model stays after this request: 0 stops it, less than 0 keeps it, None
        changes nothing. The pin of a model counts more. A model that ``client`` may not use is an ``UnknownModel``.
        Other errors: ``QueueFull``, ``WaitedTooLong``, ``NeverFits``, ``LoadFailed``, ``LoadingCrashed``, ``Closing``.
        ``context`` is the number of tokens that the request needs: a model that has less is started again with its
        ``max_ctx_size``, once. ``adapters`` are applied instead of those of the name: ``BadRequest``.
        When the caller is cancelled while it waits, a load that began goes on.
        """
        ...

    async def unload(self, name: str) -> bool:
        """Stop a model once its requests have ended; False if it was not loaded. Returns when it has stopped."""
        ...

    def running(self) -> list[RunningModel]:
        """Return the models that are loaded, load or stop, and those that requests wait for."""
        ...

    async def facts(self, name: str) -> ModelFacts | None:
        """Return what is known of the file of a model; None while it is not prepared. Starts no work."""
        ...

    async def declare(self, catalogue: Catalogue) -> None:
        """Serve other names or models from now on. Only models whose launch differs are stopped."""
        ...


async def completed(work: Coroutine[Any, Any, _Result]) -> _Result:
    """Do something to its end, also where the client leaves meanwhile: a change is never half done."""
    task = asyncio.ensure_future(work)
    _GOING_ON.add(task)
    task.add_done_callback(_GOING_ON.discard)
    return await asyncio.shield(task)


def client_of(request: web.Request) -> Client:
    """Return who sent a request."""
    return cast("Client", request.get("client", LOOPBACK))


def may_go_on(request: web.Request) -> bool:
    """Return whether an answer that streams may go on: the key or sign-in of its request still has the same rights."""
    return bool(request.get("may_go_on", lambda: True)())
