"""HTTP client for everything but the Hub and llama-server: time limits, redirects, causes of failures.

Not imported on a warm start; ``httpx2`` is imported with the first request.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urljoin

from llama_runner.core.url_redaction import redacted
from llama_runner.system.http_failure import connection_failure, url_origin
from llama_runner.system.network_settings import user_agent

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from llama_runner.system.http_failure import Cause

CONNECT_S = 10.0
READ_S = 30.0
"""Maximum seconds between two reads."""
WHOLE_S = 60.0
"""Maximum seconds for a response that is read as a whole."""
_MAX_REDIRECTS = 5
_REDIRECTS = {301, 302, 303, 307, 308}


class HttpFailed(Exception):
    """A request without a complete response. Callers turn it into an error of their own."""

    def __init__(self, why: str, hint: str | None = None, cause: Cause | Literal["bad answer"] = "bad answer") -> None:
        self.why, self.hint, self.cause = redacted(why), hint, cause
        super().__init__(self.why)


class Response:
    """A response whose body has not been read yet."""

    def __init__(self, response: Any, url: str) -> None:  # noqa: ANN401 - of httpx2
        self.status: int = response.status_code
        self.headers: Mapping[str, str] = response.headers
        self._response, self._url = response, url

    def blocks(self, *, decoded: bool = True) -> Iterator[bytes]:
        """Yield the body in blocks as they arrive; ``decoded``: decompressed by its Content-Encoding."""
        blocks = self._response.iter_bytes() if decoded else self._response.iter_raw()
        while True:
            with _http_errors(self._url):
                block = next(blocks, None)
            if block is None:
                return
            yield block

    def read(self, limit: int) -> bytes:
        """Return the body. Raises ``HttpFailed`` if it has more than ``limit`` bytes or takes more than ``WHOLE_S``."""
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
    """Send a GET request and yield the response, whatever its status; redirects are followed.

    ``same_host``: refuse redirects to another host, as ``headers`` have a secret. Raises ``HttpFailed``.
    """
    headers = {"User-Agent": user_agent(), **(headers or {})}
    import httpx2  # noqa: PLC0415 - not on the warm path

    with _http_errors(url):
        client = httpx2.Client(timeout=httpx2.Timeout(READ_S, connect=CONNECT_S))
    with client:
        for _ in range(_MAX_REDIRECTS + 1):
            with _http_errors(url):
                response = client.send(client.build_request("GET", url, headers=headers), stream=True)
            try:
                if response.status_code not in _REDIRECTS:
                    yield Response(response, url)
                    return
            finally:
                response.close()
            target = urljoin(url, response.headers.get("location", ""))
            if same_host and url_origin(target) != url_origin(url):
                raise HttpFailed(f"redirected to another host, {url_origin(target)}")
            url = target
        raise HttpFailed(f"more than {_MAX_REDIRECTS} redirects")


@contextmanager
def _http_errors(url: str) -> Iterator[None]:
    """Turn the exceptions of ``httpx2`` into ``HttpFailed``, with hints for proxies and certificates."""
    import httpx2  # noqa: PLC0415 - not on the warm path

    try:
        yield
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError, ValueError, ImportError) as error:
        failure = connection_failure(error, url_origin(url))
        if failure is not None:
            raise HttpFailed(failure.text, failure.hint, failure.cause) from None
        raise HttpFailed(str(error) or type(error).__name__) from None
