"""How the Hub is asked: strictly, patiently within bounds, through proxies, and with the token for nobody else."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from llama_runner.core.digest import file_digest
from llama_runner.core.errors import Interrupted
from llama_runner.sources.hub import client, errors
from llama_runner.sources.hub.api_schema import RepositoryEntry
from llama_runner.sources.hub.client import HubClient, RequestLimits
from llama_runner.sources.hub.endpoint_and_token import Access
from llama_runner.sources.hub.errors import HubUnavailable
from llama_runner.sources.hub.pins import Pin, RemoteFile
from tests.sources.hub.answering import Answering, answer, answering, dripping, endless

TOKEN = "hf_ThisMustNotBeSeenAnywhere"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
EMPTY = {"sha": COMMIT, "siblings": []}
CONTENT = b'{"architectures": ["LlamaForCausalLM"]}\n'
SHA256 = hashlib.sha256(CONTENT).hexdigest()
BLOB = hashlib.sha1(b"blob %d\0%s" % (len(CONTENT), CONTENT)).hexdigest()
IN_LFS = RemoteFile("config.json", len(CONTENT), file_digest(SHA256), "9" * 40)
IN_GIT = RemoteFile("config.json", len(CONTENT), None, BLOB)
PIN = Pin("acme/tiny", COMMIT, (IN_GIT,))


class Asking:
    """A client of a server, with what it told the user and how long it slept."""

    def __init__(self, hub: Answering, token: str | None = TOKEN, **limits: Any) -> None:
        self.notices, self.sleeps, self.stop = list[tuple[str, str]](), list[float](), False
        self.client = HubClient(
            Access(hub.url, token, "HF_TOKEN" if token else "none"),
            notice=lambda what, text: self.notices.append((what, text)),
            cancelled=lambda: self.stop,
            limits=RequestLimits(sleep=self.sleeps.append, **limits),
        )

    @property
    def slept(self) -> float:
        return round(sum(self.sleeps), 6)


@contextmanager
def requests_watched(timeouts: list[Any]) -> Iterator[None]:
    """Give huggingface_hub a client of the program's own for the block, and note the time-outs of its requests."""
    import httpx2
    import huggingface_hub
    from huggingface_hub.utils._http import default_client_factory

    def note(request: httpx2.Request) -> None:
        timeouts.append(request.extensions["timeout"])

    huggingface_hub.set_client_factory(lambda: httpx2.Client(event_hooks={"request": [note]}))
    try:
        yield
    finally:
        huggingface_hub.set_client_factory(default_client_factory)


# --- what is asked, and what it means ---


def test_a_pin_is_one_request_for_the_revision_with_its_files() -> None:
    listing = {
        "sha": COMMIT,
        "siblings": [
            {"rfilename": "b/z.gguf", "size": 7, "blobId": "a" * 40, "lfs": {"size": 7, "sha256": SHA256}},
            {"rfilename": "a.json", "size": 0, "blobId": BLOB},
        ],
        "gguf": {"architecture": "llama", "context_length": 2048, "chat_template": "x" * 1000, "total": 1, "odd": [1]},
    }
    with answering(answer(200, listing)) as hub:
        pin = Asking(hub).client.pin("acme/tiny", "refs/pr/1")
        assert [str(question) for question in hub.questions] == [
            "GET /api/models/acme/tiny/revision/refs%2Fpr%2F1?blobs=true"
        ]
    assert pin == Pin(
        "acme/tiny",
        COMMIT,
        (RemoteFile("a.json", 0, None, BLOB), RemoteFile("b/z.gguf", 7, file_digest(SHA256))),
        {"architecture": "llama", "context_length": 2048, "total": 1},
    )


def test_without_a_revision_the_branch_main_is_asked_for() -> None:
    with answering(answer(200, EMPTY)) as hub:
        assert Asking(hub).client.pin("acme/tiny", None) == Pin("acme/tiny", COMMIT, ())
        assert hub.questions[0].path.startswith("/api/models/acme/tiny/revision/main?")


