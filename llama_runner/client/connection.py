"""Where a server is, how one connects to it, and what a failing connection is called: the same for both shells."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx2

from llama_runner.client.address import ServerAddress, only_trusting
from llama_runner.client.errors import ConnectionLost, StrangeAnswer, TimedOut, Unreachable

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from llama_runner.client.protocol import Gathered

TIMEOUT_S = 600.0
"""Seconds that a server may think before it says something."""

_CONNECT_S = 10.0
_KEPT_S = 3.0
"""Idle connections are dropped before llama-server does it, after 5 s: a request might just be on its way."""


class Address:
    """The base address of a server, without ``/v1``, and what it takes to be let in."""

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
        """What programs for the OpenAI API want as base URL."""
        return f"{self._at.base}/v1"

    def client(self, transport: Callable[..., object]) -> dict[str, Any]:
        """Return the arguments of a client of ``httpx2``; ``transport`` is the kind that it takes for a socket."""
        how: dict[str, Any] = {
            "verify": self._trust(),
            "trust_env": not self._at.is_local,  # a proxy cannot reach our loopback
            # as many connections as somebody wants requests at once: the server queues them
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
            return False  # loading the certificates of the world takes 20 ms
        return True if self._certificate is None else only_trusting(self._certificate)

    @contextmanager
    def told(self, gathered: Gathered | None = None) -> Iterator[None]:
        """Raise what goes wrong inside under its name here; ``gathered`` is what has come of a stream."""
        text = ""
        try:
            yield
        except httpx2.SSEError as error:
            raise StrangeAnswer(self.url, str(error)) from None
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.UnsupportedProtocol, httpx2.InvalidURL) as error:
            raise Unreachable(self.url, str(error) or type(error).__name__) from None
        except httpx2.TimeoutException:
            text = "" if gathered is None else gathered.text
            raise TimedOut(self.url, self.timeout, text) from None
        except httpx2.HTTPError as error:
            text = "" if gathered is None else gathered.text
            raise ConnectionLost(self.url, str(error) or type(error).__name__, text) from None

    def must_be_whole(self, gathered: Gathered) -> None:
        """Raise ``ConnectionLost`` for a stream that ended before the server said that this is all."""
        if not gathered.whole:
            raise ConnectionLost(self.url, "the stream ended early", gathered.text)
