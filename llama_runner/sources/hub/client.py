"""Client of the Hub's API: revisions, refs and search.

Requests go through huggingface_hub's session, so that its configuration applies, but not through its ``HfApi``: some
requests of that have no time-out, it sleeps as long as a server tells it to, and it first fetches a list of known
agents. ``download`` fetches files.
"""

from __future__ import annotations

import json
import os
import random
import time
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from llama_runner.core.errors import Interrupted
from llama_runner.core.immutable_values import Value
from llama_runner.sources.hub import api_schema
from llama_runner.sources.hub.endpoint_and_token import ANSWER_TIMEOUT, timeout_s
from llama_runner.sources.hub.error_mapping import is_transient, map_error, retry_after
from llama_runner.sources.hub.errors import NoSuchRepository, bad_answer_error, bad_repository_name_error

if TYPE_CHECKING:
    from collections.abc import Callable

    from llama_runner.sources.hub.api_schema import Refs, RepositoryEntry
    from llama_runner.sources.hub.endpoint_and_token import Access
    from llama_runner.sources.hub.pins import Pin

T = TypeVar("T")

DEFAULT_REVISION = "main"
MAX_RESPONSE_BYTES = 64 << 20
MAX_ERROR_BYTES = 64 << 10
_WHOLE = 200
_SLICE_S = 0.2
"""Seconds between two checks for cancellation while waiting."""


class RequestLimits(Value):
    """Time-outs and retries of one request; times in seconds."""

    connect: float = 10.0
    read: float = 30.0
    """Maximum time without a byte; ``HF_HUB_ETAG_TIMEOUT`` overrides it."""
    total: float = 120.0
    """Maximum time for one answer."""
    tries: int = 4
    pause: float = 0.5
    """Pause before the second try; doubled each time, with a random factor between 0.5 and 1."""
    longest_pause: float = 120.0
    """Maximum ``Retry-After`` that is obeyed; a longer one fails the request."""
    sleep: Callable[[float], None] = time.sleep


class _Request(Value):
    """One request, with the repository and revision for error messages."""

    url: str
    repo: str
    revision: str | None
    params: dict[str, str]
    part: tuple[int, int] | None = None
    """The part of a file that is asked for: its first byte, and the one after its last."""


def _never() -> bool:
    return False


def _ignore(_what: str, _text: str) -> None:
    pass


