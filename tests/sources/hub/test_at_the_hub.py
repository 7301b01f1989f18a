"""The client at a hub that behaves, and at one that does not always."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llama_runner.core.digest import file_digest
from llama_runner.core.errors import LlamaRunnerError
from llama_runner.sources.hub import errors
from llama_runner.sources.hub.client import HubClient, RequestLimits
from llama_runner.sources.hub.download import download_files
from llama_runner.sources.hub.endpoint_and_token import Access
from llama_runner.sources.hub.errors import HubError, HubUnavailable
from llama_runner.sources.hub.pins import Pin, RemoteFile
from tests.fakehub.hub import Hub

REPO = "acme/tiny"
FILES = {"config.json": b"{}", "sub dir/tiny.Q8_0.gguf": b"GGUF" + b"w" * 2000, "tokenizer.json": b'{"x": 1}' * 20_000}
TOKEN = "hf_ThisMustNotBeSeenAnywhere"


def client(hub: Hub, token: str | None = None, **limits: Any) -> HubClient:
    access = Access(hub.url, token, "HF_TOKEN" if token else "none")
    return HubClient(access, limits=RequestLimits(sleep=lambda _seconds: None, **limits))


def named(pin: Pin, name: str) -> RemoteFile:
    file = pin.file(name)
    assert file is not None
    return file


def test_a_pin_has_every_file_with_its_size_and_its_digest(hub: Hub) -> None:
    stored = hub.repo(REPO, dict(FILES), gguf={"architecture": "llama"})
    pin = client(hub).pin(REPO, None)
    assert (pin.repo, pin.commit, pin.gguf) == (REPO, stored.head, {"architecture": "llama"})
    assert [(file.name, file.size) for file in pin.files] == [(name, len(FILES[name])) for name in sorted(FILES)]
    files = stored.commits[stored.head]
    assert named(pin, "sub dir/tiny.Q8_0.gguf").sha256 == file_digest(files["sub dir/tiny.Q8_0.gguf"].sha256)
    assert named(pin, "config.json") == RemoteFile("config.json", 2, None, files["config.json"].blob)
    assert hub.counted() == 1


def test_a_revision_is_a_branch_a_tag_a_commit_or_a_pull_request(hub: Hub) -> None:
    stored = hub.repo(REPO, dict(FILES))
    first = stored.head
    second = stored.commit({"config.json": b"{ }"}, branch="a/branch")
    stored.tag("v1", first)
    stored.pull_request(1, second)
    meant = {"main": first, "a/branch": second, "v1": first, "refs/pr/1": second, second: second, first[:10]: first}
    assert {revision: client(hub).pin(REPO, revision).commit for revision in meant} == meant
    refs = client(hub).refs(REPO)
    assert (refs.branches, refs.tags) == ({"main": first, "a/branch": second}, {"v1": first})
    assert refs.pull_requests == {"refs/pr/1": second}
    with pytest.raises(errors.NoSuchRevision, match="acme/tiny has no branch, tag or commit called v2"):
        client(hub).pin(REPO, "v2")


def test_pain_09_who_may_not_is_told_why_and_what_to_do(hub: Hub, tmp_path: Path) -> None:
    hub.repo("acme/gated", {"config.json": b"{}"}, gated=True)
    hub.repo("acme/private", {"config.json": b"{}"}, private=True)
    hub.tokens[TOKEN] = {}

    def refusal(repo: str, token: str | None) -> LlamaRunnerError:
        """Return the error that reading a file of the repository ends with."""

        def read() -> None:
            pin = client(hub, token).pin(repo, None)
            download_files(
                pin.files,
                pin=pin,
                directory=tmp_path,
                access=Access(hub.url, token, "none" if token is None else "HF_TOKEN"),
                on_progress=lambda _done, _total: None,
                notice=lambda _what, _text: None,
                cancelled=lambda: False,
            )

        with pytest.raises(LlamaRunnerError) as caught:
            read()
        shown = f"{caught.value} {caught.value.hint}"
        assert TOKEN not in shown
        assert "hf_invalid" not in shown
        return caught.value

    repos, tokens = ("acme/gated", "acme/private", "acme/none"), (None, TOKEN, "hf_invalid")
    told = {(repo, token): refusal(repo, token) for repo in repos for token in tokens}
    assert {asked: type(getattr(error, "reason", error)) for asked, error in told.items()} == {
        ("acme/gated", None): HubError,
        ("acme/gated", TOKEN): HubError,
        ("acme/gated", "hf_invalid"): HubError,
        ("acme/private", None): errors.NoSuchRepository,
        ("acme/private", TOKEN): errors.NoSuchRepository,
        ("acme/private", "hf_invalid"): HubError,
        ("acme/none", None): errors.NoSuchRepository,
        ("acme/none", TOKEN): errors.NoSuchRepository,
        ("acme/none", "hf_invalid"): HubError,
    }
    assert f"accept its terms at {hub.url}/acme/gated" in str(told["acme/gated", TOKEN].hint)


def test_a_hub_in_trouble_twice_is_asked_a_third_time(hub: Hub) -> None:
    hub.repo(REPO, dict(FILES))
    hub.fault("500", times=2)
    client(hub).pin(REPO, None)
    assert hub.counted() == 3


@pytest.mark.parametrize(("kind", "expected"), [("html", "a web page"), ("redirect_loop", "redirect")])
def test_what_is_in_the_way_of_the_hub_is_told(hub: Hub, kind: str, expected: str) -> None:
    hub.repo(REPO, dict(FILES))
    hub.fault(kind, times=None)
    with pytest.raises(HubUnavailable, match=expected):
        client(hub).pin(REPO, None)


def test_a_search_lists_repositories_with_gguf_files_the_most_downloaded_first(hub: Hub) -> None:
    for name, downloads, file in (("a-Tiny", 5, "x.gguf"), ("b-tiny", 7, "x.gguf"), ("c-tiny", 9, "x.safetensors")):
        hub.repo(f"acme/{name}", {file: b""}, downloads=downloads, likes=1)
    hub.repo("acme/d-tiny", {"x.gguf": b""}, downloads=1, gated=True)
    found = client(hub).search("tiny", limit=10)
    assert [(one.repo, one.downloads, one.likes, one.gated) for one in found] == [
        ("acme/b-tiny", 7, 1, False),
        ("acme/a-Tiny", 5, 1, False),
        ("acme/d-tiny", 1, 0, True),
    ]
    assert found[0].updated == "2026-11-01T10:00:00.000Z"
    assert [one.repo for one in client(hub).search("tiny", limit=1)] == ["acme/b-tiny"]
    assert client(hub).search("large", limit=10) == []
