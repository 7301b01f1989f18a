"""The only door to the Hub's API: what is at a revision, which names there are, a search.

Requests go through huggingface_hub's session, so that what a program configures there holds here too, but not through
its ``HfApi``: that has no time-out for some of them, sleeps for as long as a server tells it to, and before the first
asks for a list of known agents. Files are ``transfer``'s.
"""

from __future__ import annotations

import json
import os
import random
import time
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from llama_runner.core.errors import Interrupted
from llama_runner.core.value import Value
from llama_runner.sources.hub import api_schema
from llama_runner.sources.hub.access import ANSWER_TIMEOUT, seconds
from llama_runner.sources.hub.error_mapping import explain, is_transient, retry_after
from llama_runner.sources.hub.errors import NoSuchRepository, bad_answer_error, bad_repository_name_error

if TYPE_CHECKING:
    from collections.abc import Callable

    from llama_runner.sources.hub.access import Access
    from llama_runner.sources.hub.api_schema import Listed, Refs
    from llama_runner.sources.hub.pins import Pin

T = TypeVar("T")

DEFAULT_REVISION = "main"
MAX_RESPONSE_BYTES = 64 << 20
MAX_ERROR_BYTES = 64 << 10
_SLICE_S = 0.2
"""How long a wait does not look whether it was cancelled."""


class Patience(Value):
    """How long the Hub is waited for, in seconds, and how often it is asked."""

    connect: float = 10.0
    read: float = 30.0
    """Silence, at most; ``HF_HUB_ETAG_TIMEOUT`` goes before it."""
    whole: float = 120.0
    """For one answer, however slowly it comes."""
    tries: int = 4
    pause: float = 0.5
    """Before the second try; doubles each time, less up to a half by chance."""
    longest_pause: float = 120.0
    """A server that asks for more is not waited for."""
    sleep: Callable[[float], None] = time.sleep


class _Question(Value):
    """One request, and what it is about."""

    url: str
    repo: str
    revision: str | None
    params: dict[str, str]


def _never() -> bool:
    return False


def _ignore(_what: str, _text: str) -> None:
    pass


class HubClient:
    """Asks the Hub. May be used by several threads; keeps nothing between two questions."""

    def __init__(
        self,
        access: Access,
        *,
        notice: Callable[[str, str], None] = _ignore,
        cancelled: Callable[[], bool] = _never,
        patience: Patience | None = None,
    ) -> None:
        """Ask as ``access`` says; tell ``notice``, with a word and a clause, what the user has to wait for."""
        self._access, self._notice, self._cancelled = access, notice, cancelled
        self._patience = patience or Patience()
        self._answer_s = seconds(os.environ, ANSWER_TIMEOUT) or self._patience.read

    def pin(self, repo: str, revision: str | None) -> Pin:
        """Return what the repository is at a branch, tag or commit: one request."""
        revision = revision or DEFAULT_REVISION
        path = f"/api/models/{_path(repo)}/revision/{quote(revision, safe='')}"
        return api_schema.pin_of(self._json(path, {"blobs": "true"}, repo, revision), repo, self._access.endpoint)

    def refs(self, repo: str) -> Refs:
        """Return its branches, tags and pull requests: one request."""
        answer = self._json(f"/api/models/{_path(repo)}/refs", {"include_prs": "1"}, repo)
        return api_schema.refs_of(answer, repo, self._access.endpoint)

    def search(self, words: str, *, limit: int) -> list[Listed]:
        """Return the most downloaded repositories with GGUF files that a search for ``words`` finds: one request."""
        asked = {"search": words, "filter": "gguf", "sort": "downloads", "limit": str(limit), "full": "true"}
        try:
            answer = self._json("/api/models", asked, repr(words))
        except NoSuchRepository:
            raise bad_answer_error(self._access.endpoint, "it cannot be searched") from None
        return api_schema.listed_of(answer, self._access.endpoint)[:limit]

    def _json(self, path: str, params: dict[str, str], repo: str, revision: str | None = None) -> object:
        content = self._get(_Question(self._access.endpoint + path, repo, revision, params))
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

    def _get(self, question: _Question) -> bytes:
        """Return what the answer is: at most one byte more than is listened to. Asks again where that may help."""
        for number in range(1, self._patience.tries + 1):
            if self._cancelled():
                raise Interrupted
            try:
                return self._once(question)
            except Interrupted:
                raise
            except Exception as error:
                explained = explain(error, repo=question.repo, revision=question.revision, access=self._access)
                pause = self._pause(error, number)
                if pause is None:
                    raise explained from error
            self._notice("hub_again", f"{explained}; trying again in {max(pause, 1):.0f} s")
            self._wait(pause)
        raise AssertionError("there is no pause after the last try")

    def _pause(self, error: Exception, number: int) -> float | None:
        """Return how long to wait before the next try; None when there is to be none."""
        if number >= self._patience.tries or not is_transient(error):
            return None
        told = retry_after(error)
        if told is not None:
            return told if told <= self._patience.longest_pause else None
        return self._patience.pause * (1 << (number - 1)) * random.uniform(0.5, 1.0)  # noqa: S311 - not a secret

    def _wait(self, seconds: float) -> None:
        while seconds > 0:
            if self._cancelled():
                raise Interrupted
            self._patience.sleep(min(seconds, _SLICE_S))
            seconds -= _SLICE_S

    def _once(self, question: _Question) -> bytes:
        from huggingface_hub import get_session  # noqa: PLC0415 - not on the warm path
        from huggingface_hub.errors import HfHubHTTPError  # noqa: PLC0415

        deadline = time.monotonic() + self._patience.whole
        connect, read = self._patience.connect, self._answer_s
        options: Any = {
            "headers": {**self._access.headers(), "Accept": "application/json"},
            "params": question.params,
            "timeout": (connect, read, read, connect),  # the last is for a free connection
        }
        with get_session().stream("GET", question.url, **options) as response:
            limit = MAX_RESPONSE_BYTES if response.is_success else MAX_ERROR_BYTES
            content = bytearray()
            for chunk in response.iter_bytes():
                content += chunk
                if len(content) > limit:
                    break
                if self._cancelled():
                    raise Interrupted
                if time.monotonic() > deadline:
                    raise TimeoutError(f"no whole answer in {self._patience.whole:g} s")
            if not response.is_success:
                text = f"status {response.status_code}"
                raise HfHubHTTPError(text, response=response, server_message=_said(bytes(content)))
        return bytes(content[: limit + 1])


def _said(content: bytes) -> str | None:
    """Return the Hub's own words out of a refusal: ``{"error": "…"}``."""
    try:
        answer = json.loads(content)
    except (ValueError, RecursionError):
        return None
    error = answer.get("error") if isinstance(answer, dict) else None
    return error if isinstance(error, str) else None


def _path(repo: str) -> str:
    """Return the repository's name for a URL; ``HubError`` for one that would lead elsewhere."""
    parts = repo.split("/")
    if len(parts) > 2 or any(part.strip(".") == "" or not part.isprintable() for part in parts):  # noqa: PLR2004
        raise bad_repository_name_error(repo)
    return quote(repo)
