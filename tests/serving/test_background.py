"""A server in the background: held by a process of its own, found, ended and started anew from anywhere."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

import psutil
import pytest

from llama_runner.client.errors import KeyRefused
from llama_runner.core.csv_option_values import parse_row
from llama_runner.core.errors import ExitCode, Interrupted, ServerError, StoreError, UsageError
from llama_runner.core.events import Event, LockWaiting
from llama_runner.serving import find_and_stop
from llama_runner.serving.daemon import detach, spec_from_json, spec_to_json
from llama_runner.serving.errors import AmbiguousName, NoSuchServer, PortTaken
from llama_runner.serving.llama_server import readiness
from llama_runner.serving.llama_server.launch_spec import ServerOptions, ServerSpec
from llama_runner.serving.llama_server.readiness import Asked
from llama_runner.serving.running_server import RunningServer, ensure_ready
from llama_runner.serving.server_registry import running
from llama_runner.serving.status_probe import look_at_all
from llama_runner.store.process_locks import hold
from tests.serving.play import PATIENCE_S, Stage, get, lives, spec, until, wait_gone

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from llama_runner.serving.server_process import Server


@pytest.fixture
def background(stage: Stage) -> Iterator[Callable[..., RunningServer]]:
    (stage.root / "model.gguf").touch()

    def start(options: ServerOptions | None = None, **given: Any) -> RunningServer:
        policy, key, limit = given.pop("policy", "no"), given.pop("key", None), given.pop("limit", 5)
        cancelled = given.pop("cancelled", lambda: False)
        adapters = given.pop("adapters", ())
        os.environ["GGML_FAKE"] = json.dumps(given)
        return detach(
            spec(stage, options).replace(adapters=adapters),
            log=stage.log,
            log_name="logs/run-server.log",
            registry=stage.registry,
            sink=stage.events.append,
            policy=policy,
            limit=limit,
            key=key,
            cancelled=cancelled,
        )

    yield start
    find_and_stop.stop(stage.registry, None)
    until(lambda: not [child for child in psutil.Process().children() if holds(child)], "the end of all holders")


def holds(process: psutil.Process) -> bool:
    try:
        return "llama_runner.serving.daemon" in " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return False


def holder(server: RunningServer) -> int:
    return int(server.about["supervisor"])


def test_it_is_ready_when_detach_returns_and_no_child_of_ours(
    stage: Stage, background: Callable[..., RunningServer]
) -> None:
    server = background()
    assert stage.names() == ["server_started", "server_ready"]
    assert server.state == "ready"
    assert psutil.Process(server.pid).ppid() == holder(server)
    assert os.getsid(holder(server)) != os.getsid(0), "the end of this terminal is not its end"
    with server:
        get(f"{server.url}/say")
    assert lives(server.pid)
    stage.wait_said("still here")


@pytest.mark.parametrize("by", ["name", "handle"])
def test_stopping_ends_it_and_who_holds_it(
    stage: Stage, background: Callable[..., RunningServer], tmp_path: Path, by: str
) -> None:
    server = background(policy="always", grandchild=str(tmp_path / "grandchild"))
    server.stop() if by == "handle" else find_and_stop.stop(stage.registry, "acme/tiny")
    assert not lives(server.pid)
    assert not lives(holder(server))
    assert stage.log.read_bytes().count(b"model loaded") == 1, "it was not started again in between"
    wait_gone(int((tmp_path / "grandchild").read_text()))
    assert list(stage.registry.iterdir()) == []
    assert server.state == "stopped"


def test_what_hinders_it_is_told_as_in_the_foreground(stage: Stage, background: Callable[..., RunningServer]) -> None:
    with pytest.raises(ServerError) as caught:
        background(die_loading=-9)
    assert str(caught.value).startswith("llama-server was killed by signal 9 before it was ready\n  ")
    assert str(caught.value.hint).startswith("there may be too little memory")
    assert caught.value.code == ExitCode.SERVER
    assert running(stage.registry) == []


@pytest.mark.parametrize("then", ["stop", "start"])
def test_one_that_crashes_in_load_is_shown_as_failed_until_it_is_stopped_or_started(
    stage: Stage, background: Callable[..., RunningServer], then: str
) -> None:
    with pytest.raises(ServerError):
        background(die_loading=7)
    [seen] = look_at_all(stage.registry)
    assert (seen["alias"], seen["state"], seen["pid"], seen["rss"]) == ("acme/tiny", "failed", None, None)
    assert seen["failure"].startswith("llama-server exited with 7 before it was ready\n  ")
    assert find_and_stop.log_of(stage.registry, stage.root, "acme/tiny")[0] == stage.log
    assert running(stage.registry) == [], "it is shown, and nothing else"
    if then == "stop":
        assert [each["state"] for each in find_and_stop.stop(stage.registry, "acme/tiny")] == ["failed"]
        assert list(stage.registry.iterdir()) == []
    else:
        background()
        assert [each["state"] for each in look_at_all(stage.registry)] == ["ready"]


@pytest.mark.parametrize(
    ("given", "path", "failure"),
    [
        ({}, "exit/3", "llama-server exited with 3"),
        ({}, "kill/9", "llama-server was killed by signal 9"),
        ({"policy": "on-failure", "limit": 0}, "exit/3", "acme/tiny exited with 3"),
    ],
)
def test_one_that_is_given_up_is_shown_as_failed(
    stage: Stage, background: Callable[..., RunningServer], given: dict[str, Any], path: str, failure: str
) -> None:
    server = background(**given)
    get(f"{server.url}/{path}")
    until(lambda: not lives(holder(server)), "the end of its holder")
    [seen] = look_at_all(stage.registry)
    assert (seen["state"], seen["failure"], seen["url"]) == ("failed", failure, server.url)


def test_one_that_ends_as_it_should_has_not_failed(stage: Stage, background: Callable[..., RunningServer]) -> None:
    server = background()
    get(f"{server.url}/exit/0")
    until(lambda: not lives(holder(server)), "the end of its holder")
    assert look_at_all(stage.registry) == []


def test_what_cannot_be_written_is_told(stage: Stage, background: Callable[..., RunningServer]) -> None:
    (stage.root / "logs").write_text("a file")
    background()
    assert "warned" in stage.names()


def test_whoever_does_not_want_to_wait_any_more_leaves_nothing(
    stage: Stage, background: Callable[..., RunningServer]
) -> None:
    with pytest.raises(Interrupted):
        background(load_until="/nonexistent", cancelled=lambda: "server_started" in stage.names())
    assert running(stage.registry) == []


def test_no_code_of_the_current_directory_runs(
    background: Callable[..., RunningServer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("json", "llama_runner", "sitecustomize"):
        (tmp_path / f"{name}.py").write_text("import os; os.mkdir('it ran')")
    monkeypatch.chdir(tmp_path)
    assert background().state == "ready"
    assert not (tmp_path / "it ran").exists()


def test_killing_who_holds_it_kills_it(stage: Stage, background: Callable[..., RunningServer]) -> None:
    server = background(ignore_term=True)
    os.kill(holder(server), signal.SIGKILL)
    wait_gone(server.pid)
    assert running(stage.registry) == []


SAMPLES: dict[Any, Any] = {
    Path: Path("/a \udcff,b"),
    str: 'text "with" \n é',
    int: 7,
    float: 1.5,
    bool: True,
    tuple[str, ...]: ("--one", "a b", ""),
    tuple[Path, ...]: (Path("/x,y"), Path("/z")),
    tuple[float, ...]: (0.5, 1.0),
}


def test_11_06_every_field_of_a_spec_reaches_the_process_that_holds_the_server() -> None:
    values = {}
    for name, kind in get_type_hints(ServerSpec).items():
        if name not in ServerSpec.fields:
            continue
        kinds = get_args(kind) if isinstance(kind, UnionType) else (kind,)
        values[name] = SAMPLES[next(each for each in kinds if each is not type(None))]
    assert values.keys() == ServerSpec.fields.keys()
    full = ServerSpec(**values)
    for whole in (full, full.replace(projector=None, ctx_size=None, gpu_layers=None, extra=(), adapters=())):
        again = spec_from_json(json.loads(json.dumps(spec_to_json(whole))))
        assert again == whole
        assert [type(value) for value in again.__dict__.values()] == [type(value) for value in whole.__dict__.values()]
        assert again.argv() == whole.argv()
        assert again.digest == whole.digest


def test_11_06_adapters_are_one_list_and_reach_a_server_in_the_background(
    stage: Stage, background: Callable[..., RunningServer], tmp_path: Path
) -> None:
    adapters = (stage.root / "a.gguf", stage.root / "b,c.gguf", Path('"d.gguf'))
    server = background(adapters=adapters, inspect=str(tmp_path / "seen"))
    argv = json.loads((tmp_path / "seen").read_text())["argv"]
    assert argv.count("--lora") == 1
    assert parse_row(argv[argv.index("--lora") + 1]) == list(map(str, adapters))
    assert argv[1:] == server.spec.argv()[1:]


def test_the_key_is_in_no_argument_and_no_file(
    stage: Stage, background: Callable[..., RunningServer], tmp_path: Path
) -> None:
    options = ServerOptions(port=0, api_key="auto")
    server = background(options, key="a-key-of-ours", inspect=str(tmp_path / "seen"))
    assert server.api_key == "a-key-of-ours"
    seen = json.loads((tmp_path / "seen").read_text())
    assert seen["environment"]["LLAMA_API_KEY"] == "a-key-of-ours"
    [entry] = stage.registry.iterdir()
    for text in (*seen["argv"], *psutil.Process(holder(server)).cmdline(), entry.read_text(), stage.log.read_text()):
        assert "a-key-of-ours" not in text


def test_restart_starts_it_anew_at_the_same_place_with_the_same_key(
    stage: Stage, background: Callable[..., RunningServer]
) -> None:
    server = background(ServerOptions(port=0, api_key="auto"), key="a-key-of-ours")
    after = find_and_stop.restart(stage.registry, "acme/tiny")
    assert after["url"] == server.url
    assert after["pid"] != server.pid
    assert not lives(server.pid)
    assert Asked(server.url, "a-key-of-ours").get("/v1/models") is not None


def test_restart_that_fails_is_told(stage: Stage, background: Callable[..., RunningServer]) -> None:
    server = background()
    server.spec.model.unlink()
    with pytest.raises(ServerError, match=r"(?m)^acme/tiny did not start again\nfull log: logs/run-server\.log$"):
        find_and_stop.restart(stage.registry, "acme/tiny")
    stage.wait_said(f"llama-runner: error: {server.spec.model} is gone")


def test_11_14_one_that_still_loads_is_restarted(
    stage: Stage, background: Callable[..., RunningServer], tmp_path: Path
) -> None:
    with ThreadPoolExecutor() as pool:
        starting = pool.submit(background, load_until=str(tmp_path / "loaded"))
        until(lambda: running(stage.registry), "its registration")
        [before] = running(stage.registry)
        restarting = pool.submit(find_and_stop.restart, stage.registry, "acme/tiny")
        until(lambda: [about for about in running(stage.registry) if about["pid"] != before["pid"]], "its next start")
        (tmp_path / "loaded").touch()
        about = restarting.result(PATIENCE_S)
        server = starting.result(PATIENCE_S)
    assert not lives(before["pid"])
    assert (about["pid"], about["url"], about["state"]) == (server.pid, server.url, "ready"), "whoever waited has it"
    assert lives(server.pid)


def test_11_14_a_restart_of_what_does_not_end_is_told(
    stage: Stage, background: Callable[..., RunningServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = background()
    monkeypatch.setattr(find_and_stop, "GRACE_S", 0.0)
    monkeypatch.setattr(find_and_stop, "KILL_GRACE_S", 0.0)
    os.kill(holder(server), signal.SIGSTOP)
    try:
        with pytest.raises(ServerError, match=r"^acme/tiny did not start again"):
            find_and_stop.restart(stage.registry, "acme/tiny")
    finally:
        os.kill(holder(server), signal.SIGCONT)
        until(lambda: not lives(server.pid), "the restart that was asked for")
        until(lambda: [about for about in running(stage.registry) if about["state"] == "ready"], "its next start")


def test_11_12_one_that_cannot_be_registered_is_not_started(
    stage: Stage, background: Callable[..., RunningServer], tmp_path: Path
) -> None:
    stage.registry.write_text("a file")
    with pytest.raises(StoreError, match=f"(?m)^cannot register a server in {stage.registry}: File exists$"):
        background(inspect=str(tmp_path / "seen"))
    assert stage.names() == []
    assert not (tmp_path / "seen").exists()
    stage.registry.unlink()


def test_11_12_one_that_cannot_be_registered_when_it_is_ready_is_ended(
    stage: Stage, background: Callable[..., RunningServer], tmp_path: Path
) -> None:
    def cancelled() -> bool:
        """Let it become ready where nothing can be registered any more."""
        if "server_started" in stage.names() and stage.registry.is_dir():
            stage.registry.rename(tmp_path / "registered")
            stage.registry.write_text("a file")
            (tmp_path / "loaded").touch()
        return False

    with pytest.raises(ServerError, match=f"^cannot register a server in {stage.registry}: ") as caught:
        background(load_until=str(tmp_path / "loaded"), cancelled=cancelled)
    assert caught.value.code == ExitCode.STORE
    stage.registry.unlink()
    (tmp_path / "registered").rename(stage.registry)
    assert running(stage.registry) == []


def test_a_server_of_the_foreground_is_not_restarted_from_elsewhere(stage: Stage) -> None:
    server = stage.ready(alias="a")
    with pytest.raises(UsageError, match=f"^a, process {server.pid}, runs in the foreground"):
        find_and_stop.restart(stage.registry, "a")
    assert lives(server.pid)


def test_a_name_of_several_servers_is_not_enough(stage: Stage) -> None:
    servers = [stage.ready(alias="a"), stage.ready(alias="a")]
    with pytest.raises(AmbiguousName, match=r"(?m)^2 servers are called 'a'$") as caught:
        find_and_stop.named(stage.registry, "a")
    assert caught.value.hint == f"name one by its URL: {servers[0].url}, {servers[1].url}"
    assert find_and_stop.named(stage.registry, servers[1].url)["pid"] == servers[1].pid


def test_one_that_crashes_is_started_again(stage: Stage, background: Callable[..., RunningServer]) -> None:
    server = background(policy="on-failure")
    get(f"{server.url}/kill/9")
    until(
        lambda: [a for a in running(stage.registry) if a["pid"] != server.pid and a["state"] == "ready"],
        "its next start",
    )
    [about] = running(stage.registry)
    assert about["url"] == server.url
    stage.wait_said('llama-runner: {"event": "server_restarting", "status": -9, "attempt": 1')


@pytest.mark.parametrize("then", ["stop", "restart"])
def test_between_two_starts_it_can_be_stopped_or_started_at_once(
    stage: Stage, background: Callable[..., RunningServer], then: str
) -> None:
    server = background(policy="always")
    get(f"{server.url}/kill/9")
    until(lambda: [about for about in running(stage.registry) if about["state"] == "restarting"], "its pause")
    if then == "stop":
        find_and_stop.stop(stage.registry, "acme/tiny")
        assert not lives(holder(server))
        assert list(stage.registry.iterdir()) == []
    else:
        assert find_and_stop.restart(stage.registry, "acme/tiny")["url"] == server.url


def test_what_it_does_now_can_be_seen(stage: Stage, background: Callable[..., RunningServer]) -> None:
    server = background(ServerOptions(port=0, extra=("--metrics",)))
    [seen] = look_at_all(stage.registry)
    assert (seen["pid"], seen["state"], seen["context"]) == (server.pid, "ready", 512)
    assert (seen["slots"], seen["slots_busy"], seen["tokens_per_second"]) == (2, 1, 12.5)
    assert 0 <= seen["age_s"] < PATIENCE_S
    assert seen["rss"] > 1 << 20


def test_what_a_server_does_is_seen_with_the_right_key_only(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "keys").write_text("right\n")
    (tmp_path / "keys").chmod(0o600)
    by_file = stage.ready(ServerOptions(port=0, api_key_file=tmp_path / "keys"))
    assert look_at_all(stage.registry)[0]["slots"] == 2, "whoever may read the file"
    by_file.stop()
    monkeypatch.setenv("LLAMA_API_KEY", "right")
    stage.ready()
    assert look_at_all(stage.registry)[0]["slots"] == 2
    monkeypatch.setenv("LLAMA_API_KEY", "wrong")
    assert look_at_all(stage.registry)[0]["slots"] is None
    monkeypatch.delenv("LLAMA_API_KEY")
    assert look_at_all(stage.registry)[0]["slots"] is None


def never() -> Server:
    raise AssertionError("a second one was started")


def test_a_server_that_runs_already_is_returned(stage: Stage) -> None:
    first = stage.ready(alias="acme/tiny")
    with ensure_ready(first.spec, stage.registry, never) as found:
        assert isinstance(found, RunningServer)
        assert (found.pid, found.url, found.context) == (first.pid, first.url, 512)
    assert lives(first.pid), "whoever did not start it does not end it"


def test_a_server_with_a_key_that_was_shown_to_another_is_not_ours(stage: Stage) -> None:
    options = ServerOptions(port=0, api_key="auto")
    first = stage.ready(options, alias="acme/tiny")
    second = ensure_ready(first.spec, stage.registry, lambda: stage.ready(options, alias="acme/tiny"))
    assert second.pid != first.pid
    assert second.api_key != first.api_key


def test_a_server_that_wants_another_key_is_told(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAMA_API_KEY", "theirs")
    first = stage.ready(alias="acme/tiny")
    monkeypatch.setenv("LLAMA_API_KEY", "ours")
    with pytest.raises(KeyRefused):
        ensure_ready(first.spec, stage.registry, never)


def test_a_server_that_does_not_answer_is_not_returned(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "TIMEOUT_S", 0.1)
    first = stage.ready(alias="acme/tiny")
    os.kill(first.pid, signal.SIGSTOP)

    def start() -> Server:
        monkeypatch.setattr(readiness, "TIMEOUT_S", 5.0)
        return stage.ready(alias="acme/tiny")

    try:
        second = ensure_ready(first.spec, stage.registry, start)
    finally:
        os.kill(first.pid, signal.SIGCONT)
    assert second.pid != first.pid


def test_a_server_that_still_loads_is_waited_for(stage: Stage, tmp_path: Path) -> None:
    loading = stage.start(load_until=str(tmp_path / "loaded"))

    def cancelled() -> bool:
        (tmp_path / "loaded").touch()
        if loading.state == "loading":
            loading.wait_ready()
        return False

    assert ensure_ready(loading.spec, stage.registry, never, cancelled).url == loading.url


def test_one_that_ends_while_it_is_waited_for_is_told(stage: Stage) -> None:
    loading = stage.start(load_until="/nonexistent")
    with pytest.raises(ServerError, match="ended before it was ready"):
        ensure_ready(loading.spec, stage.registry, never, lambda: loading.stop() == 1)


def test_one_is_started_where_none_runs_or_another(stage: Stage) -> None:
    first = stage.ready(alias="a")
    started: list[Server] = []

    def start() -> Server:
        started.append(stage.ready(alias="b"))
        return started[0]

    assert ensure_ready(spec(stage, alias="b"), stage.registry, start) is started[0]
    port = int(first.url.rpartition(":")[2])
    with pytest.raises(PortTaken, match=f"(?m)^port {port} on 127.0.0.1 is taken by a, process {first.pid}$"):
        ensure_ready(spec(stage, ServerOptions(port=port)), stage.registry, never)


SHARED = """
import sys
from pathlib import Path
from llama_runner.serving.running_server import ensure_ready
from llama_runner.serving.llama_server.launch_spec import ServerOptions
from tests.serving.play import Stage, spec
stage, options = Stage(Path(sys.argv[1])), ServerOptions(port=int(sys.argv[2]))
print("here", flush=True)
sys.stdin.readline()
start = lambda: stage.ready(options, alias="acme/tiny", load_until=sys.argv[3])
with ensure_ready(spec(stage, options), stage.registry, start) as server:
    print(server.pid, flush=True)
    sys.stdin.readline()
