"""HTTP outside of the Hub and of our own servers: one set of time limits, redirects, proxies, and causes of failures.

Never imported on a warm start; ``httpx2`` is loaded when something is asked for.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urljoin

from llama_runner.core.redaction import redacted
from llama_runner.system.http_failure import failure_of, url_origin
from llama_runner.system.network import user_agent

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from llama_runner.system.http_failure import Cause

CONNECT_S = 10.0
READ_S = 30.0
"""Without a byte for so long, a connection is lost."""
WHOLE_S = 60.0
"""For an answer that is read as a whole, however slowly it comes."""
_MOST_REDIRECTS = 5
_REDIRECTS = {301, 302, 303, 307, 308}


class HttpFailed(Exception):
    """A request got no answer, or not the whole of one. Always turned into an error of whoever made it."""

    def __init__(self, why: str, hint: str | None = None, cause: Cause | Literal["bad answer"] = "bad answer") -> None:
        self.why, self.hint, self.cause = redacted(why), hint, cause
        super().__init__(self.why)


class Response:
    """The answer to a request, whose body has not been read yet."""

    def __init__(self, response: Any, url: str) -> None:  # noqa: ANN401 - of httpx2
        self.status: int = response.status_code
        self.headers: Mapping[str, str] = response.headers
        self._response, self._url = response, url

    def blocks(self, *, decoded: bool = True) -> Iterator[bytes]:
        """Yield the body as it comes; ``decoded`` without the compression that the server says it has."""
        blocks = self._response.iter_bytes() if decoded else self._response.iter_raw()
        while True:
            with _explained(self._url):
                block = next(blocks, None)
            if block is None:
                return
            yield block

    def read(self, limit: int) -> bytes:
        """Return the body; ``HttpFailed`` where it is larger than ``limit`` bytes or takes too long."""
        body, end = bytearray(), time.monotonic() + WHOLE_S
        for block in self.blocks():
            body += block
            if len(body) > limit:
                raise HttpFailed(f"the answer is longer than {limit} bytes")
            if time.monotonic() > end:
                raise HttpFailed(f"no whole answer in {WHOLE_S:.0f} s", "run again in a while", "time-out")
        return bytes(body)


@contextmanager
def get(url: str, headers: Mapping[str, str] | None = None, *, same_host: bool = False) -> Iterator[Response]:
    """Ask for a URL and yield the answer, whatever its status; redirects are followed.

    ``same_host``: no redirect leads elsewhere, as ``headers`` have a secret. Raises ``HttpFailed``.
    """
    headers = {"User-Agent": user_agent(), **(headers or {})}
    import httpx2  # noqa: PLC0415 - not on the warm path

    with _explained(url):
        client = httpx2.Client(timeout=httpx2.Timeout(READ_S, connect=CONNECT_S))
    with client:
        for _ in range(_MOST_REDIRECTS + 1):
            with _explained(url):
                response = client.send(client.build_request("GET", url, headers=headers), stream=True)
            try:
                if response.status_code not in _REDIRECTS:
                    yield Response(response, url)
                    return
            finally:
                response.close()
            target = urljoin(url, response.headers.get("location", ""))
            if same_host and url_origin(target) != url_origin(url):
                raise HttpFailed(f"it leads to another host, {url_origin(target)}")
            url = target
        raise HttpFailed("it leads from one address to the next without end")


@contextmanager
def _explained(url: str) -> Iterator[None]:
    """Raise ``HttpFailed`` for what ``httpx2`` raises inside: bad certificates and proxies are other errors."""
    import httpx2  # noqa: PLC0415 - not on the warm path

    try:
        yield
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError, ValueError, ImportError) as error:
        failure = failure_of(error, url_origin(url))
        if failure is not None:
            raise HttpFailed(failure.text, failure.hint, failure.cause) from None
        raise HttpFailed(str(error) or type(error).__name__) from None
