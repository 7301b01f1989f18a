"""A server that ends is started again as its policy says, and not for ever."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

import pytest

from llama_runner.core.events import ServerRestarting
from llama_runner.serving import crash_restart as module
from llama_runner.serving.crash_restart import Policy, Supervisor
from llama_runner.serving.errors import GaveUp, ModelGone, ServerDied
from llama_runner.serving.llama_server.launch_spec import ServerOptions
from llama_runner.serving.server_registry import running
from tests.serving.play import PATIENCE_S, Stage, get, until


class Waiting(threading.Thread):
    """``Supervisor.wait`` in a thread."""

    def __init__(self, supervisor: Supervisor) -> None:
        super().__init__(daemon=True)
        self.supervisor, self.result = supervisor, None
        self.start()

    result: Any

    def run(self) -> None:
        try:
            self.result = self.supervisor.wait()
        except Exception as error:  # noqa: BLE001
            self.result = error

    def end(self) -> Any:
        self.join(PATIENCE_S)
        assert not self.is_alive()
        return self.result


@pytest.fixture
def look_after(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(module, "PAUSES_S", (0.001,))
    started: list[Waiting] = []

    def start(policy: Policy, *, limit: int = 3, options: ServerOptions | None = None) -> tuple[Supervisor, Waiting]:
        (stage.root / "model.gguf").touch()
        supervisor = Supervisor(stage.ready(options), policy, limit=limit)
        started.append(Waiting(supervisor))
        return supervisor, started[-1]

    yield start
    for waiting in started:
        waiting.supervisor.request_stop()
        waiting.end()


def ready_again(stage: Stage, times: int) -> None:
    until(lambda: stage.names().count("server_ready") == times, f"start {times}")


@pytest.mark.parametrize(
    ("policy", "path", "status"), [("no", "exit/3", 3), ("no", "exit/0", 0), ("on-failure", "exit/0", 0)]
)
def test_one_that_shall_not_be_started_again_is_not(
    stage: Stage, look_after: Any, policy: Policy, path: str, status: int
) -> None:
    supervisor, waiting = look_after(policy)
    get(f"{supervisor.server.url}/{path}")
    assert waiting.end() == status
    assert stage.names() == ["server_started", "server_ready", "server_stopped"]


@pytest.mark.parametrize(
    ("policy", "path"), [("on-failure", "exit/1"), ("on-failure", "kill/9"), ("always", "exit/0"), ("always", "kill/9")]
)
def test_it_is_started_again_at_the_same_place_with_the_same_key(
    stage: Stage, look_after: Any, policy: Policy, path: str
) -> None:
    supervisor, _ = look_after(policy, options=ServerOptions(port=0, api_key="auto"))
    before = supervisor.server
    get(f"{before.url}/{path}")
    ready_again(stage, 2)
    after = supervisor.server
    assert (after.url, after.api_key, after.log) == (before.url, before.api_key, before.log)
    assert after.pid != before.pid
    assert stage.log.read_bytes().count(b"model loaded") == 2, "the log goes on"
    [said] = [event for event in stage.events if isinstance(event, ServerRestarting)]
    assert (said.attempt, said.limit) == (1, 3)


def test_whoever_asks_it_to_stop_is_obeyed(stage: Stage, look_after: Any) -> None:
    supervisor, waiting = look_after("always")
    supervisor.request_stop()
    assert waiting.end() == 0
    assert running(stage.registry) == []


def test_one_that_ends_again_and_again_is_given_up(stage: Stage, look_after: Any) -> None:
    supervisor, waiting = look_after("on-failure", limit=2)
    for start in (1, 2, 3):
        ready_again(stage, start)
        get(f"{supervisor.server.url}/exit/4")
    error = waiting.end()
    assert isinstance(error, GaveUp)
    assert str(error) == "acme/tiny:Q4_K_M was started 2 times in vain; the last time it exited with 4"


def test_one_that_crashes_in_load_is_not_started_for_ever(stage: Stage, look_after: Any) -> None:
    supervisor, waiting = look_after("always")
    os.environ["GGML_FAKE"] = '{"die_loading": -11}'
    get(f"{supervisor.server.url}/kill/9")
    error = waiting.end()
    assert isinstance(error, GaveUp)
    assert isinstance(error.last, ServerDied)
    assert "started 3 times in vain; the last time:\n  llama-server was killed by signal 11" in str(error)
    assert stage.names().count("server_started") == 4
    assert list(stage.registry.iterdir()) == []


def test_one_that_has_served_for_long_has_all_its_starts_again(
    stage: Stage, look_after: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STEADY_S", 0.0)
    supervisor, _ = look_after("always", limit=1)
    for start in (1, 2, 3):
        ready_again(stage, start)
        get(f"{supervisor.server.url}/exit/4")
    ready_again(stage, 4)


def test_a_model_that_is_gone_is_not_tried(stage: Stage, look_after: Any) -> None:
    supervisor, waiting = look_after("always")
    (stage.root / "model.gguf").unlink()
    get(f"{supervisor.server.url}/kill/9")
    assert isinstance(waiting.end(), ModelGone)
    assert stage.names().count("server_started") == 1


def test_between_two_starts_it_can_be_seen_and_stopped(
    stage: Stage, look_after: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PAUSES_S", (3600.0,))
    supervisor, waiting = look_after("always")
    url = supervisor.server.url
    get(f"{url}/kill/9")
    until(lambda: [one["state"] for one in running(stage.registry)] == ["restarting"], "its entry")
    [about] = running(stage.registry)
    assert (about["pid"], about["url"]) == (os.getpid(), url)
    supervisor.request_stop()
    assert waiting.end() == -signal.SIGKILL
    assert running(stage.registry) == []


@pytest.mark.parametrize("policy", ["no", "always"])
def test_it_is_started_anew_when_somebody_asks_for_it(stage: Stage, look_after: Any, policy: Policy) -> None:
    supervisor, waiting = look_after(policy, limit=0)
    before = supervisor.server
    supervisor.request_restart()
    ready_again(stage, 2)
    assert supervisor.server.url == before.url
    assert "server_restarting" not in stage.names(), "without a pause"
    supervisor.request_stop()
    assert waiting.end() == 0


def test_a_start_that_was_asked_for_and_fails_is_told(stage: Stage, look_after: Any) -> None:
    supervisor, waiting = look_after("no")
    os.environ["GGML_FAKE"] = '{"die_loading": 7}'
    supervisor.request_restart()
    error = waiting.end()
    assert isinstance(error, ServerDied)
    assert error.status == 7


def test_stopping_while_it_loads_again(stage: Stage, look_after: Any) -> None:
    supervisor, waiting = look_after("always")
    os.environ["GGML_FAKE"] = '{"load_until": "/nonexistent"}'
    get(f"{supervisor.server.url}/kill/9")
    until(lambda: stage.names().count("server_started") == 2, "the second start")
    supervisor.request_stop()
    assert isinstance(waiting.end(), int)
    assert stage.names()[-1] == "server_stopped"
