"""Which servers run: what is written down is believed only while it is true."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llama_runner.core.errors import ExitCode, ServerError, UsageError
from llama_runner.serving import find_and_stop
from llama_runner.serving.errors import AmbiguousName, NoSuchServer, OutOfReach
from llama_runner.serving.find_and_stop import known, stop
from llama_runner.serving.server_registry import (
    elsewhere,
    failed,
    forget_ended,
    forget_failed,
    machine,
    register,
    register_failed,
    retire,
    running,
)
from tests.serving.play import PATIENCE_S, Stage, get, lives, until, wait_gone

ABOUT: dict[str, Any] = {"alias": "a", "url": "http://127.0.0.1:1", "log": "logs/x.log"}


def ended_pid() -> int:
    child = subprocess.Popen([sys.executable, "-I", "-S", "-c", ""])
    child.wait()
    return child.pid


def test_a_server_is_written_down_from_its_start_to_its_end(stage: Stage) -> None:
    server = stage.start(load_until="/nonexistent")
    (about,) = running(stage.registry)
    assert about.pop("began")
    assert about.pop("machine")
    assert about.pop("host")
    assert about.pop("spec") == server.spec.digest
    assert about.pop("answers")
    assert about.pop("files") == [str(server.spec.binary), str(server.spec.model)]
    assert about == {
        "pid": server.pid,
        "url": server.url,
        "alias": "acme/tiny:Q4_K_M",
        "model": str(stage.root / "model.gguf"),
        "binary": str(server.spec.binary),
        "log": "logs/run-server.log",
        "state": "loading",
        "wants_key": False,
        "context": None,
        "trained_context": None,
    }
    server.stop()
    assert running(stage.registry) == []
    assert list(stage.registry.iterdir()) == []


def test_port_0_is_written_down_as_the_one_that_was_chosen(stage: Stage) -> None:
    server = stage.ready()
    assert running(stage.registry)[0]["url"] == server.url


@pytest.mark.parametrize("path", ["exit/1", "kill/9"])
def test_a_server_that_has_ended_is_not_believed_before_anybody_looked(stage: Stage, path: str) -> None:
    server = stage.ready()
    get(f"{server.url}/{path}")
    until(lambda: running(stage.registry) == [], "the end to show")
    server.wait()
    assert list(stage.registry.iterdir()) == []


def test_several_servers_stand_side_by_side(stage: Stage) -> None:
    first, second = stage.start(), stage.start()
    assert {about["pid"] for about in running(stage.registry)} == {first.pid, second.pid}
    first.stop()
    assert [about["pid"] for about in running(stage.registry)] == [second.pid]


def test_a_pid_that_is_gone_is_not_believed(tmp_path: Path) -> None:
    register(tmp_path, os.getpid(), ABOUT)
    (about,) = running(tmp_path)
    gone = about | {"pid": ended_pid()}
    (tmp_path / "stale.json").write_text(json.dumps(gone))
    assert running(tmp_path) == [about]


def test_a_pid_that_was_given_to_another_process_is_not_believed(tmp_path: Path) -> None:
    path = register(tmp_path, os.getpid(), ABOUT)
    assert path is not None
    about = json.loads(path.read_text())
    path.write_text(json.dumps(about | {"began": about["began"] - 1}))
    assert running(tmp_path) == []


def test_what_another_machine_or_an_earlier_boot_wrote_is_not_believed_and_not_touched(tmp_path: Path) -> None:
    path = register(tmp_path, os.getpid(), ABOUT)
    assert path is not None
    about = json.loads(path.read_text())
    path.write_text(json.dumps(about | {"machine": "another"}))
    assert running(tmp_path) == []
    forget_ended(tmp_path)
    assert path.exists(), "it may run there"


def test_what_a_killed_process_left_is_forgotten_when_somebody_cleans_up(stage: Stage, tmp_path: Path) -> None:
    path = register(stage.registry, os.getpid(), ABOUT)
    assert path is not None
    (stage.registry / "1.json").write_text(json.dumps(json.loads(path.read_text()) | {"pid": ended_pid()}))
    (stage.registry / "2.json").write_text("damaged")
    forget_ended(stage.registry)
    assert {file.name for file in stage.registry.iterdir()} == {"2.json", path.name}


def test_setting_the_clock_changes_nothing(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    server = stage.ready()
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert [about["pid"] for about in running(stage.registry)] == [server.pid]


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "1", "{}", '{"pid": 1}', '{"pid": "x", "began": 1}', '{"pid": null, "began": 1}', "\xff"]
)
def test_a_damaged_file_is_passed_over(tmp_path: Path, text: str) -> None:
    register(tmp_path, os.getpid(), ABOUT)
    (tmp_path / "0.json").write_bytes(text.encode("latin-1"))
    (tmp_path / "1.json").mkdir()
    (tmp_path / "2.tmp").write_text("{")
    assert [about["pid"] for about in running(tmp_path)] == [os.getpid()]


def test_a_registry_that_does_not_exist_has_no_servers(tmp_path: Path) -> None:
    assert running(tmp_path / "servers") == []


def test_a_server_runs_also_where_it_cannot_be_written_down(stage: Stage) -> None:
    stage.registry.write_text("a file")
    stage.ready().stop()
    assert stage.names() == ["server_started", "server_ready", "server_stopped"]
    assert stage.registry.read_text() == "a file"


def test_a_process_that_has_ended_is_not_written_down(tmp_path: Path) -> None:
    assert register(tmp_path, ended_pid(), ABOUT) is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("by", ["alias", "url", "pid"])
def test_the_servers_of_a_name_are_stopped_and_no_others(stage: Stage, by: str) -> None:
    ours, other = stage.ready(alias="a"), stage.ready(alias="b")
    name = {"alias": "a", "url": ours.url, "pid": str(ours.pid)}[by]
    assert [about["pid"] for about in stop(stage.registry, name)] == [ours.pid]
    assert not lives(ours.pid)
    assert lives(other.pid)
    assert ours.wait() == 0, "whoever runs it learns how it ended"


def test_without_a_name_all_are_stopped(stage: Stage) -> None:
    servers = [stage.ready(), stage.ready()]
    assert {about["pid"] for about in stop(stage.registry, None)} == {server.pid for server in servers}
    assert not any(lives(server.pid) for server in servers)
    assert stop(stage.registry, None) == []


def test_a_name_that_nobody_has_names_those_that_run(stage: Stage) -> None:
    with pytest.raises(NoSuchServer, match=r"(?m)^no server called 'x' runs$") as caught:
        stop(stage.registry, "x")
    assert (caught.value.hint, caught.value.code) == ("none runs here", ExitCode.USAGE)
    server = stage.ready()
    with pytest.raises(NoSuchServer) as caught:
        stop(stage.registry, "x")
    assert caught.value.hint == "running: acme/tiny:Q4_K_M"
    assert lives(server.pid)


def test_one_that_ignores_sigterm_is_killed_with_what_it_started(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(find_and_stop, "GRACE_S", 0.05)
    server = stage.ready(ignore_term=True, grandchild=str(tmp_path / "grandchild"))
    stop(stage.registry, None)
    assert not lives(server.pid)
    wait_gone(int((tmp_path / "grandchild").read_text()))
    assert server.wait() == -signal.SIGKILL


def test_stopping_lasts_until_the_server_is_gone_whatever_is_written_meanwhile(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[None] = []
    clock = SimpleNamespace(monotonic=lambda: 0.0, sleep=lambda _: looks.append(time.sleep(0.005)))  # type: ignore[func-returns-value]
    monkeypatch.setattr(find_and_stop, "time", clock)
    server = stage.start(ignore_term=True)
    stage.wait_said("model loaded")
    stopping = threading.Thread(target=stop, args=[stage.registry, None], daemon=True)
    stopping.start()
    stage.wait_said("received SIGTERM")
    server.wait_ready()  # and so its file has another URL
    assert running(stage.registry)[0]["url"] == server.url
    seen = len(looks)
    until(lambda: len(looks) >= seen + 3 or not stopping.is_alive(), "more looks")
    assert stopping.is_alive()
    get(f"{server.url}/exit/3")
    stopping.join(PATIENCE_S)
    assert not stopping.is_alive()
    assert not lives(server.pid)


def test_a_server_of_another_user_is_left_alone(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    server = stage.ready()
    with monkeypatch.context() as patch:
        patch.setattr(os, "killpg", refuse)
        with pytest.raises(ServerError, match=f"(?m)^process {server.pid} is not ours to stop$"):
            stop(stage.registry, None)
    assert lives(server.pid)


NAMESPACE = """
import json, sys
from pathlib import Path
from llama_runner.serving.find_and_stop import known, stop
from llama_runner.serving.server_registry import running
from tests.serving.play import Stage
stage = Stage(Path(sys.argv[1]))
server = stage.ready(alias=sys.argv[2])
print(server.pid, flush=True)
sys.stdin.readline()
print([about["alias"] for about in running(stage.registry)], flush=True)
sys.stdin.readline()
warnings = []
print([about["alias"] for about in stop(stage.registry, None, warnings.append)], flush=True)
print([warning.text for warning in warnings], flush=True)
server.wait()
"""


@pytest.fixture
def namespace() -> list[str]:
    """Return the words that start a program in a PID namespace of its own."""
    for more in ([], ["--user", "--map-root-user"]):
        words = ["unshare", *more, "--pid", "--fork", "--kill-child", "--mount-proc"]
        with suppress(OSError):
            if subprocess.run([*words, "true"], check=False, capture_output=True).returncode == 0:
                return words
    pytest.skip("this user may not make PID namespaces")


def test_11_13_servers_of_two_containers_that_share_a_root_are_both_seen_and_stopped(
    stage: Stage, namespace: list[str], children: list[subprocess.Popen[str]]
) -> None:
    def container(alias: str) -> subprocess.Popen[str]:
        words = [*namespace, sys.executable, "-c", NAMESPACE, str(stage.root), alias]
        started = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
        )
        children.append(started)
        return started

    def said(by: subprocess.Popen[str]) -> str:
        assert by.stdout is not None
        return by.stdout.readline().strip()

    def go_on(which: subprocess.Popen[str]) -> None:
        assert which.stdin is not None
        which.stdin.write("\n")
        which.stdin.flush()

    first = container("first")
    pid = said(first)
    second = container("second")
    assert said(second) == pid, "process ids begin anew in each"
    for each, alias in ((first, "first"), (second, "second")):
        go_on(each)
        assert said(each) == f"['{alias}']"
    assert {about["alias"] for about in elsewhere(stage.registry)} == {"first", "second"}
    with pytest.raises(OutOfReach, match=r"^first at http://\S+ was started in another container"):
        stop(stage.registry, "first")
    go_on(first)
    assert said(first) == "['first']"
    assert f"second at {elsewhere(stage.registry)[0]['url']} was started in another container" in said(first)
    assert first.wait(PATIENCE_S) == 0
    go_on(second)
    assert said(second) == "['second']", "it goes on when the other has been stopped"
    assert said(second) == "[]"
    assert second.wait(PATIENCE_S) == 0
    assert list(stage.registry.iterdir()) == []


def test_11_13_a_file_that_an_earlier_version_wrote_is_read(tmp_path: Path) -> None:
    path = register(tmp_path, os.getpid(), ABOUT)
    assert path is not None
    about = json.loads(path.read_text())
    del about["host"]
    path.unlink()
    (tmp_path / f"{os.getpid()}.json").write_text(json.dumps(about))
    assert running(tmp_path) == [about]
    assert elsewhere(tmp_path) == []


def test_11_13_what_an_earlier_boot_of_this_host_has_left_is_not_shown_as_elsewhere(tmp_path: Path) -> None:
    path = register(tmp_path, os.getpid(), ABOUT)
    assert path is not None
    about = json.loads(path.read_text())
    path.write_text(json.dumps(about | {"machine": "another-boot pid:[1]"}))
    assert elsewhere(tmp_path) == []
    path.write_text(json.dumps(about | {"machine": "another-boot pid:[1]", "host": "another"}))
    assert [each["host"] for each in elsewhere(tmp_path)] == ["another"]


def test_11_13_a_failure_in_another_container_is_not_forgotten_here(tmp_path: Path) -> None:
    register_failed(tmp_path, ABOUT, "out of luck")
    [path] = tmp_path.iterdir()
    about = json.loads(path.read_text())
    elsewhere_failed = tmp_path / path.name.replace(path.name[:8], "00000000")
    elsewhere_failed.write_text(json.dumps(about | {"machine": about["machine"] + "0"}))
    register_failed(tmp_path, ABOUT, "out of luck again")
    assert [each["failure"] for each in failed(tmp_path)] == ["out of luck again"]
    forget_failed(tmp_path, ABOUT["alias"])
    assert list(tmp_path.iterdir()) == [elsewhere_failed]


def test_11_17_a_name_of_two_servers_stops_neither(stage: Stage) -> None:
    first, second = stage.ready(alias="a"), stage.ready(alias="a")
    with pytest.raises(AmbiguousName, match=r"(?m)^2 servers are called 'a'$") as caught:
        stop(stage.registry, "a")
    assert (caught.value.hint, caught.value.code) == (f"name one by its URL: {first.url}, {second.url}", ExitCode.USAGE)
    assert lives(first.pid)
    assert lives(second.pid)
    for by in (find_and_stop.restart, lambda *names: find_and_stop.log_of(names[0], stage.root, names[1])):
        with pytest.raises(UsageError):
            by(stage.registry, "a")
    assert [about["pid"] for about in stop(stage.registry, second.url)] == [second.pid]
    assert lives(first.pid)


def test_13_12_ended_servers_of_two_models_with_one_name_are_both_known(tmp_path: Path) -> None:
    registry = tmp_path / "servers"
    registry.mkdir()
    for number in (1, 2):
        about = ABOUT | {"url": f"http://127.0.0.1:{number}", "model": f"/p{number}/a.gguf"}
        about |= {"pid": ended_pid(), "machine": machine()}
        retire(registry / f"{number}.json", about)
    with pytest.raises(AmbiguousName) as caught:
        known(registry, "a")
    assert sorted(caught.value.urls) == ["http://127.0.0.1:1", "http://127.0.0.1:2"]
    for number in (1, 2):
        assert known(registry, f"http://127.0.0.1:{number}")["model"] == f"/p{number}/a.gguf"
