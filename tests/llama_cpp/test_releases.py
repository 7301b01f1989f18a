"""A listing of releases is asked seldom, believed little, and not needed twice."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from llama_runner.core.errors import DownloadError, LlamaRunnerError, UsageError
from llama_runner.llama_cpp import release_choice, releases_api
from llama_runner.llama_cpp.release_archives import BadListing, NoAsset, NoDigest, ReleaseArchive
from llama_runner.llama_cpp.releases_api import ReleasesApi, ReleasesUnknown
from tests.fakereleases.server import Releases

LINUX = "linux-x86_64"


@pytest.fixture
def served() -> Iterator[Releases]:
    """Give two builds, the newer one being b10700."""
    with Releases() as found:
        found.add(10605)
        found.add(10700)
        yield found


class Time:
    """A clock that stands until it is set."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def settings(served: Releases, **more: str) -> dict[str, str]:
    return {"LLAMA_RUNNER_RELEASES": served.endpoint, **more}


@pytest.mark.parametrize(
    ("platform", "backend", "name"),
    [
        ("linux-x86_64", "cpu", "llama-b10700-bin-ubuntu-x64.tar.gz"),
        ("linux-x86_64", "cpu-portable", "llama-b10700-bin-ubuntu-x64.tar.gz"),
        ("linux-x86_64", "cpu+rpc", "llama-b10700-bin-ubuntu-x64.tar.gz"),
        ("linux-x86_64", "vulkan", "llama-b10700-bin-ubuntu-vulkan-x64.tar.gz"),
        ("linux-x86_64", "hip", "llama-b10700-bin-ubuntu-rocm-7.2-x64.tar.gz"),
        ("linux-aarch64", "cpu", "llama-b10700-bin-ubuntu-arm64.tar.gz"),
        ("linux-s390x", "cpu", "llama-b10700-bin-ubuntu-s390x.tar.gz"),
        ("macos-arm64", "metal", "llama-b10700-bin-macos-arm64.tar.gz"),
        ("macos-x86_64", "cpu", "llama-b10700-bin-macos-x64.tar.gz"),
        ("windows-x64", "cpu", "llama-b10700-bin-win-cpu-x64.zip"),
        ("windows-ARM64", "cpu", "llama-b10700-bin-win-cpu-arm64.zip"),
        ("windows-x64", "vulkan", "llama-b10700-bin-win-vulkan-x64.zip"),
        ("windows-x64", "hip", "llama-b10700-bin-win-hip-radeon-x64.zip"),
        ("windows-x64", "cuda", "llama-b10700-bin-win-cuda-12.4-x64.zip"),
    ],
)
def test_the_archive_for_a_machine_is_found(
    served: Releases, tmp_path: Path, platform: str, backend: str, name: str
) -> None:
    found = release_choice.choose_release_archive(None, platform, backend, tmp_path, environment=settings(served))
    assert (found.name, found.build, found.size) == (name, 10700, len(name))
    assert found.digest == "sha256:" + hashlib.sha256(name.encode()).hexdigest()
    assert found.url == f"{served.origin}/ggml-org/llama.cpp/releases/download/b10700/{name}"
    beside = ["cudart-llama-bin-win-cuda-12.4-x64.zip"] if backend == "cuda" else []
    assert [each.name for each in found.beside] == beside


@pytest.mark.parametrize(
    ("platform", "backend"),
    [(LINUX, "cuda"), (LINUX, "openblas"), (LINUX, "metal"), ("linux-riscv64", "cpu"), ("freebsd-amd64", "cpu")],
)
def test_where_there_is_no_archive_what_there_is_gets_listed(
    served: Releases, tmp_path: Path, platform: str, backend: str
) -> None:
    with pytest.raises(NoAsset, match=f"b10700 has no programs for {platform} with {backend}") as raised:
        release_choice.choose_release_archive(None, platform, backend, tmp_path, environment=settings(served))
    assert "llama-b10700-bin-win-cuda-12.4-x64.zip" in str(raised.value)
    assert "--binaries build" in str(raised.value.hint)


