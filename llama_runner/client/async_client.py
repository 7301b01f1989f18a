"""The shell for event loops: the calls of ``sync``, to be awaited."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import httpx2

from llama_runner.client import protocol
from llama_runner.client.connection import TIMEOUT_S, Address

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from typing_extensions import Self, Unpack

    from llama_runner.client.protocol import Call, Chatting, Messages, Sampling
    from llama_runner.client.replies import Metrics, Piece, Props, Reply, Slot

T = TypeVar("T")


class AsyncStream:
    """``sync.Stream`` for ``async for`` and ``async with``."""

    def __init__(self, http: httpx2.AsyncClient, address: Address, call: Call[Reply]) -> None:
        self._http, self._address, self._call = http, address, call
        self._gathered = protocol.Gathered(address.url)
        self._pieces = self._receive()

    async def _receive(self) -> AsyncIterator[Piece]:
        call, gathered = self._call, self._gathered
        with self._address.told(gathered):
            async with self._http.stream(
                call.method, call.path, content=call.content, headers=protocol.FOR_STREAMS
            ) as response:
                if response.status_code != protocol.OK:
                    call.result(self._address.url, response.status_code, await response.aread())
                async for event in httpx2.EventSource(response):
                    piece = gathered.feed(event.data)
                    if piece is not None:
                        yield piece
                self._address.must_be_whole(gathered)

    @property
    def text(self) -> str:
        """What has come so far."""
        return self._gathered.text

    async def finish(self) -> Reply:
        """Wait for the rest, and return the whole."""
        async for _ in self:
            pass
        return self._gathered.reply

    async def close(self) -> None:
        """Want no more of it."""
        await self._pieces.aclose()  # type: ignore[attr-defined]  # it is a generator

    def __aiter__(self) -> AsyncIterator[Piece]:
        return self._pieces

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exception: object) -> None:
        await self.close()


class AsyncRequests:
    """``sync.Requests`` to be awaited."""

    async def _send(self, call: Call[T]) -> T:
        raise NotImplementedError

    def _stream(self, call: Call[Reply]) -> AsyncStream:
        raise NotImplementedError

    async def chat(self, messages: Messages, **options: Unpack[Chatting]) -> Reply:
        """Return the next message of a conversation; a text alone is what the user says."""
        return await self._send(protocol.chat(messages, **options))

    def stream_chat(self, messages: Messages, **options: Unpack[Chatting]) -> AsyncStream:
        """Return the next message piece by piece."""
        return self._stream(protocol.chat(messages, stream=True, **options))

    async def complete(self, prompt: str, **options: Unpack[Sampling]) -> Reply:
        """Return how a text goes on; no chat template is laid around it."""
        return await self._send(protocol.complete(prompt, **options))

    def stream_complete(self, prompt: str, **options: Unpack[Sampling]) -> AsyncStream:
        """Return how a text goes on, piece by piece."""
        return self._stream(protocol.complete(prompt, stream=True, **options))

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """Return one vector for each text; the server must have been started with ``--embeddings``."""
        return await self._send(protocol.embed(texts))

    async def props(self) -> Props:
        """Return what is served, and how."""
        return await self._send(protocol.props())

    async def metrics(self) -> Metrics:
        """Return the server's counters; it must have been started with ``--metrics``."""
        return await self._send(protocol.metrics())

    async def slots(self) -> list[Slot]:
        """Return the conversations that the server holds."""
        return await self._send(protocol.slots())


class AsyncClient(AsyncRequests):
    """``sync.Client`` for an event loop."""

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        certificate: Path | None = None,
        timeout: float = TIMEOUT_S,
    ) -> None:
        self._address = Address(url, api_key, certificate, timeout)
        with self._address.told():
            self._http = httpx2.AsyncClient(**self._address.client(httpx2.AsyncHTTPTransport))

    @property
    def url(self) -> str:
        """The base address."""
        return self._address.url

    @property
    def openai_base_url(self) -> str:
        """What programs for the OpenAI API want as base URL."""
        return self._address.openai

    async def _send(self, call: Call[T]) -> T:
        with self._address.told():
            response = await self._http.request(call.method, call.path, content=call.content, headers=protocol.JSON)
        return call.result(self.url, response.status_code, response.content)

    def _stream(self, call: Call[Reply]) -> AsyncStream:
        return AsyncStream(self._http, self._address, call)

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exception: object) -> None:
        await self.close()