def test_the_names_in_a_repository_are_one_request() -> None:
    def ref(name: str, prefix: str) -> dict[str, str]:
        return {"name": name, "ref": prefix + name, "targetCommit": COMMIT}

    told = {
        "branches": [ref("main", "refs/heads/"), ref("Q4_K_M", "refs/heads/")],
        "converts": [ref("parquet", "refs/convert/")],
        "tags": [ref("v1", "refs/tags/")],
        "pullRequests": [{"name": "1", "ref": "refs/pr/1", "targetCommit": COMMIT}],
    }
    with answering(answer(200, told), answer(200, {"branches": [], "tags": []})) as hub:
        asking = Asking(hub).client
        found = asking.refs("acme/tiny")
        assert (set(found.branches), set(found.tags)) == ({"main", "Q4_K_M"}, {"v1"})
        assert found.pull_requests == {"refs/pr/1": COMMIT}
        assert asking.refs("acme/tiny").pull_requests == {}
        assert str(hub.questions[0]) == "GET /api/models/acme/tiny/refs?include_prs=1"


@pytest.mark.parametrize(
    "told",
    [{}, {"branches": {}}, {"branches": [{"name": "main"}]}, {"branches": [], "tags": "v1"}, {"branches": [1]}, []],
)
def test_names_that_make_no_sense_are_an_error(told: object) -> None:
    with answering(answer(200, told)) as hub, pytest.raises(HubUnavailable, match="does not answer as a hub does:"):
        Asking(hub).client.refs("acme/tiny")


def test_a_hub_that_cannot_be_searched_is_named() -> None:
    with answering(answer(404)) as hub, pytest.raises(HubUnavailable, match="it cannot be searched"):
        Asking(hub).client.search("tiny", limit=1)


def test_what_a_search_lists_may_lack_all_but_the_name() -> None:
    with answering(
        answer(200, [{"modelId": "a/old", "downloads": -1, "likes": "many", "gated": "auto"}, {"id": "a/b"}])
    ) as hub:
        assert Asking(hub).client.search("tiny", limit=2) == [
            RepositoryEntry("a/old", None, None, None, gated=True),
            RepositoryEntry("a/b", None, None, None, gated=False),
        ]


@pytest.mark.parametrize("told", [{}, [1], [{}], [{"id": "a\x1b[31m"}]])
def test_a_search_that_makes_no_sense_is_an_error(told: object) -> None:
    with answering(answer(200, told)) as hub, pytest.raises(HubUnavailable, match="does not answer as a hub does:"):
        Asking(hub).client.search("tiny", limit=1)


def test_an_answer_without_an_end_is_not_listened_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "MAX_RESPONSE_BYTES", 3 << 20)
    with answering(endless) as hub, pytest.raises(HubUnavailable, match="it sent more than 3 MiB about acme/tiny"):
        Asking(hub).client.pin("acme/tiny", None)


# --- the token ---


def test_the_token_is_sent_to_the_hub_and_to_nobody_it_sends_us_to() -> None:
    with answering(answer(200, EMPTY)) as storage, answering(answer(302, Location=f"{storage.url}/x")) as hub:
        Asking(hub).client.pin("acme/tiny", None)
        assert hub.questions[0].headers["Authorization"] == f"Bearer {TOKEN}"
        assert "Authorization" not in storage.questions[0].headers
        assert TOKEN not in str(storage.questions[0].headers)


def test_without_a_token_none_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_implicit")
    with answering(answer(200, EMPTY)) as hub:
        Asking(hub, token=None).client.pin("acme/tiny", None)
        assert len(hub.questions) == 1  # huggingface_hub's own API first asks for a list of agents
        assert "Authorization" not in hub.questions[0].headers


def test_requests_carry_the_name_of_the_program_as_user_agent() -> None:
    with answering(answer(200, EMPTY)) as hub:
        Asking(hub).client.pin("acme/tiny", None)
        assert hub.questions[0].headers["User-Agent"].startswith("llama_runner/")


# --- limits ---


def test_trouble_of_the_hub_is_waited_for_and_told() -> None:
    with answering(answer(500), answer(503), answer(200, EMPTY)) as hub:
        asking = Asking(hub)
        assert asking.client.pin("acme/tiny", None).commit == COMMIT
        assert len(hub.questions) == 3
        assert asking.notices == [
            ("hub_again", f"{hub.url} fails with status 500; trying again in 1 s"),
            ("hub_again", f"{hub.url} fails with status 503; trying again in 1 s"),
        ]
    assert 0.25 + 0.5 <= asking.slept <= 0.5 + 1.0


