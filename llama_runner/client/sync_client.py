"""The shell for threads. A client may be used from several at once, and where an event loop runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import httpx2

from llama_runner.client import protocol
from llama_runner.client.connection import TIMEOUT_S, Address

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from typing_extensions import Self, Unpack

    from llama_runner.client.protocol import Call, Chatting, Messages, Sampling
    from llama_runner.client.replies import Metrics, Piece, Props, Reply, Slot

T = TypeVar("T")


class Stream:
    """An answer that comes piece by piece: iterate, or ``finish``. The request is sent with the first piece.

    Leaving a ``with`` block, or ``close``, ends the generation at the server too.
    """

    def __init__(self, http: httpx2.Client, address: Address, call: Call[Reply]) -> None:
        self._http, self._address, self._call = http, address, call
        self._gathered = protocol.Gathered(address.url)
        self._pieces = self._receive()

    def _receive(self) -> Iterator[Piece]:
        call, gathered = self._call, self._gathered
        with (
            self._address.told(gathered),
            self._http.stream(call.method, call.path, content=call.content, headers=protocol.FOR_STREAMS) as response,
        ):
            if response.status_code != protocol.OK:
                call.result(self._address.url, response.status_code, response.read())
            for event in httpx2.EventSource(response):
                piece = gathered.feed(event.data)
                if piece is not None:
                    yield piece
            self._address.must_be_whole(gathered)

    @property
    def text(self) -> str:
        """What has come so far."""
        return self._gathered.text

    def finish(self) -> Reply:
        """Wait for the rest, and return the whole."""
        for _ in self:
            pass
        return self._gathered.reply

    def close(self) -> None:
        """Want no more of it."""
        self._pieces.close()  # type: ignore[attr-defined]  # it is a generator

    def __iter__(self) -> Iterator[Piece]:
        return self._pieces

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()


class Requests:
    """What can be asked of a server. Raises the errors of ``llama_runner.client.errors``."""

    def _send(self, call: Call[T]) -> T:
        raise NotImplementedError

    def _stream(self, call: Call[Reply]) -> Stream:
        raise NotImplementedError

    def chat(self, messages: Messages, **options: Unpack[Chatting]) -> Reply:
        """Return the next message of a conversation; a text alone is what the user says."""
        return self._send(protocol.chat(messages, **options))

    def stream_chat(self, messages: Messages, **options: Unpack[Chatting]) -> Stream:
        """Return the next message piece by piece."""
        return self._stream(protocol.chat(messages, stream=True, **options))

    def complete(self, prompt: str, **options: Unpack[Sampling]) -> Reply:
        """Return how a text goes on; no chat template is laid around it."""
        return self._send(protocol.complete(prompt, **options))

    def stream_complete(self, prompt: str, **options: Unpack[Sampling]) -> Stream:
        """Return how a text goes on, piece by piece."""
        return self._stream(protocol.complete(prompt, stream=True, **options))

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """Return one vector for each text; the server must have been started with ``--embeddings``."""
        return self._send(protocol.embed(texts))

    def props(self) -> Props:
        """Return what is served, and how."""
        return self._send(protocol.props())

    def metrics(self) -> Metrics:
        """Return the server's counters; it must have been started with ``--metrics``."""
        return self._send(protocol.metrics())

    def slots(self) -> list[Slot]:
        """Return the conversations that the server holds."""
        return self._send(protocol.slots())


class Client(Requests):
    """A connection to a server that runs somewhere. Use as a context manager, or call ``close``.

    ``certificate`` is that of the server, if it is one of its own; ``timeout`` how many seconds it may be silent.
    """

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
            self._http = httpx2.Client(**self._address.client(httpx2.HTTPTransport))

    @property
    def url(self) -> str:
        """The base address."""
        return self._address.url

    @property
    def openai_base_url(self) -> str:
        """What programs for the OpenAI API want as base URL."""
        return self._address.openai

    def _send(self, call: Call[T]) -> T:
        with self._address.told():
            response = self._http.request(call.method, call.path, content=call.content, headers=protocol.JSON)
        return call.result(self.url, response.status_code, response.content)

    def _stream(self, call: Call[Reply]) -> Stream:
        return Stream(self._http, self._address, call)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()
