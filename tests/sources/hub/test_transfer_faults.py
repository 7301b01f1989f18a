"""Whatever the network and the Hub do: it goes on from what is there, ends, and says why."""

from __future__ import annotations

import gzip
import socket
from pathlib import Path

import pytest

from llama_runner.core.errors import ExitCode
from llama_runner.sources.hub.errors import HubError, NoSuchFile, NotFetched, RateLimited
from llama_runner.sources.hub.http_transfer import TransferFailed
from tests.fakehub.hub import Hub
from tests.sources.hub.answering import answer, answering
from tests.sources.hub.bringing import QUICK, Bringing, gguf

FILES = {"model.gguf": gguf(2_000_000, 1), "mmproj.gguf": gguf(400_000, 2), "config.json": b'{"a": 1}' * 1000}
TOKEN = "hf_" + "s" * 34


@pytest.fixture
def bringing(tmp_path: Path, hub: Hub) -> Bringing:
    return Bringing(hub, tmp_path / "here", FILES)


def test_pain_01_progress_never_goes_backwards_however_often_the_connection_is_lost(bringing: Bringing) -> None:
    for _ in range(8):  # more often than attempts without progress are made
        bringing.hub.fault("drop", path="*/model.gguf", after=200_000)
    assert bringing.bring() == bringing.digests()
    done = [done for done, _ in bringing.progress]
    assert done == sorted(done)
    assert {total for _, total in bringing.progress} == {sum(map(len, FILES.values()))} == {done[-1]}
    assert bringing.hub.bytes_sent("model.gguf") == len(FILES["model.gguf"]), "no byte came twice"
    assert len(bringing.noticed("retry")) == 8
    assert "model.gguf: the connection was lost at 195.3 KiB; trying again in 0 s" in bringing.noticed("retry")


def test_pain_01_a_stalled_connection_is_replaced(bringing: Bringing) -> None:
    bringing.hub.fault("stall", path="*/model.gguf", after=500_000)
    assert bringing.bring() == bringing.digests()
    assert bringing.hub.bytes_sent("model.gguf") == len(FILES["model.gguf"])


def test_pain_01_a_trickle_counts_as_a_stall(bringing: Bringing) -> None:
    """Bytes come, so no time-out ever fires; at this rate the file would take days."""
    bringing.hub.fault("trickle", path="*/model.gguf", after=500_000, pause=0.01)
    assert bringing.bring(limits=QUICK.replace(trickle_over_s=0.3, trickle=10_000_000)) == bringing.digests()
    assert "bytes a second came for" in bringing.noticed("retry")[0]


def test_a_slow_transfer_above_the_limit_is_not_restarted(bringing: Bringing) -> None:
    bringing.hub.fault("trickle", path="*/mmproj.gguf", after=300_000, pause=0.01, step=2000)
    bringing.bring("mmproj.gguf", limits=QUICK.replace(trickle_over_s=0.1, trickle=1000))
    assert not bringing.noticed("retry")


def test_pain_01_it_ends_with_what_was_kept_and_goes_on_from_there(bringing: Bringing) -> None:
    bringing.hub.fault("drop", path="*/model.gguf", after=1_500_000)
    bringing.hub.fault("drop", path="*/model.gguf", times=None, after=0)
    bringing.bring("config.json")
    bringing.hub.reset_log()
    with pytest.raises(
        TransferFailed, match=r"model.gguf of org/model cannot be downloaded: .* connection broke"
    ) as caught:
        bringing.bring("model.gguf", "config.json", at_once=1)
    assert caught.value.code == ExitCode.DOWNLOAD
    assert caught.value.kept == 1_500_000 + len(FILES["config.json"])
    assert str(caught.value.hint).startswith("1.4 MiB kept, run again to continue")
    assert len(bringing.hub.requests) == 2 * (1 + QUICK.attempts), "hub and CDN: bounded"
    bringing.hub.faults.clear()
    bringing.hub.reset_log()
    assert bringing.bring("model.gguf") == bringing.digests("model.gguf")
    assert bringing.hub.bytes_sent("model.gguf") == 500_000


