"""Servers in the background with the real llama-server, from the command line alone."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llama_runner import Runner
from tests.conftest import Command
from tests.e2e.serving import MODULE, Running, ask, is_running, request

DEMO = ("--demo", "--port", "0")


def test_the_life_of_a_server_in_the_background(llama_runner: Command, root: Path) -> None:
    at = ("--root", root)
    started = llama_runner("run", *DEMO, *at, "--detach", "--canary", "--", "--metrics")
    try:
        assert started.code == 0, started
        url = re.search(r"^listening (\S+)", started.out, re.MULTILINE)[1]  # type: ignore[index]
        assert "stop      llama-runner stop demo:q4_k_m" in started.out
        assert ask(url, "what is a step?")
        [shown] = llama_runner("ps", *at, "--json").json
        assert (shown["alias"], shown["url"], shown["state"], shown["detached"]) == ("demo:q4_k_m", url, "ready", True)
        assert shown["slots_busy"] == 0
        assert shown["tokens_per_second"] > 0
        assert shown["rss"] > 1 << 20
        table = llama_runner("ps", *at).out.splitlines()
        assert table[0].split()[:4] == ["name", "state", "url", "pid"]
        assert url in table[1]
        status = llama_runner("status", *at).out
        assert f"running   demo:q4_k_m at {url}, process {shown['pid']}, ready, llama.cpp" in status
        taken = llama_runner("run", "--demo", "--port", url.rpartition(":")[2], *at)
        assert f"is taken by demo:q4_k_m, process {shown['pid']}" in taken.err
        assert "hint: llama-runner stop demo:q4_k_m" in taken.err
        again = llama_runner("restart", "demo:q4_k_m", *at, "--json").json
        assert again["url"] == url
        assert again["pid"] != shown["pid"]
        assert not is_running(shown["pid"])
        assert "model loaded" in llama_runner("logs", "demo:q4_k_m", *at).out
        stopped = llama_runner("stop", "--all", *at)
        assert stopped.out == f"stopped   demo:q4_k_m at {url}, process {again['pid']}\n"
        assert not is_running(again["pid"])
        assert "cleaning up before exit" in llama_runner("logs", *at).out, "of the one that ran last"
        assert not list((root / ".llama_runner" / "servers").iterdir())
    finally:
        llama_runner("stop", "--all", *at)


def test_11_12_in_the_background_a_root_that_cannot_be_written_is_an_error(
    llama_runner: Command, root: Path, read_only: Callable[[Path], None], children: list[subprocess.Popen[str]]
) -> None:
    assert llama_runner("prepare", "--demo", "--root", root).code == 0
    read_only(root)
    done = llama_runner("run", *DEMO, "--root", root, "--detach")
    assert done.code == 7, done
    assert f"error: cannot register a server in {root / '.llama_runner' / 'servers'}: " in done.err
    assert "hint: ps and stop do not find a server that is not registered; use another --root" in done.err
    running = Running(children, "--demo", "--root", root)
    assert ask(running.url, "what is a step?"), "in the foreground it is stopped by Ctrl-C"
    running.process.send_signal(signal.SIGINT)
    assert running.finish() == 130


def test_11_15_several_that_start_the_same_in_the_background_get_one(
    llama_runner: Command, root: Path, children: list[subprocess.Popen[str]]
) -> None:
    assert llama_runner("prepare", "--demo", "--root", root).code == 0
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    same = ("run", "--demo", "--detach", "--root", str(root), "--port", str(port))
    try:
        children += [subprocess.Popen([*MODULE, *same], stdout=subprocess.PIPE, text=True) for _ in range(4)]
        said = [child.communicate(timeout=120)[0] for child in children]
        assert [child.returncode for child in children] == [0] * 4
        assert all(f"listening http://127.0.0.1:{port} " in each for each in said)
        [about] = llama_runner("ps", "--root", root, "--json").json
        again = llama_runner(*same)
        assert again.code == 0, again
        assert f"note      demo:q4_k_m runs already at {about['url']}, process {about['pid']}\n" in again.err
        told = [json.loads(line) for line in llama_runner(*same, "--json").out.splitlines()]
        assert (told[-1]["event"], told[-1]["url"], told[-1]["pid"]) == ("server_ready", about["url"], about["pid"])
        for other in (("-c", "64"), ("--restart", "always"), ("--no-projector", "-q", "q8_0")):
            refused = llama_runner(*same, *other)
            assert refused.code == 8, refused
            assert f"is taken by demo:q4_k_m, process {about['pid']}" in refused.err
        assert not list(root.glob("models/gguf/*/*q8_0*")), "no work was done"
        assert [each["pid"] for each in llama_runner("ps", "--root", root, "--json").json] == [about["pid"]]
    finally:
        llama_runner("stop", "--all", "--root", root)


def test_a_log_is_followed_to_its_end(llama_runner: Command, root: Path, children: list[subprocess.Popen[str]]) -> None:
    running = Running(children, "--demo", "--root", root)
    following = subprocess.Popen([*MODULE, "logs", "-f", "--root", root], stdout=subprocess.PIPE, text=True)
    children.append(following)
    assert following.stdout is not None
    for line in following.stdout:
        if "model loaded" in line:
            break
    llama_runner("stop", "--all", "--root", root)
    rest, _ = following.communicate(timeout=60)
    assert "cleaning up before exit" in rest
    assert following.returncode == 0
    assert running.finish() == 0


def test_one_in_the_foreground_is_started_again_and_stopped_for_good(
    llama_runner: Command, root: Path, children: list[subprocess.Popen[str]]
) -> None:
    running = Running(children, "--demo", "--root", root, "--restart", "always")
    os.kill(running.server_pid, signal.SIGSEGV)
    lines = iter(running.process.stdout or ())
    restarting = next(line for line in lines if "server_restarting" in line)
    assert '"attempt": 1' in restarting
    assert running.url in next(line for line in lines if "server_ready" in line), "at the same place"
    assert llama_runner("stop", "--all", "--root", root).code == 0
    assert running.finish() == 0
    assert llama_runner("ps", "--root", root, "--json").json == []


def test_a_server_answers_on_when_its_model_is_deleted_and_is_not_started_again_without(
    llama_runner: Command, root: Path, children: list[subprocess.Popen[str]]
) -> None:
    running = Running(children, "--demo", "--root", root, "--restart", "always")
    [model] = (root / "models" / "gguf").glob("*/*.gguf")
    model.unlink()
    assert ask(running.url, "what is a step?")
    os.kill(running.server_pid, signal.SIGKILL)
    assert running.finish() == 8
    assert llama_runner("ps", "--root", root, "--json").json == []


def test_systemd_is_told_of_the_real_server(
    root: Path, children: list[subprocess.Popen[str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("n") / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(path))
        listener.settimeout(60)
        running = Running(children, "--demo", "--root", root, NOTIFY_SOCKET=str(path))
        assert listener.recv(100) == b"READY=1"
    running.process.send_signal(signal.SIGTERM)
    assert running.finish() == 0


@pytest.mark.parametrize("how", [[], ["--json"]])
@pytest.mark.parametrize("streams", ["stdout", "both"])
def test_11_18_a_reader_that_has_gone_does_not_end_the_server(
    root: Path, children: list[subprocess.Popen[str]], how: list[str], streams: str
) -> None:
    """Do what ``run | head -1`` does."""
    runner = Runner(root)
    errors = subprocess.STDOUT if streams == "both" else subprocess.PIPE
    words = [*MODULE, "run", *DEMO, "--root", str(root), "--api-key", "auto", *how]
    command = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=errors, text=True)
    children.append(command)
    assert command.stdout is not None
    command.stdout.readline()
    command.stdout.close()
    command.stdout = None
    while not (found := runner.running()) or found[0]["state"] != "ready":
        assert command.poll() is None
        time.sleep(0.05)  # the server starts on the same core
    assert request(found[0]["url"], "/health")[0] == 200
    command.send_signal(signal.SIGTERM)
    said = "" if command.stderr is None else command.stderr.read()
    assert command.wait(60) == 0
    assert "Exception" not in said
    assert "BrokenPipe" not in said


def test_11_16_a_server_goes_on_and_is_started_again_though_nobody_reads_what_run_prints(
    llama_runner: Command, root: Path, children: list[subprocess.Popen[str]]
) -> None:
    words = ("run", "--demo", "--port", "0", "--root", root, "--restart", "always")
    command = subprocess.Popen([*MODULE, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    children.append(command)
    runner = Runner(root)
    deadline = time.monotonic() + 300

    def ready(*, but: int = 0) -> dict[str, Any]:
        while time.monotonic() < deadline:
            for about in runner.running():
                if about["state"] == "ready" and about["pid"] != but:
                    return about
            time.sleep(0.05)
        raise AssertionError("no server is ready")

    first = ready()
    for _ in range(200):  # llama-server prints the origin; a pipe takes 64 KiB
        assert request(first["url"], "/health", headers={"Origin": "http://" + "x" * 3000})[0] == 200
    assert (root / first["log"]).stat().st_size > 500_000
    os.kill(first["pid"], signal.SIGKILL)
    second = ready(but=first["pid"])
    assert ask(second["url"], "what is a step?")
    printed: list[str] = []
    assert command.stdout is not None
    reading = threading.Thread(target=lambda stream: printed.append(stream.read()), args=[command.stdout])
    reading.start()
    assert llama_runner("stop", "--all", "--root", root).code == 0
    assert command.wait(60) == 0
    reading.join()
    assert f"listening {first['url']}" in printed[0], "the summary of the start"
    assert "restart   the server was killed by signal 9; start 1 of 5 in 1 s\n" in printed[0]
