"""``restart`` and ``logs`` of servers that run, failed or were stopped."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from llama_runner import Runner
from llama_runner.core.errors import LlamaRunnerError, ServerError, UsageError
from llama_runner.serving import crash_restart, find_and_stop
from llama_runner.serving.daemon import detach
from llama_runner.serving.llama_server.launch_spec import ServerOptions
from llama_runner.serving.running_server import RunningServer
from llama_runner.serving.server_process import Server
from llama_runner.serving.server_registry import running
from tests.serving.play import PATIENCE_S, Stage, get, lives, spec, until

NAME = "acme/tiny"


class Rooted(Stage):
    """A stage whose registry is that of its root, as ``Runner`` has it."""

    @property
    def registry(self) -> Path:
        return Runner(self.root).servers


@pytest.fixture
def rooted(tmp_path: Path) -> Rooted:
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "model.gguf").touch()
    return Rooted(tmp_path / "root")


@pytest.fixture
def background(rooted: Rooted) -> Iterator[Callable[..., RunningServer]]:
    def start(options: ServerOptions | None = None, *, alias: str = NAME, **fake: Any) -> RunningServer:
        os.environ["GGML_FAKE"] = json.dumps(fake)
        launch = spec(rooted, options, alias=alias)
        return detach(
            launch,
            log=rooted.log,
            log_name="logs/run-server.log",
            registry=rooted.registry,
            sink=rooted.events.append,
            key="a-key-of-ours" if launch.api_key == "auto" else None,
        )

    yield start
    find_and_stop.stop(rooted.registry, None)


def crash(server: RunningServer) -> None:
    get(f"{server.url}/exit/3")
    until(lambda: not lives(int(server.about["supervisor"])), "the end of its holder")


@pytest.mark.parametrize("how", ["failed", "stopped", "killed"])
@pytest.mark.parametrize("name", [NAME, "tiny", "acme/t"])
def test_13_12_restart_starts_a_server_that_does_not_run(
    rooted: Rooted, background: Callable[..., RunningServer], how: str, name: str
) -> None:
    server, runner = background(), Runner(rooted.root)
    if how == "failed":
        crash(server)
    elif how == "stopped":
        server.stop()
    else:
        os.kill(int(server.about["supervisor"]), signal.SIGKILL)
        until(lambda: not lives(server.pid), "its end")
    assert running(rooted.registry) == []
    about = runner.restart(name)
    assert (about["alias"], about["state"], about["url"]) == (NAME, "ready", server.url), "at the place that it had"
    assert about["pid"] != server.pid
    assert "launch" not in about
    assert [each["state"] for each in runner.running()] == ["ready"]


def remove_model(rooted: Rooted) -> None:
    (rooted.root / "model.gguf").unlink()


def remove_program(rooted: Rooted) -> None:
    rooted.binary().unlink()


@pytest.mark.parametrize("remove", [remove_model, remove_program])
def test_13_12_restart_does_not_stop_a_server_that_could_not_start_again(
    rooted: Rooted, background: Callable[..., RunningServer], remove: Callable[[Rooted], None]
) -> None:
    server = background()
    remove(rooted)
    with pytest.raises(ServerError, match=f"^{NAME} cannot be started again: .* is gone") as caught:
        Runner(rooted.root).restart(NAME)
    assert str(caught.value.hint).startswith("it goes on as it is")
    assert server.answers()


def test_13_12_restart_does_not_stop_a_server_whose_keys_are_gone(
    rooted: Rooted, background: Callable[..., RunningServer], tmp_path: Path
) -> None:
    keys = tmp_path / "keys"
    keys.write_text("a-key-of-mine\n")
    keys.chmod(0o600)
    server = background(ServerOptions(port=0, api_key_file=keys))
    keys.chmod(0o644)
    with pytest.raises(LlamaRunnerError, match="API key file"):
        Runner(rooted.root).restart(NAME)
    assert lives(server.pid)


def test_13_12_a_failed_server_with_a_key_of_its_own_is_not_started_without_it(
    rooted: Rooted, background: Callable[..., RunningServer]
) -> None:
    crash(background(ServerOptions(port=0, api_key="auto")))
    with pytest.raises(ServerError, match="its API key was made for it and is not kept"):
        Runner(rooted.root).restart(NAME)
    entries = [path.read_text() for path in rooted.registry.parent.rglob("*") if path.is_file()]
    assert not [text for text in entries if "a-key-of-ours" in text]


def test_13_12_a_server_of_the_foreground_that_ended_is_not_restarted(rooted: Rooted) -> None:
    rooted.ready(alias=NAME).stop()
    with pytest.raises(UsageError, match="does not run, and what it was started with is not kept"):
        Runner(rooted.root).restart(NAME)


@pytest.mark.parametrize("name", [NAME, "tiny", "URL", "PID"])
def test_13_12_logs_of_a_name_are_there_after_the_end(rooted: Rooted, name: str) -> None:
    server = rooted.ready(alias=NAME, say="the words of the first")
    server.stop()
    other = rooted.ready(alias="another", log=rooted.root / "logs" / "other.log", log_name="logs/other.log")
    other.stop()
    means = {"URL": server.url, "PID": str(server.pid)}.get(name, name)
    log = Runner(rooted.root).log(means)
    assert b"the words of the first" in b"".join(log.read(follow=True))


def test_13_12_what_one_command_started_for_itself_is_not_kept_by_name(rooted: Rooted) -> None:
    rooted.start(alias=NAME, about={"shared": False}).stop()
    with pytest.raises(UsageError, match=f"no server called '{NAME}' runs"):
        Runner(rooted.root).log(NAME)


@pytest.mark.parametrize("signalled", ["request_stop", "request_restart"])
def test_13_12_a_signal_right_after_a_restart_asks_the_new_server_and_does_not_kill_it(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, signalled: str
) -> None:
    monkeypatch.setattr(crash_restart, "PAUSES_S", (0.001,))
    (stage.root / "model.gguf").touch()

    class Signalled(crash_restart.Supervisor):
        """Gets one signal at the moment that the first new server is there."""

        def __setattr__(self, name: str, value: object) -> None:
            super().__setattr__(name, value)
            if name == "server" and isinstance(value, Server) and value is not first:
                value.wait_ready()
                getattr(self, signalled)()

    first = stage.ready()
    supervised = Signalled(first, "on-failure")
    os.environ["GGML_FAKE"] = '{"ignore_term": true}'
    os.kill(first.pid, signal.SIGKILL)
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(supervised.wait)
        stage.wait_said("received SIGTERM")
        assert lives(supervised.server.pid), "asked, not killed"
        assert stage.names().count("server_started") == 2
        os.environ["GGML_FAKE"] = "{}"
        supervised.request_stop()
        assert waiting.result(PATIENCE_S) == -signal.SIGKILL, "a second signal kills"
