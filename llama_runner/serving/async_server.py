"""A server for event loops: it starts and stops in a thread, and requests go through an `AsyncClient`."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, TypeVar

from llama_runner.client.async_client import AsyncClient, AsyncRequests, AsyncStream

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Self

    from llama_runner.client.reply_types import Reply
    from llama_runner.client.requests_to_server import Call
    from llama_runner.serving.server_process import Server

T = TypeVar("T")


class AsyncServer(AsyncRequests):
    """A server for ``async with``; it starts and stops in a thread, so the event loop is not blocked.

    ``start`` gets a function that returns whether the start was cancelled.
    """

    server: Server
    """The running server, within the block."""
    client: AsyncClient

    def __init__(self, start: Callable[[Callable[[], bool]], Server]) -> None:
        self._start = start
        self._lock = threading.Lock()
        self._given_up = False

    @property
    def url(self) -> str:
        """The base address."""
        return self.server.url

    @property
    def openai_base_url(self) -> str:
        """The base URL for clients of the OpenAI API."""
        return self.client.openai_base_url

    async def _send(self, call: Call[T]) -> T:
        return await self.client._send(call)  # noqa: SLF001 - it stands above

    def _stream(self, call: Call[Reply]) -> AsyncStream:
        return self.client._stream(call)  # noqa: SLF001 - as above

    def _bring_up(self) -> None:
        server = self._start(lambda: self._given_up)
        with self._lock:
            self.server = server
            wanted = not self._given_up
        if not wanted:
            server.stop()

    async def __aenter__(self) -> Self:
        starting = asyncio.ensure_future(asyncio.to_thread(self._bring_up))
        try:
            await asyncio.shield(starting)
        except BaseException:
            with self._lock:
                self._given_up = True
                server = getattr(self, "server", None)
            if server is not None:
                await asyncio.to_thread(server.stop)
            raise
        spec = self.server.spec
        self.client = AsyncClient(
            self.url,
            api_key=self.server.api_key,
            certificate=spec.tls_cert,
            adapters=spec.loaded_adapters if spec.has_adapters else None,
        )
        return self

    async def __aexit__(self, *_exception: object) -> None:
        try:
            await self.client.close()
        finally:
            await asyncio.shield(asyncio.to_thread(self.server.stop))
