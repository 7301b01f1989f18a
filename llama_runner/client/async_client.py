"""HTTP client for event loops (asyncio); the same calls as in ``sync_client``."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import httpx2

from llama_runner.client import requests_to_server
from llama_runner.client.connection import TIMEOUT_S, Connection
from llama_runner.client.streamed_reply import StreamAccumulator
from llama_runner.core.adapter_scales import AdapterScales

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from typing_extensions import Self, Unpack

    from llama_runner.client.reply_types import Metrics, Props, Reply, ReplyChunk, Slot
    from llama_runner.client.requests_to_server import Call, ChatOptions, Messages, SamplingOptions

T = TypeVar("T")


class AsyncStream:
    """A streamed reply, as ``sync_client.Stream``, for ``async for`` and ``async with``."""

    def __init__(self, http: httpx2.AsyncClient, address: Connection, call: Call[Reply]) -> None:
        self._http, self._connection, self._call = http, address, call
        self._accumulator = StreamAccumulator(address.url)
        self._pieces = self._receive()

    async def _receive(self) -> AsyncIterator[ReplyChunk]:
        call, accumulator = self._call, self._accumulator
        with self._connection.raise_client_errors(accumulator):
            async with self._http.stream(
                call.method, call.path, content=call.content, headers=requests_to_server.STREAM_HEADERS
            ) as response:
                if response.status_code != requests_to_server.OK:
                    call.result(self._connection.url, response.status_code, await response.aread())
                async for event in httpx2.EventSource(response):
                    piece = accumulator.feed(event.data)
                    if piece is not None:
                        yield piece
                self._connection.check_complete(accumulator)

    @property
    def text(self) -> str:
        """The text received so far."""
        return self._accumulator.text

    async def finish(self) -> Reply:
        """Receive the rest and return the complete reply."""
        async for _ in self:
            pass
        return self._accumulator.reply

    async def close(self) -> None:
        """End the stream; the server stops generating."""
        await self._pieces.aclose()  # type: ignore[attr-defined]  # it is a generator

    def __aiter__(self) -> AsyncIterator[ReplyChunk]:
        return self._pieces

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exception: object) -> None:
        await self.close()


class AsyncRequests:
    """The requests to a server as coroutines, as ``sync_client.Requests``."""

    async def _send(self, call: Call[T]) -> T:
        raise NotImplementedError

    def _stream(self, call: Call[Reply]) -> AsyncStream:
        raise NotImplementedError

    async def chat(self, messages: Messages, **options: Unpack[ChatOptions]) -> Reply:
        """Return the next message of a conversation; a single text is a user message."""
        return await self._send(requests_to_server.chat(messages, **options))

    def stream_chat(self, messages: Messages, **options: Unpack[ChatOptions]) -> AsyncStream:
        """Return the next message as a stream."""
        return self._stream(requests_to_server.chat(messages, stream=True, **options))

    async def complete(self, prompt: str, **options: Unpack[SamplingOptions]) -> Reply:
        """Return the continuation of a text, without a chat template."""
        return await self._send(requests_to_server.complete(prompt, **options))

    def stream_complete(self, prompt: str, **options: Unpack[SamplingOptions]) -> AsyncStream:
        """Return the continuation of a text as a stream."""
        return self._stream(requests_to_server.complete(prompt, stream=True, **options))

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """Return one embedding vector for each text; the server needs ``--embeddings``."""
        return await self._send(requests_to_server.embed(texts))

    async def props(self) -> Props:
        """Return the properties of the server: model, context size, slots."""
        return await self._send(requests_to_server.props())

    async def metrics(self) -> Metrics:
        """Return the server's counters; it needs ``--metrics``."""
        return await self._send(requests_to_server.metrics())

    async def slots(self) -> list[Slot]:
        """Return the state of the server's slots."""
        return await self._send(requests_to_server.slots())


class AsyncClient(AsyncRequests):
    """A client of a running server for an event loop, as ``sync_client.Client``."""

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        certificate: Path | None = None,
        timeout: float = TIMEOUT_S,
        adapters: AdapterScales | None = None,
    ) -> None:
        self._adapters = adapters or AdapterScales()
        self._connection = Connection(url, api_key, certificate, timeout)
        with self._connection.raise_client_errors():
            self._http = httpx2.AsyncClient(**self._connection.client(httpx2.AsyncHTTPTransport))

    @property
    def url(self) -> str:
        """The base URL."""
        return self._connection.url

    @property
    def openai_base_url(self) -> str:
        """The base URL for programs that use the OpenAI API; ends with ``/v1``."""
        return self._connection.openai

    async def _send(self, call: Call[T]) -> T:
        call = call.adapted(self._adapters)
        with self._connection.raise_client_errors():
            response = await self._http.request(
                call.method, call.path, content=call.content, headers=requests_to_server.JSON_HEADERS
            )
        return call.result(self.url, response.status_code, response.content)

    def _stream(self, call: Call[Reply]) -> AsyncStream:
        return AsyncStream(self._http, self._connection, call.adapted(self._adapters))

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exception: object) -> None:
        await self.close()
