"""What an exception of huggingface_hub, or of the HTTP client below it, means; and whether and when to try again.

The only place that knows what they raise. The HTTP client's classes are known by their names: huggingface_hub has
changed its client between versions.
"""

from __future__ import annotations

import os
import socket
import ssl
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from llama_runner.core.errors import LlamaRunnerError
from llama_runner.sources.hub.errors import (
    BadAnswer,
    BadCertificate,
    BadCertificateFile,
    BadRepositoryName,
    Blocked,
    ConnectionLost,
    ConnectionRefused,
    Forbidden,
    Gated,
    HubBroken,
    HubError,
    HubRefused,
    NameNotResolved,
    NoSuchFile,
    NoSuchRepository,
    NoSuchRevision,
    NotFetched,
    NotReached,
    Offline,
    ProxyFailed,
    RateLimited,
    StorageRefused,
    TimedOut,
    TokenRefused,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llama_runner.sources.hub.access import Access


def explain(
    error: Exception,
    *,
    repo: str,
    access: Access,
    revision: str | None = None,
    file: str | None = None,
    downloading: bool = False,
) -> LlamaRunnerError:
    """Return what an exception of huggingface_hub or of its HTTP client means for whoever asked for ``repo``.

    With ``downloading`` it is a ``DownloadError``. What is ours already comes back as it is.
    """
    found = error if isinstance(error, LlamaRunnerError) else _cause(error, repo, revision, file, access)
    return NotFetched(repo, file, found) if downloading and isinstance(found, HubError) else found


def is_transient(error: Exception) -> bool:
    """Return whether asking again may help: the network, a time-out, 408, 425, 429, and 5xx but 501."""
    response = _response(error)
    if response is not None:
        status = int(response.status_code)
        # a link to the storage that has run out; the Hub gives a new one
        expired = status == 403 and bool(response.history)  # noqa: PLR2004
        return status in {408, 425, 429} or (status >= 500 and status != 501) or expired  # noqa: PLR2004
    if any(isinstance(one, ssl.SSLCertVerificationError) for one in _chain(error)):
        return False
    return _named(error, "TimeoutException", "NetworkError", "RemoteProtocolError") is not None


def retry_after(error: Exception) -> float | None:
    """Return in how many seconds the server wants to be asked again, if it says so."""
    response = _response(error)
    if response is None:
        return None
    if given := response.headers.get("Retry-After", "").strip():
        return float(given) if given.isdecimal() and given.isascii() else _until(given)
    for part in response.headers.get("RateLimit", "").split(";") if response.status_code == 429 else ():  # noqa: PLR2004
        name, _, value = part.strip().partition("=")
        if name == "t" and value.isdecimal() and value.isascii():
            return float(value)
    return None


def _until(date: str) -> float | None:
    from email.utils import parsedate_to_datetime  # noqa: PLC0415 - seldom

    try:
        return max(0.0, parsedate_to_datetime(date).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and what led to it; huggingface_hub wraps, and its HTTP client wraps what the system says."""
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        yield one
        one = one.__cause__ or one.__context__


def _response(error: BaseException) -> Any:  # noqa: ANN401 - of whichever HTTP client huggingface_hub uses
    responses = (getattr(one, "response", None) for one in _chain(error))
    return next((response for response in responses if hasattr(response, "headers")), None)


def _named(error: BaseException, *names: str) -> BaseException | None:
    """Return the first in the chain that is of such a class; by name, as huggingface_hub has changed its client."""
    for one in _chain(error):
        if any(cls.__name__ in names for cls in type(one).__mro__):
            return one
    return None


def _cause(error: Exception, repo: str, revision: str | None, file: str | None, access: Access) -> LlamaRunnerError:
    response = _response(error)
    if response is not None:
        return _answered(error, response, repo, revision, file, access)
    if _named(error, "OfflineModeIsEnabled"):
        return Offline(repo if file is None else f"{file} of {repo}")
    if _named(error, "HFValidationError"):
        return BadRepositoryName(repo)
    lost = _named(error, "TransportError", "TimeoutError")
    if lost is not None:
        return _unreached(lost, access)
    if found := _bad_setting(error, access.endpoint):
        return found
    where = _where(_named(error, "HTTPError", "InvalidURL") or error, access)
    return BadAnswer(where, _one_line(f"{error}" or type(error).__name__, access))


def _answered(  # noqa: C901, PLR0912 - a table
    error: Exception,
    response: Any,  # noqa: ANN401
    repo: str,
    revision: str | None,
    file: str | None,
    access: Access,
) -> HubError:
    status, code, where = int(response.status_code), response.headers.get("X-Error-Code"), _origin(str(response.url))
    said = _one_line(response.headers.get("X-Error-Message") or getattr(error, "server_message", None) or "", access)
    match status:
        case _ if code is None and status in {401, 403, 404, 410} and where != _origin(access.endpoint):
            return StorageRefused(where, status)
        case _ if code == "RevisionNotFound":
            return NoSuchRevision(repo, revision or "main")
        case _ if code == "EntryNotFound" or (code is None and status == 404 and file):  # noqa: PLR2004
            return NoSuchFile(repo, revision, file or "of that name")
        case 401 if access.token is not None:
            return TokenRefused(access)
        case _ if code == "GatedRepo":
            return Gated(repo, access)
        case 401 | 404:
            return NoSuchRepository(repo, access)
        case _ if code == "RepoNotFound":
            return NoSuchRepository(repo, access)
        case _ if status == 451 or said.startswith("Access to this resource is disabled"):  # noqa: PLR2004
            return Blocked(repo, access, said)
        case 403:
            return Forbidden(repo, access, said)
        case 407:
            return ProxyFailed(access.endpoint, proxy_of(access.endpoint) or where, "407")
        case 429:
            return RateLimited(access, retry_after(error))
        case _ if status >= 500:  # noqa: PLR2004
            return HubBroken(where, status, said)
        case _ if status < 300:  # noqa: PLR2004
            return BadAnswer(where, said or f"status {status}")
    return HubRefused(where, status, said)


def _unreached(lost: BaseException, access: Access) -> NotReached:
    where = _where(lost, access)
    proxy = proxy_of(where)
    why = _one_line(str(lost), access) or type(lost).__name__
    inner = list(_chain(lost))
    certificate = next((one for one in inner if isinstance(one, ssl.SSLCertVerificationError)), None)
    if certificate is not None:
        return BadCertificate(where, certificate.verify_message or why)
    connecting = _named(lost, "ConnectError", "ConnectTimeout", "ProxyError") is not None
    if proxy is not None and connecting:
        return ProxyFailed(where, proxy, why)
    if any(isinstance(one, socket.gaierror) for one in inner):
        return NameNotResolved(where, urlsplit(where).hostname or where)
    if any(isinstance(one, ConnectionRefusedError) for one in inner):
        return ConnectionRefused(where)
    if isinstance(lost, TimeoutError):  # of our own, with its own words
        return TimedOut(where, why)
    if _named(lost, "TimeoutException"):
        return TimedOut(where, "no connection in time" if connecting else "no answer in time")
    return NotReached(where, why) if connecting else ConnectionLost(where, f"the connection broke: {why}")


def _bad_setting(error: Exception, where: str) -> NotReached | None:
    """Return what in the environment keeps the HTTP client from being made."""
    for variable in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        path = os.environ.get(variable)
        if path and isinstance(error, OSError):  # an ssl.SSLError is one
            return BadCertificateFile(where, variable, path, error.strerror or str(error))
    proxy = proxy_of(where)
    if proxy is not None and isinstance(error, ImportError):
        return ProxyFailed(where, proxy, "for SOCKS the package socksio would have to be installed")
    if proxy is not None and isinstance(error, ValueError):
        return ProxyFailed(where, proxy, "that is no address of a proxy")
    return None


def proxy_of(url: str) -> str | None:
    """Return the proxy that a request for ``url`` goes through, without a user name or a password."""
    from urllib.request import getproxies, proxy_bypass  # noqa: PLC0415 - seldom

    parts = urlsplit(url)
    proxies = getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if not proxy or proxy_bypass(parts.hostname or ""):
        return None
    return _origin(proxy if "://" in proxy else f"http://{proxy}")


def _where(error: BaseException, access: Access) -> str:
    try:
        return _origin(str(error.request.url))  # type: ignore[attr-defined]
    except (AttributeError, RuntimeError):  # no request is known
        return access.endpoint


def _origin(url: str) -> str:
    """Return scheme, host and port of a URL: the rest may be long, or a secret."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def _one_line(text: str, access: Access) -> str:
    """Return the first line of what somebody said, fit to be shown and without the token."""
    line = next(iter(access.hide(text).strip().splitlines()), "")
    return "".join(letter for letter in line if letter.isprintable())[:200].rstrip(". ")