def test_of_a_release_that_is_still_being_filled_the_one_before_is_taken(served: Releases, tmp_path: Path) -> None:
    served.add(10701, names=("llama-{tag}-bin-win-cpu-x64.zip",))
    found = release_choice.choose_release_archive(None, LINUX, "cpu", tmp_path, environment=settings(served))
    assert found.build == 10700
    with pytest.raises(NoAsset):
        release_choice.choose_release_archive("b10701", LINUX, "cpu", tmp_path, environment=settings(served))


def test_a_build_is_taken_by_its_tag(served: Releases, tmp_path: Path) -> None:
    assert (
        release_choice.choose_release_archive("b10605", LINUX, "cpu", tmp_path, environment=settings(served)).build
        == 10605
    )
    with pytest.raises(DownloadError, match="has no release b1"):
        release_choice.choose_release_archive("b1", LINUX, "cpu", tmp_path, environment=settings(served))


def test_what_was_chosen_stays_chosen_and_nobody_is_asked_again(served: Releases, tmp_path: Path) -> None:
    first = release_choice.choose_release_archive(None, LINUX, "cpu", tmp_path, environment=settings(served))
    asked = len(served.requests)
    served.add(10800)
    for answer in (tmp_path / "releases").glob("answer-*"):
        answer.unlink()
    code = (
        "import sys; from pathlib import Path; from llama_runner.llama_cpp import release_choice\n"
        f"found = release_choice.choose_release_archive(None, {LINUX!r}, 'cpu', Path(sys.argv[1]), "
        "environment={'LLAMA_RUNNER_RELEASES': sys.argv[2]})\n"
        "print(found.tag, 'httpx2' in sys.modules, 'ssl' in sys.modules)"
    )
    command = [sys.executable, "-c", code, str(tmp_path), served.endpoint]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == "b10700 False False\n"
    assert len(served.requests) == asked
    assert release_choice.choose_release_archive(None, LINUX, "cpu", tmp_path, environment=settings(served)) == first
    (chosen,) = (tmp_path / "releases").glob("chosen-*")
    chosen.write_text("{")
    for answer in (tmp_path / "releases").glob("answer-*"):
        answer.unlink()
    assert (
        release_choice.choose_release_archive(None, LINUX, "cpu", tmp_path, environment=settings(served)).build == 10800
    )
    served.add(10900)
    for answer in (tmp_path / "releases").glob("answer-*"):
        answer.unlink()
    assert (
        release_choice.choose_release_archive(
            None, LINUX, "cpu", tmp_path, environment=settings(served), update=True
        ).build
        == 10900
    )


def test_an_archive_without_a_digest_is_refused_unless_one_is_given(served: Releases, tmp_path: Path) -> None:
    del served.asset("llama-b10700-bin-ubuntu-x64.tar.gz")["digest"]
    with pytest.raises(NoDigest, match=r"lists llama-b10700-bin-ubuntu-x64\.tar\.gz"):
        release_choice.choose_release_archive(None, LINUX, "cpu", tmp_path, environment=settings(served))
    found = release_choice.choose_release_archive(
        None, LINUX, "cpu", tmp_path, environment=settings(served), sha256="0" * 64
    )
    assert found.digest == "sha256:" + "0" * 64
    served.asset("cudart-llama-bin-win-cuda-12.4-x64.zip")
    served.releases[0]["assets"][0]["digest"] = None
    with pytest.raises(NoDigest, match="cudart"):
        release_choice.choose_release_archive(
            "b10700", "windows-x64", "cuda", tmp_path / "other", environment=settings(served)
        )


def test_within_an_hour_nobody_is_asked_and_then_only_whether_it_changed(served: Releases, tmp_path: Path) -> None:
    clock = Time(1_000_000.0)
    listing = ReleasesApi(tmp_path, settings(served), now=clock)
    assert listing.latest().build == 10700
    clock.now += 3599
    served.add(10701)
    assert listing.latest().build == 10700
    assert len(served.requests) == 1
    clock.now += 2
    assert listing.latest().build == 10701
    clock.now += 3601
    assert listing.latest().build == 10701
    assert [request.headers.get("if-none-match", "-")[:2] for request in served.requests] == ["-", "W/", "W/"]
    clock.now += 10  # the 304 counts as an answer
    listing.latest()
    assert len(served.requests) == 3
    clock.now -= 10_000  # a clock that went back makes nothing fresh for ever
    listing.latest()
    assert len(served.requests) == 4


