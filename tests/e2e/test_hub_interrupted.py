"""A download that is stopped, killed, disturbed or out of room ends soon, keeps what came, and goes on from there."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from llama_runner import Runner
from tests.conftest import MODULE, Command, Result, says
from tests.e2e.serving import Running
from tests.fakehub.hub import Hub
from tests.fakehub.models import write_gguf

pytestmark = pytest.mark.usefixtures("user_of_the_hub")

Children = list["subprocess.Popen[str]"]
REPO = "acme/model"
NAME = "m-Q8_0.gguf"
MIB = 1 << 20
HALF = 12 * MIB


@pytest.fixture
def gguf(tmp_path: Path) -> Path:
    """Return a GGUF file that takes a moment."""
    return write_gguf(tmp_path / "made.gguf", 2 * HALF)


def partial(root: Path) -> Path | None:
    """Return what is there of the file that is being received."""
    return next(iter(root.rglob(f"{NAME}.incomplete")), None)


class Fetching:
    """A ``prepare`` in the middle of its work."""

    def __init__(self, children: Children, root: Path, *words: str, env: dict[str, str] | None = None) -> None:
        self.root = root
        self.process = subprocess.Popen(
            [*MODULE, "prepare", REPO, "--root", str(root), "--json", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **(env or {})},
        )
        children.append(self.process)

    def wait_for(self, size: int) -> None:
        """Wait until so much has been received."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            found = partial(self.root)
            if found is not None and found.stat().st_size >= size:
                return
            assert self.process.poll() is None, self.finish()
            time.sleep(0.01)
        raise AssertionError("it was never received")

    def finish(self, timeout: float = 60) -> Result:
        out, err = self.process.communicate(timeout=timeout)
        return Result(self.process.returncode, out, err)


def made(result: Result) -> bytes:
    assert result.code == 0, result
    return Path(result.json["model"]).read_bytes()


def test_ctrl_c_in_a_stalled_transfer_ends_it_at_once_and_keeps_what_was_received(
    hub: Hub, root: Path, llama_runner: Command, gguf: Path, children: Children
) -> None:
    hub.repo(REPO, {NAME: gguf})
    hub.fault("stall", path="/cdn/*", after=HALF)
    fetching = Fetching(children, root)
    fetching.wait_for(HALF)
    fetching.process.send_signal(signal.SIGINT)
    result = fetching.finish(timeout=10)  # the silence alone would be borne for twice as long
    assert result.code == 130, result
    assert "Traceback" not in result.err
    assert not list((root / "models").rglob("*.gguf"))
    hub.reset_log()
    assert made(llama_runner("prepare", REPO, "--root", root, "--json")) == gguf.read_bytes()
    assert hub.bytes_sent(NAME) == gguf.stat().st_size - HALF


def test_killed_at_half_only_the_rest_is_fetched(
    hub: Hub, root: Path, llama_runner: Command, gguf: Path, children: Children
) -> None:
    hub.repo(REPO, {NAME: gguf})
    hub.fault("stall", path="/cdn/*", after=HALF)
    fetching = Fetching(children, root)
    fetching.wait_for(HALF)
    fetching.process.kill()
    assert fetching.finish().code == -signal.SIGKILL
    assert not list((root / "models").rglob("*.gguf"))
    hub.reset_log()
    result = llama_runner("prepare", REPO, "--root", root, "--json")
    assert made(result) == gguf.read_bytes()
    assert hub.bytes_sent(NAME) == gguf.stat().st_size - HALF
    assert "going on from 12.0 MiB" in result.err
    assert partial(root) is None


def test_killed_again_and_again_it_still_comes_to_an_end(
    hub: Hub, root: Path, llama_runner: Command, gguf: Path, children: Children
) -> None:
    hub.repo(REPO, {NAME: gguf})
    size, step = gguf.stat().st_size, 5 * MIB
    for number in range(1, 4):
        hub.fault("stall", path="/cdn/*", after=step)
        fetching = Fetching(children, root)
        fetching.wait_for(number * step)
        fetching.process.kill()
        fetching.finish()
    assert made(llama_runner("prepare", REPO, "--root", root, "--json")) == gguf.read_bytes()
    assert hub.bytes_sent(NAME) == size


