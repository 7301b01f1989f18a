"""However it ends: once, with its status, and nothing that it started lives on."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from llama_runner.core.errors import Interrupted
from llama_runner.core.events import Event, ServerStopped
from llama_runner.serving import server_process
from llama_runner.serving.errors import ServerDied
from tests.serving.play import PATIENCE_S, Stage, get, lives, until, wait_gone

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from llama_runner.serving.server_process import Server

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_process, "GRACE_S", 0.05)


def at_once(*works: Callable[[], int]) -> list[int]:
    """Do each in a thread of its own, all at once, and return what they gave."""
    barrier, results = threading.Barrier(len(works)), []

    def run(work: Callable[[], int]) -> None:
        barrier.wait()
        results.append(work())

    threads = [threading.Thread(target=run, args=[work]) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    return results


def test_stop_asks_first_and_may_be_said_again(stage: Stage) -> None:
    server = stage.ready()
    assert [server.stop(), server.stop(), server.wait()] == [0, 0, 0]
    assert stage.log.read_bytes().endswith(b"received SIGTERM\n"), "the log is whole once stop returns"
    assert stage.names() == ["server_started", "server_ready", "server_stopped"]
    assert not lives(server.pid)


def test_stopping_again_later_signals_nobody(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    server = stage.ready()
    server.stop()
    signalled: list[object] = []
    monkeypatch.setattr(server_process, "signal_group", lambda *what: signalled.append(what))
    server.stop()
    server.wait()
    assert signalled == [], "the process id may be another's by now"


@pytest.mark.usefixtures("brief")
def test_a_server_that_ignores_sigterm_is_killed(stage: Stage) -> None:
    server = stage.ready(ignore_term=True)
    assert server.stop() == -signal.SIGKILL
    assert stage.events[-1] == ServerStopped(-9)
    assert not lives(server.pid)


def test_a_server_is_ready_only_when_it_hears_that_it_shall_end(stage: Stage) -> None:
    assert stage.ready(deaf=True).stop() == 0


@pytest.mark.parametrize("how", ["stop", "exit", "kill"])
def test_what_the_server_started_does_not_survive_it(stage: Stage, tmp_path: Path, how: str) -> None:
    server = stage.ready(grandchild=str(tmp_path / "grandchild"))
    grandchild = int((tmp_path / "grandchild").read_text())
    assert lives(grandchild)
    if how == "stop":
        assert server.stop() == 0
    else:
        get(f"{server.url}/{how}/6")
        assert server.wait() == {"exit": 6, "kill": -6}[how]
    wait_gone(grandchild)


linux = pytest.mark.skipif(sys.platform != "linux", reason="needs to see the environment of processes")


@linux
@pytest.mark.parametrize("how", ["stop", "exit"])
def test_what_went_into_a_session_of_its_own_does_not_survive_it(stage: Stage, tmp_path: Path, how: str) -> None:
    server = stage.ready(grandchild=str(tmp_path / "grandchild"), session=True)
    grandchild = int((tmp_path / "grandchild").read_text())
    assert os.getsid(grandchild) != os.getsid(server.pid)
    if how == "stop":
        server.stop()
    else:
        get(f"{server.url}/exit/0")
        server.wait()
    wait_gone(grandchild)


def test_what_a_server_started_that_died_in_load_does_not_survive_it(stage: Stage, tmp_path: Path) -> None:
    server = stage.start(grandchild=str(tmp_path / "grandchild"), die_loading=1)
    with pytest.raises(ServerDied):
        server.wait_ready()
    wait_gone(int((tmp_path / "grandchild").read_text()))


@pytest.mark.parametrize(("path", "status"), [("exit/0", 0), ("exit/7", 7), ("kill/9", -9), ("kill/11", -11)])
def test_wait_returns_the_status_of_a_server_that_ends_by_itself(stage: Stage, path: str, status: int) -> None:
    server = stage.ready()
    get(f"{server.url}/{path}")
    assert server.wait() == status
    assert server.stop() == status
    assert stage.names() == ["server_started", "server_ready", "server_stopped"]
    assert stage.events[-1] == ServerStopped(status)


def test_stop_while_it_loads(stage: Stage) -> None:
    server = stage.start(load_until="/nonexistent")
    stage.wait_said("loading model")
    assert server.stop() == 0
    with pytest.raises(ServerDied, match="exited with 0 before it was ready"):
        server.wait_ready()
    assert stage.names() == ["server_started", "server_stopped"]


def test_stop_from_another_thread_ends_the_wait_for_readiness(stage: Stage) -> None:
    server = stage.start(load_until="/nonexistent")
    stage.wait_said("loading model")
    stopping = threading.Timer(0, server.stop)
    stopping.start()
    with pytest.raises(ServerDied):
        server.wait_ready()
    stopping.join(PATIENCE_S)
    assert stage.names() == ["server_started", "server_stopped"]


def test_stop_before_a_word_was_said(stage: Stage) -> None:
    assert stage.start().stop() in (0, -signal.SIGTERM)


def test_a_wish_to_stop_ends_the_wait_for_readiness(stage: Stage) -> None:
    server = stage.start(load_until="/nonexistent")
    stage.wait_said("loading model")
    with pytest.raises(Interrupted):
        server.wait_ready(cancelled=lambda: True)
    assert not lives(server.pid)
    assert stage.events[1:] == [ServerStopped(0)]


def test_a_request_to_stop_returns_at_once_and_wait_learns_the_status(stage: Stage) -> None:
    server = stage.ready()
    server.request_stop()
    assert server.wait() == 0
    assert stage.names() == ["server_started", "server_ready", "server_stopped"]


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="signals of threads are POSIX")
def test_11_16_a_signal_that_another_thread_gets_ends_the_wait(stage: Stage) -> None:
    server = stage.ready()
    before = signal.signal(signal.SIGUSR1, lambda *_: server.request_stop())
    try:
        end = threading.Event()
        other = threading.Thread(target=end.wait, daemon=True)
        other.start()
        assert other.ident is not None
        threading.Timer(0.3, signal.pthread_kill, [other.ident, signal.SIGUSR1]).start()  # while this thread waits
        assert server.wait() == 0
    finally:
        end.set()
        signal.signal(signal.SIGUSR1, before)


def test_a_second_request_kills(stage: Stage) -> None:
    server = stage.ready(ignore_term=True)
    server.request_stop()
    stage.wait_said("received SIGTERM")
    assert lives(server.pid)
    server.request_stop()
    assert server.wait() == -signal.SIGKILL


@pytest.mark.usefixtures("brief")
def test_a_request_that_is_ignored_kills_in_the_end(stage: Stage, tmp_path: Path) -> None:
    server = stage.ready(ignore_term=True, grandchild=str(tmp_path / "grandchild"))
    server.request_stop()
    assert server.wait() == -signal.SIGKILL
    wait_gone(int((tmp_path / "grandchild").read_text()))


def test_a_request_to_one_that_has_ended_signals_nobody(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    server = stage.ready()
    server.stop()
    signalled: list[object] = []
    monkeypatch.setattr(server_process, "signal_group", lambda *what: signalled.append(what))
    server.request_stop()
    assert signalled == []


def test_many_stops_at_once_are_one(stage: Stage) -> None:
    server = stage.ready()
    assert at_once(*[server.stop] * 8) == [0] * 8
    assert stage.names() == ["server_started", "server_ready", "server_stopped"]


def test_waiting_and_stopping_at_once_are_one_end(stage: Stage) -> None:
    server = stage.ready()
    assert at_once(*[server.wait, server.stop] * 4) == [0] * 8
    assert stage.names() == ["server_started", "server_ready", "server_stopped"]


def test_whoever_hears_of_the_end_may_stop_again(stage: Stage) -> None:
    statuses = []

    def sink(event: Event) -> None:
        if isinstance(event, ServerStopped):
            statuses.append(stage.servers[0].stop())

    server = stage.start(sink=sink)
    server.wait_ready()
    server.stop()
    assert statuses == [0]


def test_a_block_that_raises_stops_the_server(stage: Stage) -> None:
    with pytest.raises(KeyboardInterrupt), stage.ready() as server:
        raise KeyboardInterrupt
    assert not lives(server.pid)
    assert stage.events[-1] == ServerStopped(0)


class Program:
    """``serve.py`` with a server that is ready."""

    def __init__(self, root: Path, **misbehaviour: object) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.serving.serve", str(root)],
            cwd=REPOSITORY,
            env={**os.environ, "GGML_FAKE": json.dumps(misbehaviour)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.started, self.ready = self.event(), self.event()
        self.server = int(self.started["pid"])

    def event(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.process.communicate()[1]
        event: dict[str, Any] = json.loads(line)
        return event

    def end(self) -> tuple[int, list[dict[str, object]]]:
        out, _ = self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode, [json.loads(line) for line in out.splitlines()]


@pytest.fixture
def program(stage: Stage) -> Iterator[Callable[..., Program]]:
    programs: list[Program] = []

    def start(**misbehaviour: object) -> Program:
        programs.append(Program(stage.root, **misbehaviour))
        return programs[-1]

    yield start
    for each in programs:
        each.process.kill()
        each.process.communicate()
        with suppress(ProcessLookupError):
            os.killpg(each.server, signal.SIGKILL)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, -signal.SIGINT), (signal.SIGTERM, 143)])
def test_ctrl_c_and_sigterm_stop_the_server(
    program: Callable[..., Program], tmp_path: Path, number: signal.Signals, status: int
) -> None:
    running = program(grandchild=str(tmp_path / "grandchild"))
    running.process.send_signal(number)
    assert running.end() == (status, [{"event": "server_stopped", "status": 0}])
    assert not lives(running.server)
    wait_gone(int((tmp_path / "grandchild").read_text()))
    assert list((tmp_path / "servers").iterdir()) == []


def test_a_second_ctrl_c_kills_at_once_and_leaves_nothing(
    program: Callable[..., Program], stage: Stage, tmp_path: Path
) -> None:
    running = program(ignore_term=True)
    running.process.send_signal(signal.SIGINT)
    stage.wait_said("received SIGTERM")
    running.process.send_signal(signal.SIGINT)
    assert running.end() == (-signal.SIGINT, [{"event": "server_stopped", "status": -9}])
    assert not lives(running.server)
    assert list((tmp_path / "servers").iterdir()) == []


def test_the_status_of_the_server_can_be_passed_on(program: Callable[..., Program]) -> None:
    running = program()
    get(f"{running.ready['url']}/exit/42")
    assert running.end() == (42, [{"event": "server_stopped", "status": 42}])


@pytest.mark.parametrize("setpriv", [True, False])
def test_sigkill_of_its_parent_kills_the_server(
    program: Callable[..., Program], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, setpriv: bool
) -> None:
    if not setpriv:
        only_path(tmp_path / "bin", monkeypatch)  # so nothing can look for a mark either
    running = program(ignore_term=True)
    assert lives(running.server)
    running.process.kill()
    assert running.end() == (-signal.SIGKILL, [])
    wait_gone(running.server)


SLOW_SETPRIV = """#!/bin/sh
echo "$$" >{root}/child
read -r _ <{root}/go
exec {setpriv} "$@"
"""
KILLED_AT_ITS_WATCHER = """
import os, signal, sys
import psutil
def hook(event, arguments):
    if event == "subprocess.Popen" and "llama-runner-watcher" in arguments[1]:
        [child] = psutil.Process().children()
        print(child.pid, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(hook)
from tests.serving.serve import main
main(sys.argv[1])
"""


def only_path(directory: Path, monkeypatch: pytest.MonkeyPatch, **programs: str) -> None:
    """Let ``PATH`` have a shell and these scripts and nothing else."""
    directory.mkdir()
    (directory / "sh").symlink_to(str(shutil.which("sh")))
    for name, text in programs.items():
        (directory / name).write_text(text)
        (directory / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(directory))


def write_a_server_that_tells_its_start(root: Path) -> None:
    (root / "llama-server").write_text(
        f"#!/bin/sh\ntrap '' PIPE\necho >{root}/started\nexec {shutil.which('sleep')} 1000\n"
    )
    (root / "llama-server").chmod(0o755)


def let_go(fifo: Path) -> bool:
    """Write a line into a FIFO; False where nobody reads it. The watcher may have killed who would."""
    try:
        descriptor = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
    except OSError:
        return False
    with os.fdopen(descriptor, "w") as stream:
        stream.write("\n")
    return True


def ended_before_it_started(child: int, root: Path) -> bool:
    """Wait until a child has ended or is llama-server, and return whether it never was; end it."""
    until(lambda: not lives(child) or (root / "started").exists(), "the end of the child")
    with suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
    return not (root / "started").exists()


@linux
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="there is no setpriv")
def test_14_04_a_parent_that_is_killed_before_the_parent_death_signal_is_set_leaves_no_server(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = stage.root
    write_a_server_that_tells_its_start(root)
    os.mkfifo(root / "go")
    only_path(root / "bin", monkeypatch, setpriv=SLOW_SETPRIV.format(root=root, setpriv=shutil.which("setpriv")))
    parent = subprocess.Popen([sys.executable, "-m", "tests.serving.serve", str(root)], cwd=REPOSITORY)
    until(lambda: (root / "child").exists() and (root / "child").read_text().endswith("\n"), "setpriv")
    child = int((root / "child").read_text())
    parent.kill()
    parent.wait()
    until(lambda: not lives(child) or let_go(root / "go"), "a reader, or the end of the child")
    assert ended_before_it_started(child, root)


@linux
def test_14_04_a_parent_that_is_killed_before_it_has_a_watcher_leaves_no_server(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_a_server_that_tells_its_start(stage.root)
    only_path(stage.root / "bin", monkeypatch)
    parent = subprocess.run(
        [sys.executable, "-c", KILLED_AT_ITS_WATCHER, str(stage.root)],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        timeout=PATIENCE_S,
        check=False,
    )
    assert parent.returncode == -signal.SIGKILL
    assert ended_before_it_started(int(parent.stdout), stage.root)


@linux
@pytest.mark.parametrize("session", [True, False])
def test_sigkill_of_its_parent_kills_what_the_server_started(
    program: Callable[..., Program], tmp_path: Path, *, session: bool
) -> None:
    running = program(ignore_term=True, grandchild=str(tmp_path / "grandchild"), session=session)
    running.process.kill()
    running.end()
    wait_gone(running.server)
    wait_gone(int((tmp_path / "grandchild").read_text()))


def test_a_server_that_has_ended_is_watched_no_more(stage: Stage) -> None:
    import psutil

    before = set(psutil.Process().children())
    server = stage.ready()
    assert len(set(psutil.Process().children()) - before) == 2, "the server and its watcher"
    server.stop()
    assert set(psutil.Process().children()) == before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("how", ["with", "stop", "request_stop", "multiprocessing"])
def test_11_18_a_forked_child_leaves_the_server_of_its_parent_alone(stage: Stage, how: str) -> None:
    def use(server: Server) -> None:
        assert server.state == "ready"
        if how == "with":
            with server:
                pass
        elif how == "stop":
            assert server.stop() == 0
        else:
            server.request_stop()
        assert server.state == "ready"

    server = stage.ready()
    with server:
        if how == "multiprocessing":
            child = multiprocessing.get_context("fork").Process(target=use, args=[server])
            child.start()
            child.join(PATIENCE_S)
            assert child.exitcode == 0
        else:
            pid = os.fork()
            if not pid:
                with suppress(BaseException):
                    use(server)
                    os._exit(0)
                os._exit(1)
            assert os.waitpid(pid, 0)[1] == 0
        assert lives(server.pid)
        get(f"{server.url}/say")
        stage.wait_said("still here")
        assert b"SIGTERM" not in stage.log.read_bytes()
    assert not lives(server.pid)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_11_18_a_forked_child_that_ends_with_an_exception_leaves_the_server_alone(stage: Stage) -> None:
    code = (
        "import os, sys; from pathlib import Path; from tests.serving.play import Stage, get\n"
        "stage = Stage(Path(sys.argv[1]))\n"
        "with stage.ready() as server:\n"
        "    pid = os.fork()\n"
        "    if not pid: sys.exit(3)\n"
        "    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3\n"
        "    get(f'{server.url}/say')\n"
        "    stage.wait_said('still here')\n"
        "print(*stage.names())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(stage.root)], check=True, cwd=REPOSITORY, capture_output=True, text=True
    )
    assert done.stdout == "server_started server_ready server_stopped\n"
