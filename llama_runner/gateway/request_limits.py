"""Limits of requests: the size of a body, and how many a client may have in progress (``requests`` of its key)."""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

from llama_runner.gateway.errors import TooManyRequests

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llama_runner.gateway.access_control import Client


LARGEST_BODY = 64 << 20
"""Bytes of a request's body."""


class RequestLimits:
    """Counts the requests in progress, by the name of their client. Only POST requests count."""

    def __init__(self) -> None:
        self._in_progress: Counter[str] = Counter()

    @contextmanager
    def count(self, client: Client, method: str) -> Iterator[None]:
        """Count a request until it is answered; ``TooManyRequests`` if the client has its number in progress."""
        if client.requests is None or method != "POST":
            yield
            return
        if self._in_progress[client.name] >= client.requests:
            raise TooManyRequests(client.requests)
        self._in_progress[client.name] += 1
        try:
            yield
        finally:
            self._in_progress[client.name] -= 1