@pytest.mark.parametrize(("fault", "seconds"), [("limit", 1800), ("secondary", 60), ("429", 60)])
def test_a_limit_is_reported_and_kept(served: Releases, tmp_path: Path, fault: str, seconds: int) -> None:
    clock = Time(float(served.reset - 1800))
    served.faults["latest"] = fault
    listing = ReleasesApi(tmp_path, settings(served), now=clock)
    for _ in range(2):
        with pytest.raises(ReleasesUnknown, match=r"takes no more requests from here until \d\d:\d\d") as raised:
            listing.latest()
        assert time.strftime("%H:%M:%S", time.localtime(clock.now + seconds)) in str(raised.value)
        assert "GITHUB_TOKEN" in str(raised.value.hint)
    assert len(served.requests) == 1, "while the limit lasts nobody is asked"
    served.faults.clear()
    clock.now += seconds + 1
    assert listing.latest().build == 10700


@pytest.mark.parametrize("fault", ["limit", "500", "<html>please log in</html>", "short", "offline", "gone"])
def test_what_was_heard_before_serves_when_nobody_answers(served: Releases, tmp_path: Path, fault: str) -> None:
    clock, said = Time(float(served.reset - 1800)), list[str]()
    environment = settings(served)
    ReleasesApi(tmp_path, environment, now=clock).latest()
    clock.now += 3 * 3600
    served.reset += 3 * 3600
    served.faults["latest"] = fault
    if fault == "gone":
        served._server.socket.close()
    listing = ReleasesApi(
        tmp_path, environment, now=clock, offline=fault == "offline", notice=lambda _, text: said.append(text)
    )
    assert listing.latest().build == 10700
    assert said[0].endswith("using its answer from 3 hours ago")


def test_the_token_goes_to_the_api_alone_and_is_never_shown(served: Releases, tmp_path: Path) -> None:
    environment = settings(served, GITHUB_TOKEN="ghp_secret")
    ReleasesApi(tmp_path / "a", environment).latest()
    assert "authorization" not in served.requests[-1].headers, "a mirror must not learn it"
    environment["GITHUB_API_URL"] = served.origin
    ReleasesApi(tmp_path / "b", environment).latest()
    assert served.requests[-1].headers["authorization"] == "Bearer ghp_secret"
    served.faults["latest"] = "401"
    with pytest.raises(ReleasesUnknown, match="status 401") as raised:
        ReleasesApi(tmp_path / "c", environment).latest()
    assert "the token in GITHUB_TOKEN is not accepted" in str(raised.value.hint)
    kept = "".join(path.read_text() for path in tmp_path.rglob("*") if path.is_file())
    assert "ghp_secret" not in kept + str(raised.value) + repr(raised.value)
    real = {"GITHUB_TOKEN": "ghp_secret"}
    assert releases_api._token(real, "http://api.github.com/repos/x/y") is None, "not where others can read it"
    assert releases_api._token(real, releases_api.ENDPOINT) == "ghp_secret"


