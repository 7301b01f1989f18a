"""The hub of these tests does what the real one is known to do, as huggingface_hub itself sees it."""

from __future__ import annotations

import hashlib
import json
import re
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
from huggingface_hub import HfApi, get_hf_file_metadata
from huggingface_hub import errors as refused
from huggingface_hub.hf_api import RepoFile

from tests.fakehub.hub import Hub
from tests.fakehub.storage import Stored

REPO = "acme/model"
CONTENT = bytes(range(256)) * 100
BLOB = "3b18e512dba79e4c8300dd08aeb37f8e728b8dad"
"""What git calls a file with ``hello world`` and a newline."""
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def api(hub: Hub) -> HfApi:
    return HfApi(endpoint=hub.url, token=False)


@pytest.fixture
def client() -> Iterator[httpx2.Client]:
    with httpx2.Client(timeout=10) as opened:
        yield opened


def git_blob(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def address(hub: Hub, name: str, revision: str = "main") -> str:
    return f"{hub.url}/{REPO}/resolve/{revision}/{name}"


# --- what is there ---


def test_a_model_is_told_with_and_without_the_metadata_of_its_files(
    hub: Hub, api: HfApi, client: httpx2.Client
) -> None:
    repo = hub.repo(REPO, {"README.md": b"hello world\n", "a/m.gguf": CONTENT}, downloads=7, likes=3, tags=["gguf"])
    plain, full = api.model_info(REPO), api.model_info(REPO, files_metadata=True)
    assert (plain.id, plain.sha, plain.private, plain.gated) == (REPO, repo.head, False, False)
    assert (plain.downloads, plain.likes, plain.tags) == (7, 3, ["gguf"])
    assert [(one.rfilename, one.size, one.lfs) for one in plain.siblings or []] == [
        ("README.md", None, None),
        ("a/m.gguf", None, None),
    ]
    small, large = full.siblings or []
    assert (small.size, small.blob_id, small.lfs) == (12, BLOB, None)
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{SHA256}\nsize {len(CONTENT)}\n".encode()
    assert (large.size, large.blob_id) == (len(CONTENT), git_blob(pointer)), "git knows nothing but the pointer"
    assert large.lfs is not None
    assert (large.lfs.size, large.lfs.sha256, large.lfs.pointer_size) == (len(CONTENT), SHA256, len(pointer))
    (told,) = (one for one in api.list_repo_tree(REPO, "a") if isinstance(one, RepoFile))
    assert (told.blob_id, told.lfs) == (large.blob_id, large.lfs)
    assert client.get(f"{hub.url}/{REPO}/raw/main/a/m.gguf").content == pointer


def test_the_pointer_is_made_as_the_real_hub_makes_it() -> None:
    """Against what the documentation of huggingface_hub shows of a real repository."""
    examples = re.findall(
        r"blob_id='([0-9a-f]{40})',\s+lfs=\{'size': (\d+), 'sha256': '([0-9a-f]{64})', 'pointer_size': (\d+)\}",
        str(HfApi.list_repo_tree.__doc__),
    )
    assert len(examples) == 2
    for blob, size, sha256, length in examples:
        made = object.__new__(Stored)
        made.size, made.sha256 = int(size), sha256
        assert (git_blob(made.pointer), len(made.pointer)) == (blob, int(length))


def test_branches_tags_and_pull_requests_are_told_and_can_be_asked_for(
    hub: Hub, api: HfApi, client: httpx2.Client
) -> None:
    repo = hub.repo(REPO, {"m.gguf": b"1"})
    first = repo.head
    second = repo.commit({"m.gguf": b"2"})
    repo.tag("v1", first)
    repo.branch("with/slash", first)
    repo.pull_request(3, second)
    assert "pullRequests" not in client.get(f"{hub.url}/api/models/{REPO}/refs").json()
    refs = api.list_repo_refs(REPO, include_pull_requests=True)
    assert {(one.name, one.target_commit) for one in refs.branches} == {("main", second), ("with/slash", first)}
    assert [(one.name, one.ref, one.target_commit) for one in refs.tags] == [("v1", "refs/tags/v1", first)]
    assert [(one.ref, one.target_commit) for one in refs.pull_requests or []] == [("refs/pr/3", second)]
    for name, commit in {
        "v1": first,
        "with/slash": first,
        "refs/pr/3": second,
        first[:7]: first,
        second: second,
    }.items():
        assert api.model_info(REPO, revision=name).sha == commit
    for name in ("v2", first[:3], "0" * 40):
        with pytest.raises(refused.RevisionNotFoundError):
            api.model_info(REPO, revision=name)


def test_a_commit_stays_readable_after_its_branch_has_moved(hub: Hub, api: HfApi, client: httpx2.Client) -> None:
    repo = hub.repo(REPO, {"config.json": b"1", "old.txt": b"old"})
    first = repo.head
    second = repo.commit({"config.json": b"2", "old.txt": None})
    assert repo.parents(second) == [first]
    assert api.list_repo_files(REPO) == ["config.json"]
    assert api.list_repo_files(REPO, revision=first) == ["config.json", "old.txt"]
    assert client.get(address(hub, "config.json", first)).content == b"1"
    assert client.get(address(hub, "config.json")).content == b"2"


def test_a_tree_comes_in_pages(hub: Hub, api: HfApi) -> None:
    files = {f"d/e/{number}.txt": b"x" * number for number in range(5)} | {"top.gguf": CONTENT}
    hub.repo(REPO, dict(files))
    hub.page_size = 2
    listed = list(api.list_repo_tree(REPO, recursive=True))
    assert len(hub.requests) == 4
    assert {one.path for one in listed} == {*files, "d", "d/e"}
    (top,) = (one for one in listed if one.path == "top.gguf")
    assert top.lfs.sha256 == hashlib.sha256(CONTENT).hexdigest()  # type: ignore[union-attr]
    assert {one.path for one in api.list_repo_tree(REPO)} == {"d", "top.gguf"}
    assert {one.path for one in api.list_repo_tree(REPO, "d")} == {"d/e"}
    assert {one.path for one in api.list_repo_tree(REPO, "d/e")} == {*files} - {"top.gguf"}
    with pytest.raises(refused.RemoteEntryNotFoundError):
        list(api.list_repo_tree(REPO, "d/none"))


def test_a_tree_tells_the_last_commit_when_asked(hub: Hub, api: HfApi) -> None:
    repo = hub.repo(REPO, {"d/m.gguf": CONTENT})
    for one in api.list_repo_tree(REPO, recursive=True, expand=True):
        assert one.last_commit is not None
        assert one.last_commit.oid == repo.head
    assert {one.last_commit for one in api.list_repo_tree(REPO, recursive=True)} == {None}


def test_only_what_was_asked_for_is_told(hub: Hub, api: HfApi) -> None:
    for number in range(3):
        hub.repo(f"org/tiny-{number}", {"m.gguf": b"x"}, downloads=7, gguf={"total": number})
    hub.page_size = 2
    info = api.model_info("org/tiny-1", expand=["gguf", "downloads"])
    assert (info.id, info.downloads, info.gguf, info.sha, info.siblings) == ("org/tiny-1", 7, {"total": 1}, None, None)
    found = list(api.list_models(search="tiny", expand=["siblings", "gguf"]))
    assert [(one.gguf, one.downloads) for one in found] == [({"total": number}, None) for number in range(3)]
    assert [[file.rfilename for file in one.siblings or []] for one in found] == [["m.gguf"]] * 3
    assert {one.siblings for one in api.list_models(search="tiny", expand=["downloads"])} == {None}


def test_what_is_in_lfs_is_told_by_its_name_or_its_size(hub: Hub, api: HfApi) -> None:
    hub.repo(REPO, {"a.gguf": b"x", "b.txt": b"x" * 10, "c.txt": b"x" * 11}, lfs_over=10)
    siblings = api.model_info(REPO, files_metadata=True).siblings or []
    assert {one.rfilename for one in siblings if one.lfs} == {"a.gguf", "c.txt"}


def test_a_search_sorts_limits_filters_and_comes_in_pages(hub: Hub, api: HfApi) -> None:
    for number in range(6):
        hub.repo(f"org/tiny-{number}", {"m.gguf": b"x"}, downloads=number, likes=-number, gguf={"total": number})
    hub.repo("org/tiny-other", {"m.safetensors": b"x"}, downloads=100)
    hub.repo("org/tiny-hidden", {"m.gguf": b"x"}, private=True, downloads=100)
    hub.page_size = 2
    names = [one.id for one in api.list_models(search="TINY", filter="gguf", sort="downloads")]
    assert names == [f"org/tiny-{number}" for number in (5, 4, 3, 2, 1, 0)]
    hub.reset_log()
    assert len(list(api.list_models(search="tiny", limit=3))) == 3
    assert len(hub.requests) == 2
    assert next(iter(api.list_models(search="tiny", sort="likes"))).id == "org/tiny-0"
    assert list(api.list_models(search="tiny huge")) == []
    (found,) = islice(api.list_models(search="tiny-5", full=True), 1)
    assert [one.rfilename for one in found.siblings or []] == ["m.gguf"]
    (found,) = api.list_models(search="tiny-5")
    assert found.siblings is None


def test_an_old_name_leads_to_the_new_one(hub: Hub, api: HfApi, client: httpx2.Client) -> None:
    hub.repo(REPO, {"config.json": b"{}"})
    hub.renamed["acme/old"] = REPO
    assert api.model_info("acme/old").id == REPO
    answer = client.get(f"{hub.url}/acme/old/resolve/main/config.json", follow_redirects=True)
    assert answer.content == b"{}"


# --- files ---


def test_a_file_in_lfs_is_elsewhere_and_the_token_stays_here(hub: Hub, client: httpx2.Client) -> None:
    repo = hub.repo(REPO, {"dir/m q.gguf": CONTENT})
    hub.tokens = {"hf_x": {}}
    digest = hashlib.sha256(CONTENT).hexdigest()
    url, signed = address(hub, "dir/m%20q.gguf"), {"Authorization": "Bearer hf_x"}
    there = client.head(url, headers=signed)
    assert there.status_code == 302
    assert there.headers["Location"].startswith(hub.cdn_url)
    assert (there.headers["X-Linked-Etag"], there.headers["X-Linked-Size"]) == (f'"{digest}"', str(len(CONTENT)))
    assert (there.headers["X-Repo-Commit"], there.headers["Accept-Ranges"]) == (repo.head, "bytes")
    answer = client.get(url, headers=signed, follow_redirects=True)
    assert (answer.content, answer.headers["ETag"]) == (CONTENT, f'"{digest}"')
    assert [one.authorization for one in hub.requests if one.which == "hub"] == ["Bearer hf_x"] * 2
    assert [one.authorization for one in hub.requests if one.which == "cdn"] == [None]
    assert hub.bytes_sent("m q.gguf") == len(CONTENT)
    known = get_hf_file_metadata(url, token=False)
    assert (known.commit_hash, known.etag, known.size) == (repo.head, digest, len(CONTENT))


def test_the_hub_has_no_files_of_lfs_and_their_storage_has_nothing_else(hub: Hub, client: httpx2.Client) -> None:
    hub.repo(REPO, {"m.gguf": CONTENT})
    signed = client.head(address(hub, "m.gguf")).headers["Location"]
    assert client.get(signed).content == CONTENT
    assert client.get(signed, headers={"Authorization": "Bearer hf_x"}).status_code == 400
    assert client.get(signed.partition("?")[0]).status_code == 403
    assert client.get(signed.replace(hub.cdn_url, hub.url)).status_code == 404
    assert client.get(f"{hub.url}/api/models/{REPO}").status_code == 200
    assert client.get(f"{hub.cdn_url}/api/models/{REPO}").status_code == 404


def test_the_hub_may_play_the_part_of_a_proxy(hub: Hub) -> None:
    hub.repo(REPO, {"m.gguf": CONTENT})
    with httpx2.Client(proxy=hub.url, follow_redirects=True) as client:
        assert client.get(f"http://mirror.invalid/{REPO}/resolve/main/m.gguf").content == CONTENT
    assert [one.which for one in hub.requests] == ["hub", "hub"]


def test_a_small_file_is_here_under_gits_own_digest(hub: Hub, client: httpx2.Client) -> None:
    hub.repo(REPO, {"README.md": b"hello world\n"})
    answer = client.get(address(hub, "README.md"))
    assert (answer.status_code, answer.content, answer.headers["ETag"]) == (200, b"hello world\n", f'"{BLOB}"')
    assert client.get(f"{hub.url}/{REPO}/raw/main/README.md").content == b"hello world\n"
    with pytest.raises(refused.RemoteEntryNotFoundError):
        get_hf_file_metadata(address(hub, "no.md"), token=False)


@pytest.mark.parametrize(
    ("asked", "status", "part"),
    [
        ("bytes=0-9", 206, slice(0, 10)),
        ("bytes=25590-", 206, slice(25590, None)),
        ("bytes=100-999999", 206, slice(100, None)),
        ("bytes=-100", 206, slice(25500, None)),
        ("bytes=-999999", 206, slice(0, None)),
        ("bytes=25600-", 416, slice(0, 0)),
    ],
)
def test_a_range_of_a_file_is_sent(hub: Hub, client: httpx2.Client, asked: str, status: int, part: slice) -> None:
    hub.repo(REPO, {"m.gguf": CONTENT, "m.txt": CONTENT})
    for name in ("m.gguf", "m.txt"):
        answer = client.get(address(hub, name), headers={"Range": asked}, follow_redirects=True)
        assert answer.status_code == status
        assert hub.requests[-1].range == asked
        if status == 416:
            assert answer.headers["Content-Range"] == f"bytes */{len(CONTENT)}"
            continue
        assert answer.content == CONTENT[part]
        first = part.start
        assert answer.headers["Content-Range"] == f"bytes {first}-{first + len(answer.content) - 1}/{len(CONTENT)}"


# --- who may ---


def error_of(hub: Hub, token: str | None, *, metadata: bool = True) -> type[Exception] | None:
    """Return what huggingface_hub raises for a file of the repository, or for what is known of it."""
    given: Any = False if token is None else token
    try:
        if metadata:
            get_hf_file_metadata(address(hub, "m.gguf"), token=given)
        else:
            HfApi(endpoint=hub.url, token=given).model_info(REPO)
    except refused.HfHubHTTPError as error:
        return type(error)
    return None


@pytest.mark.parametrize(("token", "status"), [(None, 401), ("hf_other", 403), ("hf_member", 302)])
def test_what_a_gated_file_is_answered_with(hub: Hub, client: httpx2.Client, token: str | None, status: int) -> None:
    hub.tokens = {"hf_member": {"accepted": {REPO}}, "hf_other": {}}
    hub.repo(REPO, {"m.gguf": CONTENT}, gated=True)
    answer = client.head(address(hub, "m.gguf"), headers={} if token is None else {"Authorization": f"Bearer {token}"})
    assert (answer.status_code, answer.headers.get("X-Error-Code")) == (status, None if status == 302 else "GatedRepo")


def test_a_gated_repository_is_seen_by_all_and_read_by_those_who_may(hub: Hub) -> None:
    hub.tokens = {"hf_member": {"accepted": {REPO}, "name": "me"}, "hf_other": {}}
    hub.repo(REPO, {"m.gguf": CONTENT}, gated=True)
    assert HfApi(endpoint=hub.url, token=False).model_info(REPO).gated == "manual"
    assert [error_of(hub, token) for token in (None, "hf_other", "hf_member")] == [
        refused.GatedRepoError,
        refused.GatedRepoError,
        None,
    ]
    assert HfApi(endpoint=hub.url, token="hf_member").whoami()["name"] == "me"


def test_a_private_repository_does_not_exist_for_others(hub: Hub) -> None:
    hub.tokens = {"hf_member": {"readable": {REPO}}, "hf_other": {}}
    hub.repo(REPO, {"m.gguf": CONTENT}, private=True)
    for metadata in (True, False):
        assert error_of(hub, None, metadata=metadata) is refused.RepositoryNotFoundError
        assert error_of(hub, "hf_other", metadata=metadata) is refused.RepositoryNotFoundError
        assert error_of(hub, "hf_member", metadata=metadata) is None
    hub.remove(REPO)
    assert error_of(hub, "hf_member") is refused.RepositoryNotFoundError


def test_a_token_that_nobody_knows_is_refused_even_where_none_is_needed(hub: Hub) -> None:
    hub.repo(REPO, {"m.gguf": CONTENT})
    assert error_of(hub, None) is None
    with pytest.raises(refused.HfHubHTTPError, match="Invalid credentials"):
        HfApi(endpoint=hub.url, token="hf_unknown").model_info(REPO)


# --- what is counted, and when it ends ---


def test_requests_of_every_method_are_recorded(hub: Hub, client: httpx2.Client) -> None:
    hub.repo(REPO, {"m.gguf": CONTENT})
    for method in ("POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT"):
        assert client.request(method, f"{hub.url}/api/models/{REPO}", content=b"12345").status_code == 405
        assert hub.requests[-1].method == method
    assert client.get(f"{hub.url}/nowhere/at/all").status_code == 404
    assert hub.counted() == 7
    hub.reset_log()
    assert hub.counted() == 0


def test_a_hub_that_has_ended_says_nothing_more_on_a_connection_that_was_kept(hub: Hub, client: httpx2.Client) -> None:
    hub.repo(REPO, {"m.gguf": CONTENT})
    url = f"{hub.url}/api/models/{REPO}"
    assert client.get(url).status_code == 200
    hub.close()
    with pytest.raises(httpx2.RemoteProtocolError, match="disconnected"):
        client.get(url)
    with pytest.raises(httpx2.ConnectError):
        client.get(url)
    assert hub.counted() == 1


def test_over_tls_who_says_nothing_keeps_nobody_waiting(tmp_path: Path, certificate: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with Hub(tmp_path / "secure", tls=context) as hub:
        hub.repo(REPO, {"m.gguf": CONTENT})
        place = urlsplit(hub.url)
        trusting = ssl.create_default_context(cafile=str(certificate))
        with (
            socket.create_connection((str(place.hostname), place.port or 0)),
            httpx2.Client(verify=trusting, timeout=10, follow_redirects=True) as client,
        ):
            assert client.get(address(hub, "m.gguf")).content == CONTENT


# --- the hub as a process ---


def test_the_hub_as_a_process_of_its_own(tmp_path: Path, client: httpx2.Client) -> None:
    there, log = tmp_path / "repositories", tmp_path / "log"
    (there / "acme/model/below").mkdir(parents=True)
    (there / "acme/model/below/m.gguf").write_bytes(CONTENT)
    (there / "acme/model/config.json").write_bytes(b"{}")
    faults: list[dict[str, Any]] = [
        {"kind": "500", "path": "*/config.json"},
        {"kind": "drop", "path": "/cdn/*", "after": 100},
        {"kind": "moving_branch", "path": "*/refs", "changes": {"config.json": None, "new.txt": "new"}},
    ]
    words = [sys.executable, "-m", "tests.fakehub", str(there), "--log", str(log), "--faults", json.dumps(faults)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        addresses = json.loads(process.stdout.readline())
        assert set(addresses) == {"hub", "cdn"}
        api = HfApi(endpoint=addresses["hub"], token=False)
        assert api.list_repo_files(REPO) == ["below/m.gguf", "config.json"]
        url = f"{addresses['hub']}/{REPO}/resolve/main"
        assert [client.get(f"{url}/config.json").status_code for _ in range(2)] == [500, 200]
        with pytest.raises(httpx2.RemoteProtocolError):
            client.get(f"{url}/below/m.gguf", follow_redirects=True)
        assert client.get(f"{url}/below/m.gguf", follow_redirects=True).content == CONTENT
        before = api.list_repo_refs(REPO).branches[0].target_commit
        assert api.list_repo_files(REPO) == ["below/m.gguf", "new.txt"]
        assert api.list_repo_files(REPO, revision=before) == ["below/m.gguf", "config.json"]
        process.stdin.close()
        assert process.wait(30) == 0
    requests = [json.loads(line) for line in log.read_text().splitlines()]
    assert [one["bytes_sent"] for one in requests if one["which"] == "cdn"] == [100, len(CONTENT)]
