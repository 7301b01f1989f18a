"""Errors of resolving and downloading from the Hub, each with its hint.

``error_mapping.map_error`` makes them from the exceptions of huggingface_hub and its HTTP client. While a name is
resolved they are ``SourceError``, with the exit status of a download if the Hub is unreachable; a failed download wraps
them in ``NotFetched``, a ``DownloadError``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llama_runner.core.errors import DownloadError, ExitCode, SourceError
from llama_runner.system.http_failure import CERTIFICATE_HINT

if TYPE_CHECKING:
    from llama_runner.sources.hub.endpoint_and_token import Access

_SETTINGS = "settings/tokens"


class HubError(SourceError):
    """The Hub, or the connection to it, does not provide what was requested."""


class HubUnavailable(HubError):
    """The Hub is unreachable or does not answer as expected."""

    code = ExitCode.DOWNLOAD


class NotFetched(DownloadError):
    """A file could not be fetched; ``reason`` is the cause."""

    def __init__(self, repo: str, file: str | None, reason: HubError) -> None:
        self.repo, self.file, self.reason = repo, file, reason
        what = repo if file is None else f"{file} of {repo}"
        super().__init__(f"{what} could not be fetched: {reason}", hint=reason.hint)


def offline_error(what: str) -> SourceError:
    """Return the error for a request that is needed while offline."""
    return SourceError(
        f"{what} is not here, and the network must not be used",
        hint="run once without --offline (and without HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE)",
    )


def bad_repository_name_error(repo: str) -> HubError:
    """Return the error for an impossible repository name."""
    return HubError(f"{repo!r} cannot be the name of a repository", hint="give it as ORG/MODEL")


class NoSuchRepository(HubError):
    """The repository does not exist, or is not visible with this token."""

    def __init__(self, repo: str, access: Access) -> None:
        self.repo, self.endpoint, self.origin = repo, access.endpoint, access.origin
        if access.token is None:
            hint = "check the name; if the repository is private, set HF_TOKEN or log in with hf auth login"
        else:
            hint = f"check the name; if it is private, the token from {access.origin} must be allowed to see it"
        super().__init__(f"{repo} does not exist on {access.endpoint}, or is private", hint=hint)


class NoSuchRevision(HubError):
    """The repository has no such branch, tag or commit."""

    def __init__(self, repo: str, revision: str) -> None:
        self.repo, self.revision = repo, revision
        super().__init__(
            f"{repo} has no branch, tag or commit called {revision}", hint="leave it out for the branch main"
        )


class NoSuchFile(HubError):
    """The repository has no such file at this revision."""

    def __init__(self, repo: str, revision: str | None, file: str) -> None:
        self.repo, self.revision, self.file = repo, revision, file
        at = "" if revision is None else f" at {revision}"
        super().__init__(f"{repo}{at} has no file {file}", hint="it may have been deleted; look again with --update")


def token_refused_error(access: Access) -> HubError:
    """Return the error for a token that the Hub does not accept."""
    return HubError(
        f"{access.endpoint} refuses the token from {access.origin}: it is invalid or expired",
        hint=f"make a new one at {access.endpoint}/{_SETTINGS}, or go without one for a public model",
    )


def gated_error(repo: str, access: Access) -> HubError:
    """Return the error for a repository whose terms have to be accepted first."""
    page = f"{access.endpoint}/{repo}"
    if access.token is None:
        fact = "is gated, and no token is set"
        hint = f"accept its terms at {page}, then set HF_TOKEN or log in with hf auth login"
    else:
        fact = f"is gated, and the owner of the token from {access.origin} has no access yet"
        hint = f"accept its terms at {page}; some makers grant access by hand"
    return HubError(f"{repo} {fact}", hint=hint)


def forbidden_error(repo: str, access: Access, said: str) -> HubError:
    """Return the error for a token that lacks a permission."""
    hint = "set HF_TOKEN to a token that may read it"
    if access.token is not None:
        hint = f"the token from {access.origin} lacks a permission: see {access.endpoint}/{_SETTINGS}"
    return HubError(f"{access.endpoint} denies access to {repo}{_quoted(said)}", hint=hint)


def blocked_error(repo: str, access: Access, said: str) -> HubError:
    """Return the error for a repository that the Hub has disabled."""
    return HubError(
        f"{repo} has been disabled on {access.endpoint}{_quoted(said)}", hint="look for another copy of the model"
    )


class RateLimited(HubUnavailable):
    """Too many requests; ``seconds`` until more are allowed, None if unknown."""

    def __init__(self, access: Access, seconds: float | None) -> None:
        self.endpoint, self.seconds = access.endpoint, seconds
        when = "" if seconds is None else f" for {_duration(seconds)}"
        more = "" if access.token is not None else "; with a token (HF_TOKEN) more requests are allowed"
        super().__init__(f"{access.endpoint} takes no more requests from here{when}", hint=f"run again then{more}")


def hub_broken_error(where: str, status: int, said: str) -> HubUnavailable:
    """Return the error for a 5xx status of the Hub."""
    return HubUnavailable(
        f"{where} fails with status {status}{_quoted(said)}", hint="nothing is wrong here; run again in a while"
    )


def hub_refused_error(where: str, status: int, said: str) -> HubUnavailable:
    """Return the error for any other status."""
    return HubUnavailable(f"{where} refuses with status {status}{_quoted(said)}", hint=_ENDPOINT_HINT)


def storage_refused_error(where: str, status: int) -> HubUnavailable:
    """Return the error for a refusal by the Hub's file storage, to which it redirects."""
    return HubUnavailable(
        f"{where}, where the Hub keeps the file, refuses with status {status}",
        hint="run again: such links last for a while only; a proxy may also be in the way",
    )