def test_a_redirect_is_followed_on_the_same_host_only(served: Releases, tmp_path: Path) -> None:
    served.faults["latest"] = "moved"
    assert ReleasesApi(tmp_path, settings(served)).latest().build == 10700
    reasons = {"elsewhere": "redirected to another host, http://localhost:9", "loop": "more than 5 redirects"}
    for fault, why in reasons.items():
        served.faults["latest"] = fault
        with pytest.raises(BadListing, match=why):
            ReleasesApi(tmp_path / fault, settings(served)).latest()


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ("<html>please log in</html>", "it is not JSON"),
        ("[" * 100_000, "it is not JSON"),
        ("[]", "it is a list"),
        ('"b1"', "a release is str"),
        ('{"tag_name": 5}', "the tag of a release is 5"),
        ('{"tag_name": "b1"}', "without a list of files"),
        ('{"tag_name": "b1", "assets": [7]}', "a file of b1 is int"),
        ('{"tag_name": "b1", "assets": [{"name": "../x"}]}', "is called '../x'"),
        ('{"tag_name": "b1", "assets": [{"name": "x", "browser_download_url": "file:///x"}]}', "the address of x"),
        (
            '{"tag_name": "b1", "assets": [{"name": "x", "browser_download_url": "https://h/x"}]}',
            "the size of x is None",
        ),
    ],
)
def test_what_is_no_listing_is_said(served: Releases, tmp_path: Path, answer: str, why: str) -> None:
    served.faults["latest"] = answer
    with pytest.raises(BadListing) as raised:
        ReleasesApi(tmp_path, settings(served)).latest()
    assert why in str(raised.value)
    assert not list(tmp_path.glob("answer-*")), "and not kept"


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"digest": "md5:abc"}, "the digest of .* is 'md5:abc'"),
        ({"size": -1}, "the size of .* is -1"),
        ({"size": True}, "the size of .* is True"),
        ({"browser_download_url": "https://user@h/x"}, "the address of"),
        ({"name": "llama-b10700-bin-ubuntu-s390x.tar.gz"}, "lists a file twice"),
    ],
)
def test_one_wrong_file_spoils_a_listing(served: Releases, tmp_path: Path, wrong: dict[str, object], why: str) -> None:
    served.asset("llama-b10700-bin-ubuntu-x64.tar.gz").update(wrong)
    with pytest.raises(BadListing, match=why):
        ReleasesApi(tmp_path, settings(served)).latest()


def test_huge_answers_are_not_read_to_their_end(served: Releases, tmp_path: Path) -> None:
    with pytest.raises(BadListing, match="longer than 1000 bytes"):
        ReleasesApi(tmp_path, settings(served), largest=1000).latest()


def test_an_unreachable_release_listing_and_offline_are_errors(tmp_path: Path) -> None:
    with Releases() as gone:
        environment = settings(gone)
    with pytest.raises(
        ReleasesUnknown, match=r"127\.0\.0\.1:\d+.* cannot be reached: the connection was refused"
    ) as raised:
        ReleasesApi(tmp_path, environment).latest()
    assert "LLAMA_RUNNER_RELEASES" in str(raised.value.hint)
    with pytest.raises(LlamaRunnerError, match="the network must not be used"):
        ReleasesApi(tmp_path, environment, offline=True).latest()


@pytest.mark.parametrize(
    ("endpoint", "why"),
    [
        ("example.org", "does not begin with"),
        ("ftp://example.org", "does not begin with"),
        ("http://h:port", "port"),
        ("https://me:pa55@example.org", "user name or a password"),
        ("https://example.org?x=1", "it contains"),
    ],
)
def test_an_endpoint_that_is_none_is_said(tmp_path: Path, endpoint: str, why: str) -> None:
    with pytest.raises(UsageError, match="LLAMA_RUNNER_RELEASES is not a usable URL") as raised:
        ReleasesApi(tmp_path, {"LLAMA_RUNNER_RELEASES": endpoint})
    assert why in str(raised.value).lower()
    assert "pa55" not in str(raised.value)


def test_a_damaged_memory_is_asked_anew(served: Releases, tmp_path: Path) -> None:
    ReleasesApi(tmp_path, settings(served)).latest()
    (answer,) = tmp_path.glob("answer-*")
    for damage in ("", "[]", json.dumps({**json.loads(answer.read_text()), "at": "never"})):
        answer.write_text(damage)
        assert ReleasesApi(tmp_path, settings(served)).latest().build == 10700
    assert len(served.requests) == 4


def test_what_cannot_be_remembered_is_used_all_the_same(served: Releases, tmp_path: Path) -> None:
    private = tmp_path / "a file"
    private.touch()
    assert isinstance(
        release_choice.choose_release_archive(None, LINUX, "cpu", private, environment=settings(served)), ReleaseArchive
    )