"""


def test_11_15_processes_that_want_the_same_server_at_once_share_one(
    stage: Stage, tmp_path: Path, children: list[subprocess.Popen[str]]
) -> None:
    (stage.root / "model.gguf").touch()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    for _ in range(4):
        words = [sys.executable, "-c", SHARED, str(stage.root), str(port), str(tmp_path / "loaded")]
        children.append(
            subprocess.Popen(
                words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
            )
        )

    def said(child: subprocess.Popen[str]) -> str:
        assert child.stdout is not None
        return child.stdout.readline().strip()

    def go_on() -> None:
        for child in children:
            assert child.stdin is not None
            child.stdin.write("\n")
            child.stdin.flush()

    assert [said(child) for child in children] == ["here"] * 4
    go_on()
    until(lambda: running(stage.registry), "the start of one")
    (tmp_path / "loaded").touch()
    [pid] = {said(child) for child in children}
    assert lives(int(pid))
    assert [str(about["pid"]) for about in running(stage.registry)] == [pid]
    go_on()
    assert [child.wait(PATIENCE_S) for child in children] == [0] * 4
    assert stage.log.read_bytes().count(b"model loaded") == 1
    wait_gone(int(pid))


def test_11_15_one_that_waits_for_another_to_start_it_may_give_up(stage: Stage) -> None:
    wanted = spec(stage)
    events: list[Event] = []
    lock = stage.registry.parent / "locks" / f"server-{wanted.digest[:2]}.lock"
    with hold(lock, "server", timeout=0), pytest.raises(Interrupted):
        ensure_ready(
            wanted,
            stage.registry,
            never,
            lambda: any(isinstance(event, LockWaiting) for event in events),
            sink=events.append,
        )
    assert len(events) == 1


def test_11_15_where_no_lock_can_be_had_a_server_is_started(stage: Stage) -> None:
    (stage.root / "locks").write_text("a file")
    server = ensure_ready(spec(stage), stage.registry, lambda: stage.ready(alias="acme/tiny"))
    assert server.state == "ready"


def test_a_server_asked_to_wait_longer_is_the_same(stage: Stage) -> None:
    first = stage.ready(alias="acme/tiny")
    assert spec(stage, ServerOptions(port=0, load_timeout=1)).digest == first.spec.digest
    assert spec(stage, ServerOptions(port=0, ctx_size=64)).digest != first.spec.digest


def test_the_log_of_the_one_that_runs_or_ran_last_is_found(stage: Stage) -> None:
    with pytest.raises(NoSuchServer, match=r"(?m)^no server has run here$"):
        find_and_stop.log_of(stage.registry, stage.root, None)
    server = stage.ready(alias="a")
    assert find_and_stop.log_of(stage.registry, stage.root, None)[0] == stage.log
    path, runs = find_and_stop.log_of(stage.registry, stage.root, "a")
    assert path == stage.log
    assert runs()
    server.stop()
    assert not runs()
    stage.log.rename(stage.log.with_name("run-server-1.log"))
    assert find_and_stop.log_of(stage.registry, stage.root, None)[0].name == "run-server-1.log"


def test_it_outlives_who_started_it(stage: Stage) -> None:
    code = (
        "import sys; from pathlib import Path; from tests.serving.play import Stage; "
        "from tests.serving import test_background as t; from llama_runner.serving.daemon import detach\n"
        "s = Stage(Path(sys.argv[1])); (s.root / 'model.gguf').touch()\n"
        "detach(t.spec(s), log=s.log, log_name='x', registry=s.registry, sink=s.events.append)"
    )
    subprocess.run([sys.executable, "-c", code, str(stage.root)], check=True, cwd=Path(__file__).parents[2])
    [about] = running(stage.registry)
    get(f"{about['url']}/say")
    stage.wait_said("still here")
    assert [each["pid"] for each in find_and_stop.stop(stage.registry, None)] == [about["pid"]]
