"""Maps exceptions of huggingface_hub and its HTTP client to typed errors, and decides whether a retry may help.

No other module handles their exceptions; ``system.http_failure`` finds the cause of a failed connection.
"""

from __future__ import annotations

import ssl
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from llama_runner.core.errors import LlamaRunnerError
from llama_runner.sources.hub.errors import (
    BadCertificate,
    ConnectionLost,
    HubError,
    NoSuchFile,
    NoSuchRepository,
    NoSuchRevision,
    NotFetched,
    NotReached,
    ProxyFailed,
    RateLimited,
    TimedOut,
    bad_answer_error,
    bad_certificate_file_error,
    bad_repository_name_error,
    blocked_error,
    connection_refused_error,
    forbidden_error,
    gated_error,
    hub_broken_error,
    hub_refused_error,
    name_not_resolved_error,
    offline_error,
    storage_refused_error,
    token_refused_error,
)
from llama_runner.system.http_failure import (
    connection_failure,
    exception_chain,
    find_exception,
    one_line,
    proxy_of,
    request_origin,
    url_origin,
)

if TYPE_CHECKING:
    from llama_runner.sources.hub.endpoint_and_token import Access
    from llama_runner.system.http_failure import HttpFailure


def map_error(
    error: Exception,
    *,
    repo: str,
    access: Access,
    revision: str | None = None,
    file: str | None = None,
    downloading: bool = False,
) -> LlamaRunnerError:
    """Return the typed error for an exception of huggingface_hub or its HTTP client, raised by a request for ``repo``.

    With ``downloading`` it is a ``DownloadError``. An error of this package is returned unchanged.
    """
    found = error if isinstance(error, LlamaRunnerError) else _cause(error, repo, revision, file, access)
    return NotFetched(repo, file, found) if downloading and isinstance(found, HubError) else found


def is_transient(error: Exception) -> bool:
    """Return whether a retry may help: a network error, a time-out, 408, 425, 429, and 5xx except 501."""
    response = _response(error)
    if response is not None:
        status = int(response.status_code)
        # a link to the storage that has run out; the Hub gives a new one
        expired = status == 403 and bool(response.history)  # noqa: PLR2004
        return status in {408, 425, 429} or (status >= 500 and status != 501) or expired  # noqa: PLR2004
    if any(isinstance(one, ssl.SSLCertVerificationError) for one in exception_chain(error)):
        return False
    return find_exception(error, "TimeoutException", "NetworkError", "RemoteProtocolError") is not None


def retry_after(error: Exception) -> float | None:
    """Return the seconds that the server asks to wait, None if it names none."""
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


def _response(error: BaseException) -> Any:  # noqa: ANN401 - of whichever HTTP client huggingface_hub uses
    responses = (getattr(one, "response", None) for one in exception_chain(error))
    return next((response for response in responses if hasattr(response, "headers")), None)


def _cause(error: Exception, repo: str, revision: str | None, file: str | None, access: Access) -> LlamaRunnerError:
    response = _response(error)
    if response is not None:
        return _answered(error, response, repo, revision, file, access)
    if find_exception(error, "OfflineModeIsEnabled"):
        return offline_error(repo if file is None else f"{file} of {repo}")
    if find_exception(error, "HFValidationError"):
        return bad_repository_name_error(repo)
    if failure := connection_failure(error, access.endpoint, access.redact):
        return _not_reached(failure)
    where = request_origin(find_exception(error, "HTTPError", "InvalidURL") or error, access.endpoint)
    return bad_answer_error(where, one_line(access.redact(f"{error}" or type(error).__name__)))


def _answered(  # noqa: C901, PLR0912 - a table
    error: Exception,
    response: Any,  # noqa: ANN401
    repo: str,
    revision: str | None,
    file: str | None,
    access: Access,
) -> HubError:
    status, code = int(response.status_code), response.headers.get("X-Error-Code")
    where = url_origin(str(response.url))
    said = one_line(
        access.redact(response.headers.get("X-Error-Message") or getattr(error, "server_message", None) or "")
    )
    match status:
        case _ if code is None and status in {401, 403, 404, 410} and where != url_origin(access.endpoint):
            return storage_refused_error(where, status)
        case _ if code == "RevisionNotFound":
            return NoSuchRevision(repo, revision or "main")
        case _ if code == "EntryNotFound" or (code is None and status == 404 and file):  # noqa: PLR2004
            return NoSuchFile(repo, revision, file or "of that name")
        case 401 if access.token is not None:
            return token_refused_error(access)
        case _ if code == "GatedRepo":
            return gated_error(repo, access)
        case 401 | 404:
            return NoSuchRepository(repo, access)
        case _ if code == "RepoNotFound":
            return NoSuchRepository(repo, access)
        case _ if status == 451 or said.startswith("Access to this resource is disabled"):  # noqa: PLR2004
            return blocked_error(repo, access, said)
        case 403:
            return forbidden_error(repo, access, said)
        case 407:
            return ProxyFailed(access.endpoint, proxy_of(access.endpoint) or where, "407")
        case 429:
            return RateLimited(access, retry_after(error))
        case _ if status >= 500:  # noqa: PLR2004
            return hub_broken_error(where, status, said)
        case _ if status < 300:  # noqa: PLR2004
            return bad_answer_error(where, said or f"status {status}")
    return hub_refused_error(where, status, said)


def _not_reached(failure: HttpFailure) -> NotReached:
    where, why = failure.where, failure.why
    match failure.cause:
        case "name":
            return name_not_resolved_error(where, urlsplit(where).hostname or where)
        case "refused":
            return connection_refused_error(where)
        case "time-out":
            return TimedOut(where, why)
        case "certificate":
            return BadCertificate(where, why)
        case "certificate file":
            return bad_certificate_file_error(where, failure.variable, failure.path, why)
        case "proxy":
            return ProxyFailed(where, failure.proxy, why)
        case "lost":
            return ConnectionLost(where, why)
    return NotReached(where, why)