def bad_answer_error(where: str, what: str) -> HubUnavailable:
    """Return the error for an answer that is not one of the Hub's API."""
    return HubUnavailable(f"{where} does not answer as a hub does: {what}", hint=_ENDPOINT_HINT)


class NotReached(HubUnavailable):
    """No answer from the Hub; the subclasses name the cause."""

    def __init__(self, where: str, why: str, *, hint: str = "check the network, then run again") -> None:
        self.where, self.why = where, why
        super().__init__(f"{where} cannot be reached: {why}", hint=hint)


def name_not_resolved_error(where: str, host: str) -> NotReached:
    """Return the error for a host name without an address."""
    return NotReached(
        where,
        f"no address is known for {host}",
        hint="check the network and its DNS; for a mirror set HF_ENDPOINT, for a proxy HTTPS_PROXY",
    )


def connection_refused_error(where: str) -> NotReached:
    """Return the error for a refused connection."""
    return NotReached(where, "the connection was refused", hint=_ENDPOINT_HINT)


class ConnectionLost(NotReached):
    """The connection broke during the answer."""


class TimedOut(NotReached):
    """The time-out expired without a byte."""

    def __init__(self, where: str, why: str) -> None:
        super().__init__(
            where, why, hint="run again; a larger HF_HUB_DOWNLOAD_TIMEOUT (seconds) waits longer for an answer"
        )


class BadCertificate(NotReached):
    """The server's certificate is not trusted."""

    def __init__(self, where: str, why: str) -> None:
        super().__init__(
            where,
            f"its certificate is not accepted: {why}",
            hint=CERTIFICATE_HINT,
        )


def bad_certificate_file_error(where: str, variable: str, path: str, why: str) -> NotReached:
    """Return the error for an unreadable file of trusted certificates."""
    return NotReached(where, f"{variable} is {path}: {why}", hint=f"set {variable} to certificates in PEM, or unset it")


class ProxyFailed(NotReached):
    """The proxy refused or failed; ``proxy`` is without credentials."""

    def __init__(self, where: str, proxy: str, why: str) -> None:
        self.proxy = proxy
        hint = "check HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY"
        if why.startswith("407"):
            why = "it asks for a name and a password"
            hint = "put the right ones into HTTPS_PROXY or HTTP_PROXY: http://NAME:PASSWORD@HOST:PORT"
        super().__init__(where, f"the proxy {proxy} fails: {why}", hint=hint)


_ENDPOINT_HINT = "check the network and HF_ENDPOINT; a login page of the network or a proxy may be in the way"


def _quoted(said: str) -> str:
    return f": {said}" if said else ""


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} minutes"  # noqa: PLR2004 - two minutes
