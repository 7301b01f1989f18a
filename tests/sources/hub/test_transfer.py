"""Files come whole, right and once; what was received is kept, whatever ends the run."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llama_runner.core.errors import DownloadError, ExitCode, Interrupted
from llama_runner.sources.hub.download import WrongBytes
from llama_runner.sources.hub.http_transfer import TransferControl, TransferLimits
from tests.fakehub.hub import Hub
from tests.sources.hub.answering import answering
from tests.sources.hub.bringing import QUICK, REPO, Bringing, gguf

MODEL, SHARD, PROJECTOR = "model-Q4_K_M.gguf", "BF16/model-BF16-00002-of-00003.gguf", "mmproj-F16.gguf"
FILES = {
    MODEL: gguf(700_000, 1),
    SHARD: gguf(500_000, 2),
    PROJECTOR: gguf(300_000, 3),
    "config.json": b'{"architectures": ["LlamaForCausalLM"]}',
    "1_Pooling/config.json": b"{}",
    "empty.txt": b"",
}


@pytest.fixture
def bringing(tmp_path: Path, hub: Hub) -> Bringing:
    return Bringing(hub, tmp_path / "here ü", FILES)


def test_every_file_comes_whole_and_its_digest_is_told(bringing: Bringing) -> None:
    assert bringing.bring() == bringing.digests()
    assert {name: (bringing.directory / name).read_bytes() for name in FILES} == FILES
    assert bringing.there() == set(FILES), "nothing else is left"
    assert not bringing.notices
    assert bringing.hub.bytes_sent("") == sum(map(len, FILES.values())), "once"


def test_the_largest_file_comes_first(bringing: Bringing) -> None:
    bringing.bring(at_once=1)
    asked = [request.path for request in bringing.hub.requests if request.which == "hub"]
    names = sorted((name for name in FILES if FILES[name]), key=lambda name: -len(FILES[name]))
    assert asked == [f"/{REPO}/resolve/{bringing.pin.commit}/{name}" for name in names]


def test_progress_and_notices_come_in_the_callers_thread(bringing: Bringing) -> None:
    """Whoever draws them need not lock anything."""
    threads = set()

    class Told(list[tuple[int, int]]):
        def append(self, item: tuple[int, int]) -> None:
            threads.add(threading.get_ident())

    bringing.progress = Told()
    bringing.bring()
    assert threads == {threading.get_ident()}


def test_a_file_that_is_here_is_hashed_and_not_fetched(bringing: Bringing) -> None:
    bringing.bring()
    bringing.hub.reset_log()
    bringing.progress.clear()
    assert bringing.bring() == bringing.digests()
    assert not bringing.hub.requests
    assert set(bringing.progress) == {(sum(map(len, FILES.values())),) * 2}, "it begins with what is there"


def test_hashing_a_large_file_that_is_here_is_told(tmp_path: Path, hub: Hub) -> None:
    bringing = Bringing(hub, tmp_path / "here", {"model.gguf": b"GGUF" + bytes(64 << 20)})
    bringing.directory.mkdir()
    (bringing.directory / "model.gguf").write_bytes(bringing.files["model.gguf"])
    assert bringing.bring() == bringing.digests()
    assert bringing.noticed("hashing") == ["model.gguf: hashing the 64.0 MiB that are here"]


def test_a_complete_looking_file_is_not_trusted_after_a_crash(bringing: Bringing) -> None:
    damaged = bringing.directory / MODEL
    damaged.parent.mkdir()
    damaged.write_bytes(FILES[MODEL][:-4096] + bytes(4096))  # pages that were never written before the power went
    assert bringing.bring(MODEL) == bringing.digests(MODEL)
    assert damaged.read_bytes() == FILES[MODEL]
    assert "set aside" in bringing.noticed("wrong_bytes")[0]


@pytest.mark.parametrize("name", [MODEL, SHARD, PROJECTOR, "config.json"])
def test_pain_02_a_wrong_byte_is_found_and_the_file_fetched_once_more(bringing: Bringing, name: str) -> None:
    bringing.hub.fault("wrong_bytes", path=f"*/{bringing.pin.commit}/{name}", at=len(FILES[name]) // 2)
    assert bringing.bring() == bringing.digests()
    assert (bringing.directory / name).read_bytes() == FILES[name]
    [notice] = bringing.noticed("wrong_bytes")
    assert name in notice
    [aside] = [other for other in bringing.there() if other.startswith(f"{name}.wrong-")]
    assert len(bringing.directory.joinpath(aside).read_bytes()) == len(FILES[name])


@pytest.mark.parametrize("name", [MODEL, SHARD, PROJECTOR, "config.json"])
def test_pain_02_wrong_bytes_twice_are_an_error_and_never_a_result(bringing: Bringing, name: str) -> None:
    for at in (1, 2):  # not the same ones
        bringing.hub.fault("wrong_bytes", path=f"*/{bringing.pin.commit}/{name}", at=len(FILES[name]) // 2 + at)
    with pytest.raises(WrongBytes, match="came with wrong bytes twice") as caught:
        bringing.bring()
    assert caught.value.code == ExitCode.DOWNLOAD
    assert caught.value.file == name
    assert caught.value.expected != caught.value.found
    assert caught.value.aside.is_file()
    assert str(caught.value.aside) in str(caught.value.hint)
    assert not (bringing.directory / name).exists()
    assert [other for other in bringing.there() if ".wrong-" in other] == [
        f"{name}.wrong-{caught.value.aside.name[-8:]}"
    ]


def test_pain_02_wrong_bytes_that_an_earlier_run_left_are_found(bringing: Bringing) -> None:
    bringing.directory.mkdir()
    bringing.partial(MODEL).write_bytes(FILES[MODEL][:50_000] + b"!" + FILES[MODEL][50_001:300_000])
    assert bringing.bring(MODEL) == bringing.digests(MODEL)
    assert bringing.hub.bytes_sent(MODEL) == 2 * len(FILES[MODEL]) - 300_000


def test_a_partial_file_that_is_longer_than_the_file_is_begun_anew(bringing: Bringing) -> None:
    bringing.directory.mkdir()
    bringing.partial(MODEL).write_bytes(FILES[MODEL] + b"!")
    assert bringing.bring(MODEL) == bringing.digests(MODEL)
    assert "starting over" in bringing.noticed("restarting")[0]
    done = [done for done, _ in bringing.progress]
    assert done == sorted(done)
    assert done[0] == 0


def test_a_partial_file_that_is_whole_is_not_asked_for(bringing: Bringing) -> None:
    bringing.directory.mkdir()
    bringing.partial(MODEL).write_bytes(FILES[MODEL])
    assert bringing.bring(MODEL) == bringing.digests(MODEL)
    assert not bringing.hub.requests


def test_a_file_of_the_user_is_never_written_to(bringing: Bringing, tmp_path: Path) -> None:
    """What was adopted from their cache by a hard link is theirs too."""
    bringing.directory.mkdir()
    theirs = [tmp_path / "short", tmp_path / "wrong"]
    theirs[0].write_bytes(FILES[MODEL][:1000])
    theirs[1].write_bytes(b"x" * len(FILES[PROJECTOR]))
    bringing.partial(MODEL).hardlink_to(theirs[0])
    (bringing.directory / PROJECTOR).hardlink_to(theirs[1])
    before = [(path.read_bytes(), path.stat().st_mode, path.stat().st_mtime_ns) for path in theirs]
    assert bringing.bring(MODEL, PROJECTOR) == bringing.digests(MODEL, PROJECTOR)
    assert [(path.read_bytes(), path.stat().st_mode, path.stat().st_mtime_ns) for path in theirs] == before


def test_a_listing_that_lies_about_sizes_is_found_before_the_file_comes(bringing: Bringing) -> None:
    honest = bringing.pin
    for lie in (-1, 1):
        files = tuple(file.replace(size=file.size + lie) if file.name == MODEL else file for file in honest.files)
        with pytest.raises(
            DownloadError, match=f"700000 bytes, and the repository lists it with {700_000 + lie}"
        ) as caught:
            bringing.bring(MODEL, pin=honest.replace(files=files))
        assert caught.value.code == ExitCode.DOWNLOAD
        assert bringing.progress[-1][0] == 0
        bringing.directory.joinpath(f"{MODEL}.incomplete").write_bytes(FILES[MODEL][:1000])
        with pytest.raises(
            DownloadError, match="bytes, and the repository lists it with"
        ):  # also when only a part of it is asked for
            bringing.bring(MODEL, pin=honest.replace(files=files))
        bringing.partial(MODEL).unlink()


def test_a_server_that_announces_another_length_is_not_believed(bringing: Bringing) -> None:
    bringing.hub.fault("wrong_length", path=f"*/{MODEL}", length=10)
    with pytest.raises(DownloadError, match="bytes, and the repository lists it with"):
        bringing.bring(MODEL)


def test_what_is_no_gguf_file_is_found_with_its_first_bytes(tmp_path: Path, hub: Hub) -> None:
    """And not when 40 GB are here."""
    bringing = Bringing(hub, tmp_path / "here", {"model.gguf": b"PK\3\4" + bytes(20_000_000)})
    with pytest.raises(
        DownloadError, match=r"model.gguf of org/model is not a GGUF file: it begins with b'PK"
    ) as caught:
        bringing.bring()
    assert caught.value.code == ExitCode.DOWNLOAD
    assert hub.bytes_sent("model.gguf") < 20_000_000
    assert not bringing.there()


def test_a_file_larger_than_the_hub_sends_at_once_comes_in_pieces(bringing: Bringing) -> None:
    assert bringing.bring(MODEL, limits=QUICK.replace(piece=300_000)) == bringing.digests(MODEL)
    asked = [request.range for request in bringing.hub.requests if request.which == "cdn"]
    assert asked == ["bytes=0-299999", "bytes=300000-599999", "bytes=600000-699999"]


@pytest.mark.parametrize("name", ["../model.gguf", "/etc/model.gguf", "a/../../model.gguf", "a//b", "", "./a"])
def test_no_file_is_written_outside_the_directory(bringing: Bringing, tmp_path: Path, name: str) -> None:
    pin = bringing.pin.replace(files=(bringing.pin.files[0].replace(name=name),))
    with pytest.raises(AssertionError):
        bringing.bring(pin=pin)
    assert not bringing.hub.requests


CHILD = """
import sys
from pathlib import Path
from llama_runner.core.digest import Digest
from llama_runner.sources.hub.endpoint_and_token import Access
from llama_runner.sources.hub.pins import Pin, RemoteFile
from llama_runner.sources.hub.download import download_files
if len(sys.argv) > 7:
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[7]),) * 2)
url, commit, directory, name, size, digest = sys.argv[1:7]
file = RemoteFile(name, int(size), Digest(digest))
try:
    pin = Pin("org/model", commit, (file,))
    download_files([file], pin=pin, directory=Path(directory), access=Access(url, None, "none"),
             on_progress=lambda done, total: print(done, flush=True), notice=lambda what, text: None,
             cancelled=lambda: False)