def test_pain_01_next_to_nothing_is_no_progress(bringing: Bringing) -> None:
    """A server that gives ten bytes and hangs up would otherwise be asked two hundred thousand times."""
    bringing.hub.fault("drop", path="*/model.gguf", times=None, after=10)
    with pytest.raises(TransferFailed):
        bringing.bring("model.gguf", limits=QUICK.replace(least=1000))
    assert bringing.partial("model.gguf").stat().st_size == 10 * QUICK.attempts


@pytest.mark.parametrize("after", [0, 300_000])
def test_pain_03_a_transfer_that_hangs_ends(bringing: Bringing, after: int) -> None:
    bringing.hub.fault("stall", path="*/model.gguf", after=after)
    bringing.hub.fault("stall", path="*/model.gguf", times=None, after=0)
    with pytest.raises(TransferFailed, match="no answer in time") as caught:
        bringing.bring("model.gguf", limits=QUICK.replace(silence_s=0.1))
    assert "HF_HUB_DOWNLOAD_TIMEOUT" in str(caught.value.hint)
    assert caught.value.kept == after


def test_pain_03_the_first_failure_ends_the_files_that_hang(bringing: Bringing) -> None:
    stalled = bringing.hub.fault("stall", path="*/model.gguf", after=1000)
    busy = bringing.hub.fault("503", path="*/mmproj.gguf", times=None)
    bringing.hub.fault("404", path="*/mmproj.gguf", times=None, code="EntryNotFound")  # once nobody is busy any more

    def refuse_once_it_hangs() -> bool:
        if stalled.happened.is_set():
            busy.times = 0
        return False

    limits = QUICK.replace(silence_s=3600, attempts=1_000_000)
    with pytest.raises(NotFetched) as caught:
        bringing.bring("model.gguf", "mmproj.gguf", limits=limits, cancelled=refuse_once_it_hangs)
    assert isinstance(caught.value.reason, NoSuchFile)
    assert caught.value.file == "mmproj.gguf"


