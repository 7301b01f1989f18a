"""A model that a request has: its process, and what is sent to it."""

from __future__ import annotations

import time
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

from llama_runner.gateway import errors
from llama_runner.gateway.route_interface import Call

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from llama_runner.gateway.model_process import Child
    from llama_runner.gateway.served_models import ServedModel
    from llama_runner.gateway.sessions.session_use import SessionUse
    from llama_runner.gateway.upstream_client import Answer, UpstreamClient

_DYING_S = 0.5
"""A request whose connection ends so soon, without an answer, may have come to a process that was dead."""


class Lease:
    """A model that is ready and is not stopped until the lease ends. See ``route_interface.Lease``."""

    def __init__(
        self,
        granted: tuple[int, ServedModel, Child],
        began: float,
        upstream: UpstreamClient,
        replace: Callable[[Lease], Awaitable[bool]],
    ) -> None:
        """``replace`` gives it another process where its own has ended, and returns whether that is so."""
        self._upstream, self._replace = upstream, replace
        self.id, self.model, child = granted
        self.keep_alive: float | None = None
        self.asked, self.answered = began, False
        self.calls: list[Call] = []
        self.session_use: SessionUse | None = None
        self.use(child)

    def use(self, child: Child) -> None:
        """Go on with a process that has just become available."""
        self.child, self.adapters, self.sessions = child, child.adapters, child.sessions
        if self.session_use is not None and child.sessions is not None:
            self.session_use.process = child.sessions
        self.url, self.key, self.facts, self.context = child.url, child.key, child.facts, child.context
        self.waited = time.monotonic() - self.asked
        self.loading = min(self.waited, child.seconds) if child.started_at > time.time() - self.waited else 0.0

    @asynccontextmanager
    async def request(self, method: str, path: str, **options: Any) -> AsyncIterator[Answer]:  # noqa: ANN401 - those of ``UpstreamClient``
        """Send a request to the process, with its key. See ``route_interface.Lease``."""
        async with AsyncExitStack() as gate:
            await self._pass_gate(gate, method, path)
            began = time.monotonic()
            try:
                answer = await self._sent(method, path, options)
            except errors.ServerGone:  # before the request, or as it came: nothing was answered
                await gate.aclose()
                if not await self._replace(self):
                    raise errors.ServerLost(self.model.name) from None
                await self._pass_gate(gate, method, path)
                began = time.monotonic()
                answer = await self._sent(method, path, options)
            self.answered = answer.status < 500  # noqa: PLR2004 - an error of the server
            try:
                yield answer
            finally:
                self.calls.append(Call(method, path, began, time.monotonic(), answer.status))
                answer.close()

    async def _pass_gate(self, gate: AsyncExitStack, method: str, path: str) -> None:
        """Wait where the sessions of the process are saved, and have the state of this one restored."""
        if self.sessions is not None and self.sessions.takes_slot(method, path.partition("?")[0]):
            await gate.enter_async_context(self.sessions.slot(self.session_use))

    async def _sent(self, method: str, path: str, options: dict[str, Any]) -> Answer:
        """Send a request; ``ServerGone`` where the process may have ended before it, else ``ServerLost``."""
        options = self.adapters.sent(method, path.partition("?")[0], options, self.model)
        if self.session_use is not None and self.session_use.slot is not None and "json" in options:
            options = {**options, "json": {**options["json"], "id_slot": self.session_use.slot}}
        began = time.monotonic()
        try:
            return await self._upstream.request(self.url, method, path, key=self.key, **options)
        except OSError as error:
            now = time.monotonic()
            self.calls.append(Call(method, path, began, now, None))
            is_gone = isinstance(error, ConnectionRefusedError) or now - began < _DYING_S
            raise (errors.ServerGone if is_gone else errors.ServerLost)(self.model.name) from error
