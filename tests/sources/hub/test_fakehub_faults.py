"""Each fault of the hub of these tests does what its name says, as many times as it was told to, and no more."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from huggingface_hub import HfApi
from huggingface_hub import errors as refused

from tests.fakehub.hub import Hub

REPO = "acme/model"
CONTENT = bytes(range(256)) * 400


@pytest.fixture
def hub(hub: Hub) -> Hub:
    hub.repo(REPO, {"m.gguf": CONTENT, "config.json": b"{}"})
    return hub


@pytest.fixture
def api(hub: Hub) -> HfApi:
    return HfApi(endpoint=hub.url, token=False)


@pytest.fixture
def client() -> Iterator[httpx2.Client]:
    with httpx2.Client(timeout=0.5, follow_redirects=True) as opened:
        yield opened


@pytest.fixture
def url(hub: Hub) -> str:
    return f"{hub.url}/{REPO}/resolve/main/m.gguf"


def received(client: httpx2.Client, url: str, **headers: str) -> tuple[bytes, Exception | None]:
    """Return what came of a file, and what ended it too early."""
    content = bytearray()
    try:
        with client.stream("GET", url, headers=headers) as answer:
            for chunk in answer.iter_raw():
                content += chunk
    except httpx2.HTTPError as error:
        return bytes(content), error
    return bytes(content), None


def test_drop_ends_the_connection_after_some_bytes(hub: Hub, client: httpx2.Client, url: str) -> None:
    hub.fault("drop", path="/cdn/*", after=1000, times=2)
    content, error = received(client, url)
    assert content == CONTENT[:1000]
    assert isinstance(error, httpx2.RemoteProtocolError)
    rest, error = received(client, url, Range="bytes=1000-")
    assert rest == CONTENT[1000:2000], "the bytes are counted from where the answer begins"
    assert error is not None
    assert received(client, url) == (CONTENT, None)
    assert [one.bytes_sent for one in hub.requests if one.which == "cdn"] == [1000, 1000, len(CONTENT)]


def test_stall_sends_nothing_more_and_leaves_the_connection_open(hub: Hub, client: httpx2.Client, url: str) -> None:
    fault = hub.fault("stall", path="/cdn/*", after=1000)
    content, error = received(client, url)
    assert content == CONTENT[:1000]
    assert isinstance(error, httpx2.ReadTimeout)
    assert fault.happened.is_set()
    assert received(client, url) == (CONTENT, None)


def test_trickle_never_ends_and_never_times_out(hub: Hub, client: httpx2.Client, url: str) -> None:
    hub.fault("trickle", path="/cdn/*", after=1000, step=2, pause=0.001)
    content = bytearray()
    with client.stream("GET", url) as answer:
        for chunk in answer.iter_raw():
            content += chunk
            if len(content) >= 1200:
                break
    assert bytes(content) == CONTENT[: len(content)]
    assert len(content) < 4000
    assert received(client, url) == (CONTENT, None)


def test_wrong_bytes_are_as_many_as_the_right_ones(hub: Hub, client: httpx2.Client, url: str) -> None:
    hub.fault("wrong_bytes", path="/cdn/*", at=5000, times=2)
    content, error = received(client, url)
    assert error is None
    assert [at for at, byte in enumerate(content) if byte != CONTENT[at]] == [5000]
    assert len(content) == len(CONTENT)
    rest, _ = received(client, url, Range="bytes=4990-")
    assert [at for at, byte in enumerate(rest) if byte != CONTENT[4990 + at]] == [10]
    assert received(client, url) == (CONTENT, None)


def test_wrong_length_is_what_the_answer_says_of_itself(hub: Hub, client: httpx2.Client, url: str) -> None:
    hub.fault("wrong_length", path="/cdn/*", length=len(CONTENT) + 7, times=None)
    with client.stream("GET", url) as answer:
        assert answer.headers["Content-Length"] == str(len(CONTENT) + 7)
    with client.stream("GET", url, headers={"Range": "bytes=7-"}) as answer:
        assert answer.headers["Content-Range"] == f"bytes 7-{len(CONTENT) + 13}/{len(CONTENT) + 14}"
    content, error = received(client, url)
    assert content == CONTENT
    assert isinstance(error, httpx2.RemoteProtocolError), "whoever waits for the rest learns that none comes"
    hub.faults.clear()
    hub.fault("wrong_length", path="/cdn/*", length=100)
    assert received(client, url) == (CONTENT[:100], None)
    assert received(client, url) == (CONTENT, None)


def test_range_ignored_sends_all_of_it(hub: Hub, client: httpx2.Client, url: str) -> None:
    hub.fault("range_ignored", path="/cdn/*")
    answer = client.get(url, headers={"Range": "bytes=100-"})
    assert (answer.status_code, answer.content) == (200, CONTENT)
    assert "Content-Range" not in answer.headers
    answer = client.get(url, headers={"Range": "bytes=100-"})
    assert (answer.status_code, answer.content) == (206, CONTENT[100:])


def test_a_status_is_answered_as_often_as_asked_for(hub: Hub, client: httpx2.Client, url: str) -> None:
    hub.fault("500", path="*/m.gguf", times=2)
    assert [client.get(url).status_code for _ in range(3)] == [500, 500, 200]
    hub.fault("416", path="/cdn/*")
    assert [client.get(url).status_code for _ in range(2)] == [416, 200]
    hub.fault("429", path="*/m.gguf", retry_after=3)
    answer = client.get(url)
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "3")
    hub.fault("503", times=None)
    assert [client.get(url).status_code for _ in range(4)] == [503] * 4
    hub.faults.clear()
    assert client.get(url).status_code == 200


def test_a_status_may_say_why(hub: Hub, api: HfApi) -> None:
    hub.fault("403", path="/api/*", code="DisabledRepo", message="Access to this resource is disabled.")
    with pytest.raises(refused.DisabledRepoError):
        api.model_info(REPO)
    hub.fault("451", path="/api/*", message="by order of a court", headers={"X-Why": "x"})
    with pytest.raises(refused.HfHubHTTPError, match="by order of a court") as caught:
        api.model_info(REPO)
    assert caught.value.response.headers["X-Why"] == "x"


def test_a_branch_moves_after_it_was_asked_about(hub: Hub, api: HfApi) -> None:
    hub.fault("moving_branch", changes={"config.json": b"[]"})
    first, second = api.model_info(REPO).sha, api.model_info(REPO).sha
    assert first != second
    assert hub.repos[REPO].parents(str(second)) == [first]
    assert api.model_info(REPO).sha == second


def test_a_repository_vanishes_after_it_was_asked_about(hub: Hub, api: HfApi, client: httpx2.Client, url: str) -> None:
    hub.fault("vanish")
    assert len(api.list_repo_files(REPO)) == 2
    assert client.get(url).status_code == 401
    with pytest.raises(refused.RepositoryNotFoundError):
        api.model_info(REPO)


def test_a_redirect_may_lead_to_itself(hub: Hub, client: httpx2.Client, url: str) -> None:
    hub.fault("redirect_loop", path="*/m.gguf", times=None)
    with pytest.raises(httpx2.TooManyRedirects):
        client.get(url)


def test_a_network_may_answer_with_its_own_page(hub: Hub, client: httpx2.Client, url: str) -> None:
    hub.fault("html", path="*/m.gguf")
    answer = client.get(url)
    assert answer.status_code == 200
    assert answer.content.startswith(b"<html>")


def test_listings_may_lie_about_sizes_and_names(hub: Hub, api: HfApi) -> None:
    hub.repos[REPO].sizes["m.gguf"] = 5
    hub.repos[REPO].extra_names += ["../x", "C:\\x"]
    told = {one.rfilename: one.size for one in api.model_info(REPO, files_metadata=True).siblings or []}
    assert told == {"config.json": 2, "m.gguf": 5, "../x": 1, "C:\\x": 1}
    tree = {one.path: one.size for one in api.list_repo_tree(REPO)}  # type: ignore[union-attr]
    assert tree == told


def test_a_listing_may_lie_once(hub: Hub, api: HfApi) -> None:
    truth = {"config.json": 2, "m.gguf": len(CONTENT)}
    for kind, facts, lie in (
        ("lying_size", {"sizes": {"m.gguf": 5}}, {"config.json": 2, "m.gguf": 5}),
        ("extra_names", {"names": ["../x", "/etc/x"]}, {**truth, "../x": 1, "/etc/x": 1}),
    ):
        hub.fault(kind, path="/api/*/revision/*", **facts)
        for told in (lie, truth):
            siblings = api.model_info(REPO, revision="main", files_metadata=True).siblings or []
            assert {one.rfilename: one.size for one in siblings} == told
        hub.fault(kind, path="/api/*/tree/*", **facts)
        for told in (lie, truth):
            assert {one.path: one.size for one in api.list_repo_tree(REPO)} == told  # type: ignore[union-attr]


def test_bytes_that_nobody_took_are_not_counted(hub: Hub, tmp_path: Path, url: str) -> None:
    size = 32 << 20
    with (tmp_path / "zeros").open("wb") as file:
        file.truncate(size)
    hub.repos[REPO].commit({"m.gguf": tmp_path / "zeros"})
    with httpx2.Client(follow_redirects=True) as client, client.stream("GET", url) as answer:
        assert next(answer.iter_raw())
    deadline = time.monotonic() + 30
    while (sent := hub.bytes_sent("m.gguf")) >= size // 2:  # counted before, and no more when it is known
        assert time.monotonic() < deadline, sent
        time.sleep(0.01)
    assert sent > 0


def test_a_fault_that_nobody_has_heard_of_is_a_mistake_of_the_test(hub: Hub) -> None:
    with pytest.raises(ValueError, match="no fault is called explosion"):
        hub.fault("explosion")


def test_the_hub_ends_while_a_connection_is_stalled(hub: Hub, url: str) -> None:
    fault = hub.fault("stall", path="/cdn/*", after=10)
    ended = threading.Event()

    def fetch() -> None:
        with httpx2.Client(timeout=60, follow_redirects=True) as client:
            received(client, url)
        ended.set()

    thread = threading.Thread(target=fetch)
    thread.start()
    assert fault.happened.wait(10)
    hub.close()
    assert ended.wait(30)
    thread.join()
