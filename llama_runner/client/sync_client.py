"""HTTP client for threads. A client may be used from several threads at once, and while an event loop runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import httpx2

from llama_runner.client import requests_to_server
from llama_runner.client.connection import TIMEOUT_S, Connection
from llama_runner.client.streamed_reply import StreamAccumulator
from llama_runner.core.adapter_scales import AdapterScales

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from typing_extensions import Self, Unpack

    from llama_runner.client.reply_types import Metrics, Props, Reply, ReplyChunk, Slot
    from llama_runner.client.requests_to_server import Call, ChatOptions, Messages, SamplingOptions

T = TypeVar("T")


class Stream:
    """A streamed reply: iterate over its chunks, or call ``finish``. The request is sent when the first one is read.

    The end of a ``with`` block, or ``close``, ends the generation at the server too.
    """

    def __init__(self, http: httpx2.Client, address: Connection, call: Call[Reply]) -> None:
        self._http, self._connection, self._call = http, address, call
        self._accumulator = StreamAccumulator(address.url)
        self._pieces = self._receive()

    def _receive(self) -> Iterator[ReplyChunk]:
        call, accumulator = self._call, self._accumulator
        with (
            self._connection.raise_client_errors(accumulator),
            self._http.stream(
                call.method, call.path, content=call.content, headers=requests_to_server.STREAM_HEADERS
            ) as response,
        ):
            if response.status_code != requests_to_server.OK:
                call.result(self._connection.url, response.status_code, response.read())
            for event in httpx2.EventSource(response):
                piece = accumulator.feed(event.data)
                if piece is not None:
                    yield piece
            self._connection.check_complete(accumulator)

    @property
    def text(self) -> str:
        """The text received so far."""
        return self._accumulator.text

    def finish(self) -> Reply:
        """Receive the rest and return the complete reply."""
        for _ in self:
            pass
        return self._accumulator.reply

    def close(self) -> None:
        """End the stream; the server stops generating."""
        self._pieces.close()  # type: ignore[attr-defined]  # it is a generator

    def __iter__(self) -> Iterator[ReplyChunk]:
        return self._pieces

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()


class Requests:
    """The requests to a server. They raise the errors of ``llama_runner.client.errors``."""

    def _send(self, call: Call[T]) -> T:
        raise NotImplementedError

    def _stream(self, call: Call[Reply]) -> Stream:
        raise NotImplementedError

    def chat(self, messages: Messages, **options: Unpack[ChatOptions]) -> Reply:
        """Return the next message of a conversation; a single text is a user message."""
        return self._send(requests_to_server.chat(messages, **options))

    def stream_chat(self, messages: Messages, **options: Unpack[ChatOptions]) -> Stream:
        """Return the next message as a stream."""
        return self._stream(requests_to_server.chat(messages, stream=True, **options))

    def complete(self, prompt: str, **options: Unpack[SamplingOptions]) -> Reply:
        """Return the continuation of a text, without a chat template."""
        return self._send(requests_to_server.complete(prompt, **options))

    def stream_complete(self, prompt: str, **options: Unpack[SamplingOptions]) -> Stream:
        """Return the continuation of a text as a stream."""
        return self._stream(requests_to_server.complete(prompt, stream=True, **options))

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """Return one embedding vector for each text; the server needs ``--embeddings``."""
        return self._send(requests_to_server.embed(texts))

    def props(self) -> Props:
        """Return the properties of the server: model, context size, slots."""
        return self._send(requests_to_server.props())

    def metrics(self) -> Metrics:
        """Return the server's counters; it needs ``--metrics``."""
        return self._send(requests_to_server.metrics())

    def slots(self) -> list[Slot]:
        """Return the state of the server's slots."""
        return self._send(requests_to_server.slots())


class Client(Requests):
    """A client of a running server. Use it as a context manager, or call ``close``.

    ``certificate``: a self-signed certificate of the server; ``timeout``: maximum seconds without data;
    ``adapters``: the LoRA adapters that the server has loaded.
    """

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
            self._http = httpx2.Client(**self._connection.client(httpx2.HTTPTransport))

    @property
    def url(self) -> str:
        """The base URL."""
        return self._connection.url

    @property
    def openai_base_url(self) -> str:
        """The base URL for programs that use the OpenAI API; ends with ``/v1``."""
        return self._connection.openai

    def _send(self, call: Call[T]) -> T:
        call = call.adapted(self._adapters)
        with self._connection.raise_client_errors():
            response = self._http.request(
                call.method, call.path, content=call.content, headers=requests_to_server.JSON_HEADERS
            )
        return call.result(self.url, response.status_code, response.content)

    def _stream(self, call: Call[Reply]) -> Stream:
        return Stream(self._http, self._connection, call.adapted(self._adapters))

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()