except OSError as error:
    print(error.errno)
    sys.exit(3)
"""


def child(bringing: Bringing, name: str, *more: object) -> subprocess.Popen[str]:
    file = bringing.pin.file(name)
    assert file is not None
    given = [bringing.hub.url, bringing.pin.commit, bringing.directory, name, file.size, file.sha256, *more]
    return subprocess.Popen([sys.executable, "-c", CHILD, *map(str, given)], stdout=subprocess.PIPE, text=True)


def test_pain_01_a_killed_run_is_continued_from_the_bytes_that_are_there(bringing: Bringing) -> None:
    """SIGKILL, as the system does it when memory runs out: nothing of ours can be tidied."""
    bringing.hub.fault("stall", path=f"*/{SHARD}", after=450_000)
    process = child(bringing, SHARD)
    assert process.stdout is not None
    while int(process.stdout.readline()) < 450_000:
        pass
    process.kill()
    process.communicate()
    assert bringing.partial(SHARD).stat().st_size == 450_000
    bringing.hub.reset_log()
    assert bringing.bring(SHARD) == bringing.digests(SHARD)
    assert bringing.hub.bytes_sent(SHARD) == 50_000
    assert bringing.progress[0] == (450_000, 500_000)
    assert "going on from" in bringing.noticed("resuming")[0]


def test_a_full_disk_ends_it_and_what_had_room_is_kept(bringing: Bringing) -> None:
    process = child(bringing, MODEL, 400_000)
    said, _ = process.communicate()
    assert process.returncode == 3, "an OSError, of which the engine makes DiskFull"
    assert said.splitlines()[-1] == "27", "EFBIG stands in for ENOSPC"
    assert bringing.partial(MODEL).stat().st_size == 400_000
    bringing.hub.reset_log()
    assert bringing.bring(MODEL) == bringing.digests(MODEL)
    assert bringing.hub.bytes_sent(MODEL) == 300_000


def threads_of_ours() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith(("transfer", "hash"))]


def test_ctrl_c_is_heard_though_the_server_is_silent(bringing: Bringing) -> None:
    fault = bringing.hub.fault("stall", path=f"*/{MODEL}", after=200_000)
    with pytest.raises(Interrupted):
        bringing.bring(
            limits=TransferLimits(silence_s=3600),
            cancelled=lambda: fault.happened.is_set() and bringing.partial(MODEL).stat().st_size == 200_000,
        )
    for thread in threads_of_ours():
        thread.join(60)
        assert not thread.is_alive(), thread.name
    bringing.hub.reset_log()
    assert bringing.bring(MODEL) == bringing.digests(MODEL)
    assert bringing.hub.bytes_sent(MODEL) == 500_000, "and what was received is kept"


def test_what_comes_after_ctrl_c_is_not_written_any_more(bringing: Bringing) -> None:
    """The next run may be at work by then."""
    asked, answer = threading.Event(), threading.Event()

    def hold(handler: Any) -> None:
        asked.set()
        answer.wait()
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(FILES[MODEL])))
        handler.end_headers()
        handler.wfile.write(FILES[MODEL])

    with answering(hold) as server:
        bringing.access = bringing.access.replace(endpoint=server.url)
        with pytest.raises(Interrupted):
            bringing.bring(MODEL, limits=TransferLimits(silence_s=3600), cancelled=asked.is_set)
        left = threads_of_ours()
        answer.set()
        for thread in left:
            thread.join()
    assert bringing.partial(MODEL).read_bytes() == b""


def test_a_keyboard_interrupt_leaves_nothing_running(bringing: Bringing) -> None:
    """Where no handler turns Ctrl-C into a question."""
    bringing.hub.fault("stall", path=f"*/{MODEL}", after=200_000)

    def interrupt() -> bool:
        if bringing.partial(MODEL).exists() and bringing.partial(MODEL).stat().st_size == 200_000:
            raise KeyboardInterrupt
        return False

    with pytest.raises(KeyboardInterrupt):
        bringing.bring(limits=TransferLimits(silence_s=3600), cancelled=interrupt)
    for thread in threads_of_ours():
        thread.join(60)
        assert not thread.is_alive(), thread.name


def test_stopping_ends_a_response_that_came_over_the_connection_of_one_before() -> None:
    """The one before is left after its last byte has come, when another thread may use the connection already."""
    control = TransferControl()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        response = SimpleNamespace(extensions={"network_stream": SimpleNamespace(get_extra_info=lambda _: ours)})
        with ExitStack() as next_one:
            with control.open_until_stopped(response):
                next_one.enter_context(control.open_until_stopped(response))
            control.stop()
            ours.settimeout(0)  # a read that would wait is a BlockingIOError
            if sys.platform == "win32":
                with pytest.raises(OSError, match="10058"):  # WSAESHUTDOWN
                    ours.recv(1)
            else:
                assert ours.recv(1) == b""


def test_a_clock_that_jumps_changes_nothing(bringing: Bringing, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = time.time, iter(range(10**9))
    monkeypatch.setattr(time, "time", lambda: real() + (-1) ** next(calls) * 1e8)
    bringing.hub.fault("stall", path=f"*/{MODEL}", after=200_000)
    assert bringing.bring() == bringing.digests()
    assert len(bringing.noticed("retry")) == 1


def test_what_cannot_be_written_is_an_error_of_the_system(bringing: Bringing) -> None:
    """Of which the engine makes one of the store."""
    bringing.directory.write_bytes(b"a file is in the way")
    with pytest.raises(OSError, match=r"here"):
        bringing.bring(SHARD)
