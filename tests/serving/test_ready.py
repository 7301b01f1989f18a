"""From the launch to the first good answer, and every way in which it can fail to come."""

from __future__ import annotations

import errno
import json
import signal
import socket
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llama_runner.client.errors import KeyRefused
from llama_runner.core.errors import ExitCode, ServerError
from llama_runner.core.events import Event, ServerReady, ServerStarted, ServerStopped
from llama_runner.serving import server_output, server_process
from llama_runner.serving.errors import ServerDied, ServerStalled
from llama_runner.serving.llama_server import readiness
from llama_runner.serving.llama_server.launch_spec import ServerOptions
from llama_runner.serving.server_process import Server
from tests.serving.play import PATIENCE_S, Stage, get, lives, until, wait_gone

linux = pytest.mark.skipif(sys.platform != "linux", reason="/proc and setpriv are Linux")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


class Clock:
    """The time as the readiness check sees it; it passes when a test says so, and counts the looks at it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        self.looks: Counter[threading.Thread] = Counter()
        for module in (server_process, server_output):
            monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=self.look, sleep=time.sleep))

    def look(self) -> float:
        self.looks[threading.current_thread()] += 1
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


class Waiting(threading.Thread):
    """``wait_ready`` in a thread; ``error`` is what it raised."""

    error: ServerError | None = None

    def __init__(self, server: Server) -> None:
        super().__init__(daemon=True)
        self.server = server
        self.start()

    def run(self) -> None:
        try:
            self.server.wait_ready()
        except ServerError as error:
            self.error = error

    def end(self) -> ServerError | None:
        self.join(PATIENCE_S)
        assert not self.is_alive(), "wait_ready has returned"
        return self.error


def test_a_server_that_loads_is_ready_when_it_answers_and_not_before(stage: Stage, tmp_path: Path) -> None:
    server = stage.start(load_until=str(tmp_path / "loaded"))
    waiting = Waiting(server)
    stage.wait_said("loading model")
    assert stage.names() == ["server_started"]
    (tmp_path / "loaded").touch()
    assert waiting.end() is None
    assert stage.names() == ["server_started", "server_ready"]
    server.stop()
    started, ready, stopped = stage.events
    assert started == ServerStarted(server.pid, tuple(server.spec.argv()), "logs/run-server.log")
    assert isinstance(ready, ServerReady)
    assert (ready.url, ready.pid) == (server.url, server.pid)
    assert stopped == ServerStopped(0)


def test_the_context_of_a_server_is_known_once_it_is_ready(stage: Stage) -> None:
    server = stage.ready(ServerOptions(port=0, ctx_size=384))
    assert (server.context, server.trained_context) == (384, 512)


def test_port_0_gives_the_url_that_the_system_chose(stage: Stage) -> None:
    server = stage.ready(ServerOptions(port=0, extra=("--api-prefix", "/v")))
    port = server.url.removeprefix("http://127.0.0.1:").removesuffix("/v")
    assert int(port) > 0
    get(server.url + "/say")
    stage.wait_said("listening on http://127.0.0.1:" + port)


def test_an_ipv6_address_is_served_and_asked(stage: Stage) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 here")
    assert stage.ready(ServerOptions(host="::1", port=0)).url.startswith("http://[::1]:")


def test_a_server_that_listens_everywhere_is_asked_at_the_loopback(stage: Stage) -> None:
    assert stage.ready(ServerOptions(host="0.0.0.0", port=0, insecure=True)).url.startswith("http://0.0.0.0:")


def test_a_socket_is_served_and_asked(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("s") / "x.sock"
    for _ in range(2):  # the second finds what one that was killed leaves
        server = stage.ready(ServerOptions(host=str(path), port=0, extra=("--api-prefix", "/v")))
        assert (server.url, server.spec.socket) == (f"unix://{path}:/v", path)
        server.stop()
        assert not path.exists()
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))


def test_with_a_canary_it_is_ready_when_it_has_given_a_token(stage: Stage) -> None:
    stage.ready(ServerOptions(port=0, canary=True)).stop()
    assert b"stop processing" in stage.log.read_bytes()
    server = stage.start(ServerOptions(port=0, canary=True), no_tokens=True)
    with pytest.raises(ServerError, match=r"(?m)^http://127\.0\.0\.1:\d+ is ready but gives no token$"):
        server.wait_ready()
    assert not lives(server.pid)
    assert server.state == "failed"


def test_the_state_of_a_server_follows_its_life(stage: Stage, tmp_path: Path) -> None:
    server = stage.start(load_until=str(tmp_path / "loaded"), ignore_term=True)
    seen: list[str] = [server.state]
    (tmp_path / "loaded").touch()
    server.wait_ready()
    seen.append(server.state)
    server.request_stop()
    seen.append(server.state)
    server.request_stop()
    server.wait()
    seen.append(server.state)
    assert seen == ["loading", "ready", "stopping", "stopped"]


@pytest.mark.parametrize(("path", "state"), [("exit/0", "stopped"), ("exit/1", "failed"), ("kill/9", "failed")])
def test_a_server_that_ends_by_itself_is_seen_to_have_ended(stage: Stage, path: str, state: str) -> None:
    server = stage.ready()
    get(f"{server.url}/{path}")
    until(lambda: server.state == state, "the state to show")
    server.wait()
    assert server.state == state


def test_a_given_port_is_not_read_from_the_log(stage: Stage) -> None:
    port = free_port()
    server = stage.start(ServerOptions(port=port))
    server._output.heard.set()  # as if it had been said: nothing may depend on it
    server.wait_ready()
    assert server.url == f"http://127.0.0.1:{port}"


def test_arguments_and_environment_reach_the_server(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLAMA_ARG_THREADS", "64")
    monkeypatch.setenv("HF_TOKEN", "t")
    server = stage.ready(inspect=str(tmp_path / "seen"))
    seen = json.loads((tmp_path / "seen").read_text())
    assert seen["argv"][1:] == server.spec.argv()[1:]
    assert not [name for name in seen["environment"] if name.startswith("LLAMA_ARG_")]
    assert "HF_TOKEN" not in seen["environment"]


@pytest.mark.parametrize("name", ["acme/tiny", " spaced ", "ü:Q8_0"])
def test_our_model_is_known_by_its_name(stage: Stage, name: str) -> None:
    server = stage.start(alias=name)
    server.wait_ready()
    assert server.context == 512


def test_a_model_by_an_alias_of_the_extra_options_is_ours(stage: Stage) -> None:
    stage.ready(ServerOptions(port=0, extra=("--alias", "first,second")), name="second")


@pytest.mark.parametrize("prefix", [(), ("--api-prefix", "/v")])
@pytest.mark.parametrize("way", ["made", "environment", "file"])
def test_a_server_that_asks_for_a_key_gets_it(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str, prefix: tuple[str, ...]
) -> None:
    (tmp_path / "keys").write_text("# mine\n\nfrom-file\nanother\n")
    (tmp_path / "keys").chmod(0o600)
    if way == "environment":
        monkeypatch.setenv("LLAMA_API_KEY", "secret,spare")
    options = ServerOptions(port=0, extra=prefix)
    if way == "made":
        options = options.replace(api_key="auto")
    server = stage.ready(options.replace(api_key_file=tmp_path / "keys") if way == "file" else options)
    expected = {"environment": "secret", "file": "from-file"}.get(way, server.api_key)
    assert server.api_key == expected
    assert server.api_key
    server.stop()
    assert b"unauthorized" not in stage.log.read_bytes()


def test_a_refused_key_is_an_error_at_once(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAMA_API_KEY", "right")
    server = stage.start()
    server.api_key = "wrong"
    with pytest.raises(
        KeyRefused, match=r"(?m)^http://127\.0\.0\.1:\d+ requires an API key and refuses the given one$"
    ):
        server.wait_ready()
    assert not lives(server.pid)


def test_pain_22_a_crash_while_loading_is_an_error_with_status_last_lines_and_log(stage: Stage) -> None:
    say = "".join(f"line {number}\n" for number in range(40)) + "\n \n"
    server = stage.start(say=say, die_loading=3)
    with pytest.raises(ServerDied) as caught:
        server.wait_ready()
    error = caught.value
    assert (error.status, error.log, error.code) == (3, "logs/run-server.log", ExitCode.SERVER)
    assert len(error.tail) == 20
    assert error.tail[:2] == ["line 23", "line 24"]
    assert error.tail[-1] == "E llama_model_load: error loading model: tensor 'output.weight' data is out of bounds"
    first, *lines, last = str(error).splitlines()
    assert first == "llama-server exited with 3 before it was ready"
    assert lines == [f"  {line}" for line in error.tail]
    assert last == "full log: logs/run-server.log"
    assert stage.events[1:] == [ServerStopped(3)]


@pytest.mark.parametrize(
    ("number", "hint"),
    [(signal.SIGABRT, None), (signal.SIGKILL, "there may be too little memory"), (signal.SIGILL, "another processor")],
)
def test_death_by_a_signal_in_load_names_it(stage: Stage, number: signal.Signals, hint: str | None) -> None:
    server = stage.start(die_loading=-number)
    with pytest.raises(ServerDied, match=f"^llama-server was killed by signal {int(number)} before") as caught:
        server.wait_ready()
    assert caught.value.status == -number
    assert hint is None if caught.value.hint is None else hint and hint in caught.value.hint
    assert stage.events[1:] == [ServerStopped(-number)]


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("E ggml_backend_cpu_buffer: failed to allocate buffer of size 1\n", "there may be too little memory"),
        ('error while handling argument "-np": stoi\n', "the value of -np is not one that it takes"),
        ("error: invalid argument: --nope\n", "an option after -- is not one of this llama-server"),
    ],
)
def test_the_last_lines_give_a_hint(stage: Stage, line: str, hint: str) -> None:
    server = stage.start(say=line, die_loading=1)
    with pytest.raises(ServerDied) as caught:
        server.wait_ready()
    assert str(caught.value.hint).startswith(hint)


def test_a_silent_server_is_stalled_and_stopped(stage: Stage, clock: Clock, tmp_path: Path) -> None:
    server = stage.start(
        ServerOptions(port=0, load_timeout=2.5), load_until="/nonexistent", grandchild=str(tmp_path / "grandchild")
    )
    waiting = Waiting(server)
    stage.wait_said("loading model")
    clock.now += 2.6
    error = waiting.end()
    assert isinstance(error, ServerStalled)
    assert (error.seconds, error.code) == (2.5, ExitCode.SERVER)
    first, *_, line, last = str(error).splitlines()
    assert first == "llama-server is not ready and has said nothing for 2.5 s"
    assert line == f"  I srv    load_model: loading model '{tmp_path}/model.gguf'"
    assert last == "full log: logs/run-server.log"
    assert not lives(server.pid)
    wait_gone(int((tmp_path / "grandchild").read_text()))
    assert stage.events[1:] == [ServerStopped(0)]


def test_pain_22_a_slow_server_is_waited_for_while_it_writes_to_its_log(
    stage: Stage, clock: Clock, tmp_path: Path
) -> None:
    port = free_port()
    server = stage.start(ServerOptions(port=port, load_timeout=10), load_until=str(tmp_path / "loaded"))
    waiting = Waiting(server)
    stage.wait_said("loading model")
    for said in range(1, 4):
        clock.now += 9
        get(f"{server.url}/say")
        until(lambda said=said: stage.log.read_bytes().count(b"still here") == said, "its word")  # type: ignore[misc]
        looks = clock.looks[waiting]
        until(lambda looks=looks: clock.looks[waiting] >= looks + 2, "two looks at the clock")  # type: ignore[misc]
    (tmp_path / "loaded").touch()
    assert waiting.end() is None


@pytest.mark.parametrize("models", ["<html>", "[1]", "", '"text"', "[" * 5000])
def test_an_answer_that_is_not_a_list_of_models_is_no_answer(stage: Stage, clock: Clock, models: str) -> None:
    waiting = Waiting(stage.start(ServerOptions(port=0, load_timeout=10), models=models))
    stage.wait_said("model loaded")
    clock.now += 11
    assert isinstance(waiting.end(), ServerStalled)


@pytest.mark.parametrize(
    ("models", "found"),
    [
        ({"data": [{"id": "other", "aliases": ["b", "a"]}]}, "a, b, other"),
        ({"data": [{"id": f"m{number}"} for number in range(9)]}, "m0, m1, m2, …"),
        ({"data": []}, "no model"),
        ({}, "no model"),
        ({"data": None}, "no model"),
        ({"data": 1}, "no model"),
        ({"data": [1, None, "text", {"id": 7, "aliases": None}, {"id": [], "aliases": [{}, None]}]}, "no model"),
    ],
)
def test_another_model_is_not_ours(stage: Stage, models: Any, found: str) -> None:
    server = stage.start(models=models)
    with pytest.raises(ServerError, match="answers for") as caught:
        server.wait_ready()
    assert str(caught.value) == f"{server.url} answers for {found}, not for acme/tiny:Q4_K_M"
    assert caught.value.hint == "another server took the port; choose another --port"
    assert not lives(server.pid)
    assert stage.events[1:] == [ServerStopped(0)]


@pytest.mark.parametrize("meta", [None, {}, [], "text"])
def test_a_model_that_says_nothing_of_itself_is_ready(stage: Stage, meta: Any) -> None:
    other, ours = {"id": "other", "meta": {"n_ctx": 1}}, {"id": "acme/tiny:Q4_K_M", "meta": meta}
    server = stage.ready(models={"data": [other, ours]})
    assert (server.context, server.trained_context) == (None, None)


def test_a_server_that_is_stopped_at_the_last_moment_is_not_ready(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = stage.start()
    is_ready = server._is_ready
    monkeypatch.setattr(server, "_is_ready", lambda: is_ready() and server.stop() == 0)
    with pytest.raises(ServerDied):
        server.wait_ready()
    assert stage.names() == ["server_started", "server_stopped"]


def test_a_server_that_dies_at_the_last_moment_is_not_ready(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    def context(_model: object) -> tuple[None, None]:
        get(f"{server.url}/exit/9")
        until(lambda: server._child.poll() is not None, "its end")
        return None, None

    server = stage.start()
    monkeypatch.setattr(readiness, "context", context)
    with pytest.raises(ServerDied, match="exited with 9"):
        server.wait_ready()
    assert stage.names() == ["server_started", "server_stopped"]


def test_another_server_on_our_port_is_not_taken_for_ours(stage: Stage) -> None:
    port = free_port()
    stage.start(ServerOptions(port=port), alias="other").wait_ready()
    ours = stage.start(ServerOptions(port=port))
    with pytest.raises((ServerDied, ServerError)) as caught:
        ours.wait_ready()
    assert not lives(ours.pid)
    if isinstance(caught.value, ServerDied):
        assert caught.value.tail == ["E srv    start: couldn't bind HTTP server socket, hostname: 127.0.0.1"]
    assert lives(stage.servers[0].pid)


def test_a_missing_program_is_an_error(stage: Stage, tmp_path: Path) -> None:
    with pytest.raises(ServerError, match=f"(?m)^cannot start {tmp_path}/nothing: there is no such program$"):
        stage.start(binary=tmp_path / "nothing")
    assert stage.events == []
    assert not stage.registry.exists()


def test_a_program_without_permission_to_run_is_an_error(stage: Stage, tmp_path: Path) -> None:
    stage.binary().chmod(0o644)
    with pytest.raises(ServerError, match=f"^cannot start {tmp_path}/llama-server: "):
        stage.start()


def test_a_damaged_program_is_an_error(stage: Stage, tmp_path: Path) -> None:
    (tmp_path / "llama-server").write_bytes(b"\x7fELF damaged")
    (tmp_path / "llama-server").chmod(0o755)
    with pytest.raises(ServerError, match="llama-server"):
        stage.start().wait_ready()
    assert "server_ready" not in stage.names()


def test_arguments_that_cannot_be_passed_on_leave_nothing_behind(stage: Stage) -> None:
    with pytest.raises(ValueError, match="null byte"):
        stage.start(ServerOptions(extra=("a\0b",)))
    assert stage.events == []


def test_a_sink_that_fails_leaves_no_server_behind(stage: Stage) -> None:
    pids = []

    def sink(event: Event) -> None:
        stage.events.append(event)
        if isinstance(event, ServerStarted):
            pids.append(event.pid)
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    with pytest.raises(BrokenPipeError):
        stage.start(sink=sink)
    assert not lives(pids[0])
    assert stage.names() == ["server_started", "server_stopped"]
    assert list(stage.registry.iterdir()) == []


def test_a_sink_that_fails_when_it_is_ready_leaves_no_server_behind(stage: Stage) -> None:
    def sink(event: Event) -> None:
        if isinstance(event, ServerReady):
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    server = stage.start(sink=sink)
    with pytest.raises(BrokenPipeError):
        server.wait_ready()
    assert not lives(server.pid)


@linux
def test_a_server_outlives_the_thread_that_started_it(stage: Stage) -> None:
    ids = []

    def start() -> None:
        ids.append(threading.get_native_id())
        stage.start()

    starter = threading.Thread(target=start)
    starter.start()
    starter.join(PATIENCE_S)
    until(lambda: not Path(f"/proc/self/task/{ids[0]}").exists(), "the end of the thread")
    server = stage.servers[0]
    server.wait_ready()
    assert lives(server.pid)


@linux
def test_a_server_outlives_its_own_output(stage: Stage) -> None:
    server = stage.ready(close_output=True)
    assert server._child.stdout is not None
    until(lambda: server._child.stdout.closed, "the end of its output")  # type: ignore[union-attr]
    get(server.url + "/exit/4")
    assert server.wait() == 4