def test_pain_01_a_server_starts_although_every_connection_breaks_or_stalls(
    hub: Hub, root: Path, binaries: Path, children: Children
) -> None:
    model = Runner(binaries).prepare(demo=True, quantization="q8_0").model
    size = model.stat().st_size
    hub.repo(REPO, {NAME: model})
    for kind in ("drop", "stall", "drop"):
        hub.fault(kind, path="/cdn/*", after=size // 5)
    running = Running(children, REPO, "--root", root, HF_HUB_DOWNLOAD_TIMEOUT="1")
    seen = [event["done"] for event in running.of("step_progress") if event["step"] == "download"]
    assert seen == sorted(seen), "never backwards"
    assert seen[-1] == size
    assert [event["what"] for event in running.of("noticed")].count("retry") == 3
    assert hub.bytes_sent(NAME) == size
    running.process.send_signal(signal.SIGINT)
    running.finish()


def test_pain_01_it_ends_after_a_bounded_number_of_attempts_with_what_was_kept(
    hub: Hub, root: Path, llama_runner: Command, gguf: Path, children: Children
) -> None:
    hub.repo(REPO, {NAME: gguf})
    dropped = hub.fault("drop", path="/cdn/*", after=HALF)
    fetching = Fetching(children, root)
    assert dropped.happened.wait(60)
    hub.fault("503", path="*/resolve/*", times=None, retry_after=0)
    says(fetching.finish(), 4, f"{NAME} of {REPO} cannot be downloaded", "12.0 MiB kept, run again to continue")
    assert len([one for one in hub.requests if one.status == 503]) < 10
    hub.faults.clear()
    assert made(llama_runner("prepare", REPO, "--root", root, "--json")) == gguf.read_bytes()
    assert hub.bytes_sent(NAME) == gguf.stat().st_size


@pytest.mark.parametrize("what", ["model", "shard", "projector"])
def test_pain_02_a_file_with_wrong_bytes_is_never_a_success(
    hub: Hub, root: Path, llama_runner: Command, tmp_path: Path, what: str
) -> None:
    names = {
        "model": [NAME],
        "shard": [f"m-Q8_0-{number:05}-of-00003.gguf" for number in (1, 2, 3)],
        "projector": [NAME, "mmproj-m-f16.gguf"],
    }[what]
    files = {name: write_gguf(tmp_path / name, MIB, seed=seed) for seed, name in enumerate(names)}
    bad = {"model": NAME, "shard": names[1 % len(names)], "projector": names[-1]}[what]
    hub.repo(REPO, files)
    hub.fault("wrong_bytes", path=f"/cdn/*/{bad}", at=MIB // 2, times=2)
    result = llama_runner("prepare", REPO, "--root", root)
    says(result, 4, f"{bad} of {REPO} came with wrong bytes twice", "sha256:")
    assert hub.bytes_sent(bad) == 2 * files[bad].stat().st_size, "once more, and no more than that"
    assert not list((root / "models").rglob(bad))
    assert len(list(root.rglob(f"{bad}.wrong-*"))) == 1
    held = llama_runner("status", "--root", root, "--json").out
    assert bad not in [Path(line).name for line in held.split('"')], "there is no record of it"

    hub.fault("wrong_bytes", path=f"/cdn/*/{bad}", at=MIB // 2, times=1)
    hub.reset_log()
    result = llama_runner("prepare", REPO, "--root", root, "--json")
    assert result.code == 0, result
    assert "set aside" in result.err
    assert hub.bytes_sent(bad) == 2 * files[bad].stat().st_size
    found = {path.name: path for path in (root / "models").rglob("*.gguf")}
    assert {name: found[name].read_bytes() for name in names} == {name: files[name].read_bytes() for name in names}
    assert not list(root.rglob("*.wrong-*"))


def test_pain_03_who_holds_the_lock_is_named_and_a_dead_holder_blocks_nobody(
    hub: Hub, root: Path, gguf: Path, children: Children
) -> None:
    hub.repo(REPO, {NAME: gguf})
    hub.fault("stall", path="/cdn/*", after=HALF)
    first = Fetching(children, root)
    first.wait_for(HALF)
    second = Fetching(children, root)
    assert second.process.stderr is not None
    for line in second.process.stderr:
        if f"process {first.process.pid} on " in line:
            break
    else:
        raise AssertionError("the holder was never named")
    first.process.kill()
    first.finish()
    assert second.process.stdout is not None
    result = json.loads(second.process.stdout.read())
    assert second.finish().code == 0
    assert result["ran"] == ["download"]
    assert Path(result["model"]).read_bytes() == gguf.read_bytes()
    assert hub.bytes_sent(NAME) == gguf.stat().st_size, "no byte came twice"


def limited(limit: int) -> Callable[[], None]:
    """Return what makes a process see a full disk in any file that grows over ``limit``."""

    def limit_files() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    return limit_files


def test_a_disk_that_fills_up_in_the_middle_keeps_what_had_room(
    hub: Hub, root: Path, llama_runner: Command, gguf: Path
) -> None:
    hub.repo(REPO, {NAME: gguf})
    says(llama_runner("prepare", REPO, "--root", root, preexec_fn=limited(HALF)), 7, "no space left in")
    assert not list((root / "models").rglob("*.gguf"))
    kept = partial(root)
    assert kept is not None
    assert kept.stat().st_size == HALF
    hub.reset_log()
    assert made(llama_runner("prepare", REPO, "--root", root, "--json")) == gguf.read_bytes()
    assert hub.bytes_sent(NAME) == gguf.stat().st_size - HALF


def test_a_read_only_store_is_told_before_anything_is_fetched(
    hub: Hub, root: Path, llama_runner: Command, gguf: Path, read_only: Callable[[Path], None]
) -> None:
    hub.repo(REPO, {NAME: gguf})
    read_only(root)
    for command in (("prepare",), ("run", "--port", "0")):
        says(llama_runner(*command, REPO, "--root", root), 7, "cannot write to", "hint: make it writable")
    assert hub.bytes_sent(NAME) == 0
    assert llama_runner("plan", REPO, "--root", root).code == 0, "a plan writes nothing"


def test_a_clock_that_jumps_by_years_changes_nothing(
    hub: Hub, root: Path, llama_runner: Command, gguf: Path, tmp_path: Path
) -> None:
    jumping = tmp_path / "jumping"
    jumping.mkdir()
    (jumping / "sitecustomize.py").write_text(
        "import itertools, time\n"
        "real, real_ns, years = time.time, time.time_ns, itertools.cycle((0, 1, -1, 30, -30))\n"
        "time.time = lambda: real() + next(years) * 31_536_000\n"
        "time.time_ns = lambda: real_ns() + next(years) * 31_536_000 * 10**9\n"
    )
    env = {"PYTHONPATH": os.pathsep.join(filter(None, (str(jumping), os.environ.get("PYTHONPATH"))))}
    hub.repo(REPO, {NAME: gguf})
    hub.fault("500", path="/api/*")
    hub.fault("drop", path="/cdn/*", after=HALF)
    result = llama_runner("prepare", REPO, "--root", root, "--json", env=env)
    assert made(result) == gguf.read_bytes()
    assert hub.bytes_sent(NAME) == gguf.stat().st_size
    assert 0 <= result.json["seconds"] < 600
    assert re.search(r"download +done in \d+\.\d s", result.err), result
    assert [one.status for one in hub.requests if "/api/" in one.path] == [500, 200], "nothing was given up too early"
    for command in (("prepare", "--json"), ("plan",), ("status",)):
        words = (REPO,) if command[0] != "status" else ()
        assert llama_runner(command[0], *words, *command[1:], "--root", root, env=env).code == 0
    assert llama_runner("prepare", REPO, "--root", root, "--json", env=env).json["ran"] == []