def test_the_users_own_time_out_is_respected(bringing: Bringing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_DOWNLOAD_TIMEOUT", "0.2")
    bringing.hub.fault("stall", path="*/model.gguf", after=100_000)
    assert bringing.bring("model.gguf", limits=None) == bringing.digests("model.gguf")
    assert "no byte came for 0.2 s at 97.7 KiB" in bringing.noticed("retry")[0]


@pytest.mark.parametrize("value", ["", "soon", "-1", "0", "nan", "inf", "1e400"])
def test_a_time_out_without_sense_is_none(bringing: Bringing, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("HF_HUB_DOWNLOAD_TIMEOUT", value)
    assert bringing.bring("config.json", limits=None) == bringing.digests("config.json")


def test_a_server_that_sends_the_whole_file_again_costs_nothing_that_is_here(bringing: Bringing) -> None:
    bringing.directory.mkdir()
    bringing.partial("model.gguf").write_bytes(FILES["model.gguf"][:900_000])
    bringing.hub.fault("range_ignored", path="*/model.gguf")
    assert bringing.bring("model.gguf") == bringing.digests("model.gguf")
    assert "the server sends it from its beginning" in bringing.noticed("sent_again")[0]
    done = [done for done, _ in bringing.progress]
    assert done == sorted(done)
    assert done[0] == 900_000


def test_a_server_that_refuses_to_go_on_is_asked_for_the_whole_file(bringing: Bringing) -> None:
    bringing.directory.mkdir()
    bringing.partial("model.gguf").write_bytes(FILES["model.gguf"][:900_000])
    bringing.hub.fault("416", path="*/model.gguf")
    assert bringing.bring("model.gguf") == bringing.digests("model.gguf")
    assert [request.range for request in bringing.hub.requests] == ["bytes=900000-1999999", None, None]


def test_a_server_that_sends_another_part_is_asked_for_the_whole_file(bringing: Bringing) -> None:
    content = FILES["config.json"]
    part = answer(206, content[:10], Content_Range=f"bytes 0-9/{len(content)}")
    bringing.directory.mkdir()
    bringing.partial("config.json").write_bytes(content[:100])
    with answering(part, answer(200, content)) as server:
        bringing.access = bringing.access.replace(endpoint=server.url)
        assert bringing.bring("config.json") == bringing.digests("config.json")
    assert [question.headers.get("Range") for question in server.questions] == [f"bytes=100-{len(content) - 1}", None]


def test_a_file_that_is_compressed_on_the_way_is_the_same_file(bringing: Bringing) -> None:
    """It is asked for as it is, as one cannot go on in the middle of a compressed one; not every proxy listens."""
    squeezed = gzip.compress(FILES["config.json"])
    with answering(answer(200, squeezed, Content_Encoding="gzip")) as server:
        bringing.access = bringing.access.replace(endpoint=server.url)
        assert bringing.bring("config.json") == bringing.digests("config.json")
    assert [question.headers["Accept-Encoding"] for question in server.questions] == ["identity"]


def test_a_failing_hub_is_asked_again(bringing: Bringing) -> None:
    bringing.hub.fault("500", times=2)
    assert bringing.bring("config.json") == bringing.digests("config.json")
    assert [request.status for request in bringing.hub.requests] == [500, 500, 200]


def test_a_busy_hub_is_asked_when_it_said(bringing: Bringing) -> None:
    bringing.hub.fault("429", retry_after=1)
    assert bringing.bring("config.json") == bringing.digests("config.json")
    [notice] = bringing.noticed("retry")
    assert notice.startswith("config.json: ")
    assert notice.endswith("trying again in 1 s")


def test_nobody_waits_for_hours_because_a_server_said_so(bringing: Bringing) -> None:
    bringing.hub.fault("429", times=None, retry_after=100_000)
    with pytest.raises(TransferFailed) as caught:
        bringing.bring("config.json", limits=QUICK.replace(longest_asked_wait_s=0.01))
    assert isinstance(caught.value.cause, RateLimited)
    assert len(bringing.hub.requests) == QUICK.attempts


def test_nobody_there_is_said_after_a_few_attempts(bringing: Bringing) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        bringing.access = bringing.access.replace(endpoint=f"http://127.0.0.1:{nobody.getsockname()[1]}")
        with pytest.raises(TransferFailed, match="cannot be reached: the connection was refused"):
            bringing.bring()


@pytest.mark.parametrize(
    ("status", "code", "token", "reason"),
    [
        ("401", None, TOKEN, HubError),
        ("403", "GatedRepo", TOKEN, HubError),
        ("404", "EntryNotFound", None, NoSuchFile),
    ],
)
def test_a_refusal_on_the_way_is_told_at_once_and_what_came_is_kept(
    tmp_path: Path, hub: Hub, status: str, code: str | None, token: str | None, reason: type[Exception]
) -> None:
    bringing = Bringing(hub, tmp_path / "here", FILES, token)
    hub.tokens[TOKEN] = {}
    hub.fault(status, path="*/resolve/*", times=None, code=code, message="no")
    bringing.directory.mkdir()
    bringing.partial("model.gguf").write_bytes(FILES["model.gguf"][:700_000])
    with pytest.raises(NotFetched, match=r"model.gguf of org/model could not be fetched") as caught:
        bringing.bring("model.gguf")
    assert isinstance(caught.value.reason, reason)
    assert caught.value.code == ExitCode.DOWNLOAD
    assert len([request for request in hub.requests if request.status == int(status)]) == 1
    assert bringing.partial("model.gguf").stat().st_size == 700_000
    assert TOKEN not in f"{caught.value} {caught.value.hint} {caught.value!r} {bringing.notices}"


def test_a_link_to_the_storage_that_ran_out_is_replaced(bringing: Bringing) -> None:
    bringing.hub.fault("403", path="/cdn/*")
    assert bringing.bring() == bringing.digests()


def test_the_token_goes_to_the_hub_and_nowhere_else(tmp_path: Path, hub: Hub) -> None:
    hub.tokens[TOKEN] = {"accepted": {"org/model"}}
    bringing = Bringing(hub, tmp_path / "here", FILES, TOKEN)
    bringing.repo.gated = True
    assert bringing.bring() == bringing.digests()
    sent = {(request.which, request.authorization) for request in hub.requests}
    assert sent == {("hub", f"Bearer {TOKEN}"), ("cdn", None)}


def test_no_token_is_sent_that_the_user_did_not_mean(bringing: Bringing, monkeypatch: pytest.MonkeyPatch) -> None:
    """huggingface_hub would take one from the environment by itself."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert bringing.bring() == bringing.digests()
    assert {request.authorization for request in bringing.hub.requests} == {None}
