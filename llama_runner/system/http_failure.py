"""Determines from an exception of an HTTP client why a request got no response.

The client's classes are recognised by their names, because huggingface_hub has changed its client between versions.
"""

from __future__ import annotations

import os
import socket
import ssl
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from llama_runner.core.immutable_values import Value

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Cause = Literal["name", "refused", "time-out", "certificate", "certificate file", "proxy", "no connection", "lost"]

CERTIFICATE_HINT = (
    "if a proxy or a mirror has a certificate authority of its own, set SSL_CERT_FILE to its "
    "certificates (REQUESTS_CA_BUNDLE is not read)"
)
_LONGEST = 200


class HttpFailure(Value):
    """A request without a response. ``where``: scheme, host and port of the server; ``why``: the system's message."""

    cause: Cause
    where: str
    why: str
    proxy: str = ""
    """The URL of the failing proxy, without credentials."""
    variable: str = ""
    """The environment variable that names unreadable certificates."""
    path: str = ""
    """The value of the variable."""

    @property
    def text(self) -> str:
        """The cause as a clause."""
        match self.cause:
            case "name":
                return f"no address is known for {urlsplit(self.where).hostname or self.where}"
            case "refused":
                return "the connection was refused"
            case "certificate":
                return f"its certificate is not accepted: {self.why}"
            case "certificate file":
                return f"{self.variable} is {self.path}: {self.why}"
            case "proxy":
                needs_login = self.why.startswith("407")
                return (
                    f"the proxy {self.proxy} fails: {'it asks for a name and a password' if needs_login else self.why}"
                )
        return self.why

    @property
    def hint(self) -> str | None:
        """What to do if a setting of this machine is the cause, else None."""
        match self.cause:
            case "certificate":
                return CERTIFICATE_HINT
            case "certificate file":
                return f"set {self.variable} to certificates in PEM, or unset it"
            case "proxy" if self.why.startswith("407"):
                return "put the right ones into HTTPS_PROXY or HTTP_PROXY: http://NAME:PASSWORD@HOST:PORT"
            case "proxy":
                return "check HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY"
        return None


def connection_failure(error: BaseException, endpoint: str, hide: Callable[[str], str] = str) -> HttpFailure | None:
    """Return why a request to ``endpoint`` got no response; None for an exception with another meaning.

    ``hide`` removes secrets from messages.
    """
    lost = find_exception(error, "TransportError", "TimeoutError")
    return _configuration_failure(error, endpoint) if lost is None else _transport_failure(lost, endpoint, hide)


def _transport_failure(lost: BaseException, endpoint: str, hide: Callable[[str], str]) -> HttpFailure:
    where = request_origin(lost, endpoint)
    proxy = proxy_of(where)
    why = one_line(hide(str(lost))) or type(lost).__name__
    inner = list(exception_chain(lost))
    certificate = next((one for one in inner if isinstance(one, ssl.SSLCertVerificationError)), None)
    if certificate is not None:
        return HttpFailure("certificate", where, certificate.verify_message or why)
    connecting = find_exception(lost, "ConnectError", "ConnectTimeout", "ProxyError") is not None
    if proxy is not None and connecting:
        return HttpFailure("proxy", where, why, proxy=proxy)
    if any(isinstance(one, socket.gaierror) for one in inner):
        return HttpFailure("name", where, why)
    if any(isinstance(one, ConnectionRefusedError) for one in inner):
        return HttpFailure("refused", where, why)
    if isinstance(lost, TimeoutError):  # raised by this package, with a text
        return HttpFailure("time-out", where, why)
    if find_exception(lost, "TimeoutException"):
        return HttpFailure("time-out", where, "no connection in time" if connecting else "no answer in time")
    if connecting:
        return HttpFailure("no connection", where, why)
    return HttpFailure("lost", where, f"the connection broke: {why}")


def _configuration_failure(error: BaseException, where: str) -> HttpFailure | None:
    """Return the setting in the environment because of which the HTTP client cannot be created."""
    for variable in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        path = os.environ.get(variable)
        if path and isinstance(error, (ssl.SSLError, FileNotFoundError, PermissionError, IsADirectoryError)):
            why = error.strerror or str(error)
            return HttpFailure("certificate file", where, why, variable=variable, path=path)
    proxy = proxy_of(where)
    if proxy is not None and isinstance(error, ImportError):
        return HttpFailure("proxy", where, "for SOCKS the package socksio would have to be installed", proxy=proxy)
    if proxy is not None and isinstance(error, ValueError):
        return HttpFailure("proxy", where, "it is not the URL of a proxy", proxy=proxy)
    return None


def proxy_of(url: str) -> str | None:
    """Return the URL of the proxy for requests to ``url``, without credentials; None without a proxy."""
    from urllib.request import getproxies, proxy_bypass  # noqa: PLC0415 - seldom

    parts = urlsplit(url)
    proxies = getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if not proxy or proxy_bypass(parts.hostname or ""):
        return None
    return url_origin(proxy if "://" in proxy else f"http://{proxy}")


def exception_chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and its causes and contexts."""
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        yield one
        one = one.__cause__ or one.__context__


def find_exception(error: BaseException, *names: str) -> BaseException | None:
    """Return the first exception in the chain whose class or base class has one of these names."""
    for one in exception_chain(error):
        if any(cls.__name__ in names for cls in type(one).__mro__):
            return one
    return None


def request_origin(error: BaseException, endpoint: str) -> str:
    """Return the origin of the failed request, or ``endpoint`` if the exception has no request."""
    try:
        return url_origin(str(error.request.url))  # type: ignore[attr-defined]
    except (AttributeError, RuntimeError):
        return endpoint


def url_origin(url: str) -> str:
    """Return scheme, host and port of a URL; the rest may be long or secret."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def one_line(text: str) -> str:
    """Return the first line of a foreign text, without unprintable characters."""
    line = next(iter(text.strip().splitlines()), "")
    return "".join(letter for letter in line if letter.isprintable())[:_LONGEST].rstrip(". ")
