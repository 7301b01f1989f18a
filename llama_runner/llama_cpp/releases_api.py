"""Client of the releases API, with a cache.

An answer is valid for an hour and then revalidated by its ETag, which does not count against the rate limit. After a
rate limit no request is sent before the time that the server named. Without an answer, the cached one is used.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from llama_runner.core.errors import DownloadError, ExitCode
from llama_runner.core.immutable_values import Value
from llama_runner.core.loopback import is_loopback
from llama_runner.llama_cpp.release_archives import BadListing, parse_releases, to_json, write_cache
from llama_runner.store.layout import safe_name
from llama_runner.system.files import read_json
from llama_runner.system.http_failure import url_origin
from llama_runner.system.network_settings import parse_endpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from llama_runner.llama_cpp.release_archives import Release

VARIABLE, TOKEN = "LLAMA_RUNNER_RELEASES", "GITHUB_TOKEN"
API = "https://api.github.com"
ENDPOINT = f"{API}/repos/ggml-org/llama.cpp"
MAX_AGE_S = 3600.0
_LARGEST_ANSWER = 16 << 20


class ReleasesUnknown(DownloadError):
    """The releases API gave no usable answer."""


def releases_offline_error(where: str) -> ReleasesUnknown:
    """Return the error for a request that is needed while offline."""
    error = ReleasesUnknown(
        f"the releases at {where} are not known here, and the network must not be used",
        hint="run once without --offline",
    )
    error.code = ExitCode.TOOL
    return error


def releases_not_reached_error(where: str, why: str, hint: str | None) -> ReleasesUnknown:
    """Return the error for an unreachable API."""
    return ReleasesUnknown(f"{where} cannot be reached: {why}", hint=hint)


def releases_limited_error(where: str, until: float, now: float, *, has_token: bool) -> ReleasesUnknown:
    """Return the error for a rate limit that ends at ``until``, in seconds since 1970."""
    seconds = max(0.0, until - now)
    clock = time.strftime("%H:%M:%S", time.localtime(until))
    more = "" if has_token else f"; with a token in {TOKEN} more requests are allowed"
    return ReleasesUnknown(
        f"{where} takes no more requests from here until {clock} (in {_age(seconds)})",
        hint=f"run again then{more}",
    )


def releases_refused_error(where: str, status: int, *, has_token: bool) -> ReleasesUnknown:
    """Return the error for a status that is not 200."""
    if status in {401, 403} and has_token:
        hint = f"the token in {TOKEN} is not accepted: renew it or unset it; none is needed"
    elif status >= 500:  # noqa: PLR2004
        hint = "nothing is wrong here; run again in a while"
    else:
        hint = f"check {VARIABLE}"
    return ReleasesUnknown(f"{where} refuses with status {status}", hint=hint)


def no_such_release_error(where: str, tag: str | None) -> DownloadError:
    """Return the error for a release that does not exist."""
    what = "has no release yet" if tag is None else f"has no release {tag}"
    return DownloadError(f"{where} {what}", hint="tags are like b1234; not every build is released")


class _CachedAnswer(Value):
    """Cached answer."""

    url: str
    etag: str | None
    at: float
    releases: tuple[Release, ...]


class ReleasesApi:
    """Client of the releases API; caches answers below ``directory``.

    ``notice`` gets a code and a text when an old answer is used.
    """

    def __init__(
        self,
        directory: Path,
        environment: Mapping[str, str],
        *,
        offline: bool = False,
        notice: Callable[[str, str], None] = lambda _what, _text: None,
        now: Callable[[], float] = time.time,
        largest: int = _LARGEST_ANSWER,
    ) -> None:
        self.endpoint = parse_endpoint(VARIABLE, environment.get(VARIABLE, ""), ENDPOINT, secrets_in=TOKEN)
        self._directory, self._offline, self._notice, self._now = directory, offline, notice, now
        self._largest = largest
        self._token = _token(environment, self.endpoint)

    def latest(self) -> Release:
        """Return the newest release; raises ``DownloadError``."""
        return self._get("/releases/latest", None)[0]

    def tagged(self, tag: str) -> Release:
        """Return the release ``tag``; raises ``DownloadError``."""
        release = self._get(f"/releases/tags/{quote(tag, safe='')}", tag)[0]
        if release.tag != tag:
            raise BadListing(self.endpoint, f"asked for {tag} it answers with {release.tag}")
        return release

    def recent(self, count: int = 10) -> tuple[Release, ...]:
        """Return the newest releases, including previews."""
        return self._get(f"/releases?per_page={count}", None, several=True)

    def _get(self, path: str, tag: str | None, *, several: bool = False) -> tuple[Release, ...]:
        url = self.endpoint + path
        file = self._directory / f"answer-{safe_name(url)}.json"
        kept = _read_cached(file, url)
        now = self._now()
        if kept is not None and 0 <= now - kept.at < MAX_AGE_S:
            return kept.releases
        try:
            found = self._ask(url, tag, kept, several=several)
        except (ReleasesUnknown, BadListing) as error:
            if kept is None:
                raise
            self._notice("old_releases", f"{error}; using its answer from {_age(now - kept.at)} ago")
            return kept.releases
        about = {"url": url, "etag": found.etag, "at": found.at, "releases": [to_json(each) for each in found.releases]}
        write_cache(file, about)
        return found.releases

    def _ask(self, url: str, tag: str | None, kept: _CachedAnswer | None, *, several: bool) -> _CachedAnswer:
        if self._offline:
            raise releases_offline_error(self.endpoint)
        limit = self._directory / f"limit-{safe_name(self.endpoint)}.json"
        now = self._now()
        until = _limit(limit, now)
        if until is not None:
            raise releases_limited_error(self.endpoint, until, now, has_token=self._token is not None)
        status, headers, body = self._answer(url, kept.etag if kept else None)
        if status == 304 and kept is not None:  # noqa: PLR2004
            return kept.replace(at=now)
        if status in {403, 429} and (until := _until(status, headers, now)) is not None:
            write_cache(limit, {"until": until})
            raise releases_limited_error(self.endpoint, until, now, has_token=self._token is not None)
        if status == 404:  # noqa: PLR2004
            raise no_such_release_error(self.endpoint, tag)
        if status != 200:  # noqa: PLR2004
            raise releases_refused_error(self.endpoint, status, has_token=self._token is not None)
        try:
            value = json.loads(body)
        except (ValueError, RecursionError):
            raise BadListing(self.endpoint, "it is not JSON") from None
        if isinstance(value, list) is not several:
            raise BadListing(self.endpoint, "it is a list" if isinstance(value, list) else "it is no list")
        return _CachedAnswer(url, headers.get("etag"), now, parse_releases(value, self.endpoint))

    def _answer(self, url: str, etag: str | None) -> tuple[int, Mapping[str, str], bytes]:
        """Return status, headers and body; raises ``ReleasesUnknown``."""
        from llama_runner.system.http_client import HttpFailed, get  # noqa: PLC0415 - not on the warm path

        headers = {"Accept": "application/vnd.github+json"}
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token}"
        if etag is not None:
            headers["If-None-Match"] = etag
        try:
            with get(url, headers, same_host=True) as response:
                return response.status, response.headers, response.read(self._largest)
        except HttpFailed as error:
            why = error.why.replace(self._token, "<token>") if self._token else error.why
            if error.cause == "bad answer":
                raise BadListing(self.endpoint, why) from None
            hint = error.hint or f"check the network and {VARIABLE}; for a proxy set HTTPS_PROXY"
            raise releases_not_reached_error(self.endpoint, why, hint) from None


def _token(environment: Mapping[str, str], endpoint: str) -> str | None:
    """Return GitHub's token if the endpoint is GitHub's API (or that of ``GITHUB_API_URL``), else None.

    It is not sent to mirrors, nor over an unencrypted connection.
    """
    token = environment.get(TOKEN, "").strip()
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        return None
    apis = {url_origin(API), url_origin(environment.get("GITHUB_API_URL") or API)}
    is_private = urlsplit(endpoint).scheme == "https" or is_loopback(urlsplit(endpoint).hostname or "")
    return token if url_origin(endpoint) in apis and is_private else None


def _read_cached(file: Path, url: str) -> _CachedAnswer | None:
    """Return the cached answer; None if there is none, or the file is damaged."""
    try:
        value = read_json(file)
        if value["url"] != url:
            return None
        etag = value["etag"]
        return _CachedAnswer(
            url, etag if isinstance(etag, str) else None, float(value["at"]), parse_releases(value["releases"], url)
        )
    except (OSError, ValueError, KeyError, TypeError, BadListing):
        return None


def _limit(file: Path, now: float) -> float | None:
    """Return the end of a rate limit; None if requests are allowed."""
    try:
        until = float(read_json(file)["until"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return until if now < until <= now + 2 * MAX_AGE_S else None


def _until(status: int, headers: Mapping[str, str], now: float) -> float | None:
    """Return the end of the rate limit that a refusal states; None for any other refusal."""
    after, reset = headers.get("retry-after", ""), headers.get("x-ratelimit-reset", "")
    if after.isascii() and after.isdecimal():
        return now + min(float(after), MAX_AGE_S)
    if headers.get("x-ratelimit-remaining") == "0" and reset.isascii() and reset.isdecimal():
        return min(max(float(reset), now), now + MAX_AGE_S)
    return now + 60.0 if status == 429 else None  # noqa: PLR2004 - what GitHub's manual says for no time given


def _age(seconds: float) -> str:
    for length, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