class HubClient:
    """Stateless client of the Hub's API; safe for several threads."""

    def __init__(
        self,
        access: Access,
        *,
        notice: Callable[[str, str], None] = _ignore,
        cancelled: Callable[[], bool] = _never,
        limits: RequestLimits | None = None,
    ) -> None:
        """Make a client; ``notice`` gets a code and a text for each retry."""
        self._access, self._notice, self._cancelled = access, notice, cancelled
        self._limits = limits or RequestLimits()
        self._answer_s = timeout_s(os.environ, ANSWER_TIMEOUT) or self._limits.read

    def pin(self, repo: str, revision: str | None) -> Pin:
        """Return the repository at a branch, tag or commit: one request."""
        revision = revision or DEFAULT_REVISION
        path = f"/api/models/{_path(repo)}/revision/{quote(revision, safe='')}"
        return api_schema.parse_pin(self._json(path, {"blobs": "true"}, repo, revision), repo, self._access.endpoint)

    def refs(self, repo: str) -> Refs:
        """Return branches, tags and pull requests: one request."""
        answer = self._json(f"/api/models/{_path(repo)}/refs", {"include_prs": "1"}, repo)
        return api_schema.parse_refs(answer, repo, self._access.endpoint)

    def search(self, words: str, *, limit: int) -> list[RepositoryEntry]:
        """Return the most downloaded repositories with GGUF files that match ``words``: one request."""
        asked = {"search": words, "filter": "gguf", "sort": "downloads", "limit": str(limit), "full": "true"}
        try:
            answer = self._json("/api/models", asked, repr(words))
        except NoSuchRepository:
            raise bad_answer_error(self._access.endpoint, "it cannot be searched") from None
        return api_schema.parse_search(answer, self._access.endpoint)[:limit]

    def read(self, repo: str, commit: str, file: str, start: int, end: int) -> bytes:
        """Return a part of a file, from byte ``start`` to before ``end``: one request."""
        url = f"{self._access.endpoint}/{_path(repo)}/resolve/{quote(commit, safe='')}/{quote(file)}"
        content = self._get(_Request(url, repo, commit, {}, (start, end)))
        if len(content) != end - start:
            raise bad_answer_error(self._access.endpoint, f"it sent {len(content)} bytes of {file} of {end - start}")
        return content

    def _json(self, path: str, params: dict[str, str], repo: str, revision: str | None = None) -> object:
        content = self._get(_Request(self._access.endpoint + path, repo, revision, params))
        if len(content) > MAX_RESPONSE_BYTES:
            said = f"it sent more than {MAX_RESPONSE_BYTES >> 20} MiB about {repo}"
            raise bad_answer_error(self._access.endpoint, said)
        try:
            answer: object = json.loads(content)
        except (ValueError, RecursionError):
            page = content.lstrip()[:1] == b"<"
            what = "it sent a web page" if page else "it sent something that is not JSON"
            raise bad_answer_error(self._access.endpoint, what) from None
        return answer

    def _get(self, question: _Request) -> bytes:
        """Return the body, at most one byte more than the limit; retry transient failures."""
        for number in range(1, self._limits.tries + 1):
            if self._cancelled():
                raise Interrupted
            try:
                return self._once(question)
            except Interrupted:
                raise
            except Exception as error:
                explained = map_error(error, repo=question.repo, revision=question.revision, access=self._access)
                pause = self._pause(error, number)
                if pause is None:
                    raise explained from error
            self._notice("hub_again", f"{explained}; trying again in {max(pause, 1):.0f} s")
            self._wait(pause)
        raise AssertionError("there is no pause after the last try")

    def _pause(self, error: Exception, number: int) -> float | None:
        """Return the seconds to wait before the next try; None if there is none."""
        if number >= self._limits.tries or not is_transient(error):
            return None
        told = retry_after(error)
        if told is not None:
            return told if told <= self._limits.longest_pause else None
        return self._limits.pause * (1 << (number - 1)) * random.uniform(0.5, 1.0)  # noqa: S311 - not a secret

    def _wait(self, seconds: float) -> None:
        while seconds > 0:
            if self._cancelled():
                raise Interrupted
            self._limits.sleep(min(seconds, _SLICE_S))
            seconds -= _SLICE_S

    def _once(self, question: _Request) -> bytes:
        from huggingface_hub import get_session  # noqa: PLC0415 - not on the warm path
        from huggingface_hub.errors import HfHubHTTPError  # noqa: PLC0415

        deadline = time.monotonic() + self._limits.total
        connect, read = self._limits.connect, self._answer_s
        options: Any = {
            "headers": {**self._access.headers(), **_asked_headers(question.part)},
            "params": question.params,
            "timeout": (connect, read, read, connect),  # the last is for a free connection
        }
        with get_session().stream("GET", question.url, **options) as response:
            limit = question.part[1] if question.part else MAX_RESPONSE_BYTES
            limit = limit if response.is_success else MAX_ERROR_BYTES
            content = bytearray()
            for chunk in response.iter_bytes():
                content += chunk
                if len(content) > limit:
                    break
                if self._cancelled():
                    raise Interrupted
                if time.monotonic() > deadline:
                    raise TimeoutError(f"no whole answer in {self._limits.total:g} s")
            if not response.is_success:
                text = f"status {response.status_code}"
                raise HfHubHTTPError(text, response=response, server_message=_error_message(bytes(content)))
        if question.part is None:
            return bytes(content[: limit + 1])
        start, end = question.part
        begin = start if response.status_code == _WHOLE else 0  # a server that knows no parts sends all of it
        return bytes(content[begin : begin + end - start])


def _asked_headers(part: tuple[int, int] | None) -> dict[str, str]:
    if part is None:
        return {"Accept": "application/json"}
    return {"Accept-Encoding": "identity", "Range": f"bytes={part[0]}-{part[1] - 1}"}


def _error_message(content: bytes) -> str | None:
    """Return the Hub's own message from the body of an error: ``{"error": "…"}``."""
    try:
        answer = json.loads(content)
    except (ValueError, RecursionError):
        return None
    error = answer.get("error") if isinstance(answer, dict) else None
    return error if isinstance(error, str) else None


def _path(repo: str) -> str:
    """Return the repository's name quoted for a URL; raises ``HubError`` for a name that would change the path."""
    parts = repo.split("/")
    if len(parts) > 2 or any(part.strip(".") == "" or not part.isprintable() for part in parts):  # noqa: PLR2004
        raise bad_repository_name_error(repo)
    return quote(repo)
