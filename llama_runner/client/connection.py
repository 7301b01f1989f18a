"""Connection settings and errors, shared by the synchronous and the asynchronous client."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx2

from llama_runner.client.errors import ConnectionLost, StrangeAnswer, TimedOut, Unreachable
from llama_runner.client.server_address import ServerAddress, trust_only

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from llama_runner.client.streamed_reply import StreamAccumulator

TIMEOUT_S = 600.0
"""Default maximum seconds without data from the server."""

_CONNECT_S = 10.0
_KEPT_S = 3.0
"""Idle connections are closed before llama-server does it after 5 s, as it may do so while a request is sent."""


class Connection:
    """Base URL of a server without ``/v1``, API key, certificate and timeout."""

    def __init__(self, url: str, api_key: str | None, certificate: Path | None, timeout: float) -> None:
        self.url = (url if "://" in url else f"http://{url}").rstrip("/").removesuffix("/v1")
        self.timeout = timeout
        self._key, self._certificate = api_key, certificate
        try:
            self._at = ServerAddress(self.url)
        except ValueError as error:
            raise Unreachable(self.url, str(error)) from None

    @property
    def openai(self) -> str:
        """The base URL for programs that use the OpenAI API."""
        return f"{self._at.base}/v1"

    def client(self, transport: Callable[..., object]) -> dict[str, Any]:
        """Return the arguments of an ``httpx2`` client; ``transport`` is its class of transport, for a UNIX socket."""
        how: dict[str, Any] = {
            "verify": self._trust(),
            "trust_env": not self._at.is_local,  # a proxy cannot reach our loopback
            # no limit of parallel requests: the server queues them
            "limits": httpx2.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=_KEPT_S),
        }
        return {
            "base_url": self._at.base,
            "headers": {} if self._key is None else {"Authorization": f"Bearer {self._key}"},
            "timeout": httpx2.Timeout(self.timeout, connect=_CONNECT_S),
            **(how if self._at.socket is None else {"transport": transport(uds=self._at.socket, **how)}),
        }

    def _trust(self) -> ssl.SSLContext | bool:
        if not self._at.is_tls:
            return False  # loading the system's certificates takes 20 ms
        return True if self._certificate is None else trust_only(self._certificate)

    @contextmanager
    def raise_client_errors(self, accumulator: StreamAccumulator | None = None) -> Iterator[None]:
        """Turn exceptions of ``httpx2`` into client errors; ``accumulator`` has the text of a stream so far."""
        text = ""
        try:
            yield
        except httpx2.SSEError as error:
            raise StrangeAnswer(self.url, str(error)) from None
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.UnsupportedProtocol, httpx2.InvalidURL) as error:
            raise Unreachable(self.url, str(error) or type(error).__name__) from None
        except httpx2.TimeoutException:
            text = "" if accumulator is None else accumulator.text
            raise TimedOut(self.url, self.timeout, text) from None
        except httpx2.HTTPError as error:
            text = "" if accumulator is None else accumulator.text
            raise ConnectionLost(self.url, str(error) or type(error).__name__, text) from None

    def check_complete(self, accumulator: StreamAccumulator) -> None:
        """Raise ``ConnectionLost`` if a stream ended without the final event."""
        if not accumulator.complete:
            raise ConnectionLost(self.url, "the stream ended early", accumulator.text)