def test_the_pauses_grow_and_are_bounded_in_number() -> None:
    with answering(answer(500)) as hub:
        asking = Asking(hub, tries=5, pause=8.0)
        with pytest.raises(HubUnavailable, match="fails with status"):
            asking.client.pin("acme/tiny", None)
        assert len(hub.questions) == 5
    assert 4 + 8 + 16 + 32 <= asking.slept <= 8 + 16 + 32 + 64


def test_two_clients_do_not_come_back_at_the_same_moment() -> None:
    slept = set()
    for seed in range(8):
        random.seed(seed)
        with answering(answer(500), answer(200, EMPTY)) as hub:
            asking = Asking(hub)
            asking.client.pin("acme/tiny", None)
            slept.add(asking.slept)
    assert len(slept) == 8


def test_the_hub_says_when_to_come_back() -> None:
    with answering(answer(429, Retry_After="7"), answer(429, RateLimit='"api";r=0;t=3'), answer(200, EMPTY)) as hub:
        asking = Asking(hub)
        asking.client.pin("acme/tiny", None)
    assert asking.slept == 10
    assert asking.notices[0][1].endswith("takes no more requests from here for 7 s; trying again in 7 s")


def test_a_retry_after_of_zero_is_followed_without_a_pause() -> None:
    with answering(answer(429, Retry_After="0"), answer(200, EMPTY)) as hub:
        asking = Asking(hub)
        asking.client.pin("acme/tiny", None)
    assert asking.slept == 0


def test_a_hub_that_wants_to_be_left_alone_for_long_is_not_waited_for() -> None:
    with answering(answer(429, Retry_After="3600")) as hub:
        asking = Asking(hub)
        with pytest.raises(errors.RateLimited, match="takes no more requests from here for 60 minutes"):
            asking.client.pin("acme/tiny", None)
        assert len(hub.questions) == 1
    assert asking.sleeps == []


def test_a_refusal_is_final() -> None:
    with answering(answer(404, X_Error_Code="RepoNotFound")) as hub:
        with pytest.raises(errors.NoSuchRepository):
            Asking(hub).client.pin("acme/tiny", None)
        assert len(hub.questions) == 1


def test_who_wants_to_stop_does_not_wait() -> None:
    with answering(answer(429, Retry_After="100")) as hub:
        asking = Asking(hub)

        def sleep(seconds: float) -> None:
            asking.sleeps.append(seconds)
            asking.stop = len(asking.sleeps) == 3

        asking.client = HubClient(
            Access(hub.url, None, "none"), cancelled=lambda: asking.stop, limits=RequestLimits(sleep=sleep)
        )
        with pytest.raises(Interrupted):
            asking.client.pin("acme/tiny", None)
    assert len(asking.sleeps) == 3
    assert max(asking.sleeps) <= 0.2


def test_who_wants_to_stop_is_not_asked_for() -> None:
    with answering(answer(200, EMPTY)) as hub:
        asking = Asking(hub)
        asking.stop = True
        with pytest.raises(Interrupted):
            asking.client.pin("acme/tiny", None)
        assert hub.questions == []


def test_who_wants_to_stop_does_not_wait_for_the_rest_of_an_answer() -> None:
    with answering(dripping) as hub:
        stopping = HubClient(Access(hub.url, None, "none"), cancelled=lambda: bool(hub.questions))
        with pytest.raises(Interrupted):
            stopping.pin("acme/tiny", None)


def test_time_outs_of_the_environment_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_ETAG_TIMEOUT", "1")
    timeouts: list[Any] = []
    with answering(answer(200, EMPTY)) as hub, requests_watched(timeouts):
        Asking(hub).client.pin("acme/tiny", None)
    assert timeouts == [{"connect": 10, "pool": 10, "read": 1, "write": 1}]


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    with answering(answer(500), answer(200, EMPTY, X_HF_Warning="topic; buy more")) as hub:
        Asking(hub).client.pin("acme/tiny", None)
    assert capfd.readouterr() == ("", "")
