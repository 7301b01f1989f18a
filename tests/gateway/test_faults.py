"""Processes that die, clients that leave, disks and files that fail."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil

from llama_runner import Runner
from llama_runner.config.config import Config
from llama_runner.gateway import scheduler_state as state
from llama_runner.gateway.configuration import catalogue_from
from llama_runner.gateway.gateway import Gateway
from tests.gateway.conftest import TIGHT, TWO, Running, Start, own_root
from tests.gateway.streams import Stream
from tests.serving.play import lives

SLOW = '[defaults]\nthreads = 1\n[models.one]\ndemo = true\nbinaries = "{programs}"\n[models.two]\ndemo = true\n'

COUNT = min(1000, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 3)
"""Clients at once: each has two sockets here and two in the gateway."""


def loading(running: Running) -> psutil.Process:
    """Wait until the process of the model ``one`` is there and loads; return it."""
    running.wait_for(lambda: running.running().get("one", {}).get("state") == "loading")
    return running.wait_for(lambda: next((each for each in running.children() if "one" in each.cmdline()), None))  # type: ignore[no-any-return]


def test_a_process_that_is_killed_while_it_loads_is_started_once_more(
    gateway: Start, slow_programs: Path, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    running = gateway(SLOW.format(programs=slow_programs), GGML_TEST_GATE=str(gate))
    with ThreadPoolExecutor(1) as client:
        answer = client.submit(running.chat, "one")
        loading(running).kill()
        gate.touch()
        assert answer.result()[0] == 200
    assert running.metric("load_failures_total") == 1


def test_a_request_right_after_the_death_of_a_process_waits_for_the_next_process(gateway: Start) -> None:
    running = gateway(TWO)
    for _ in range(3):
        running.chat("one")
        pid = running.running()["one"]["pid"]
        os.kill(pid, signal.SIGKILL)
        running.wait_for(lambda: not lives(pid))  # noqa: B023
        assert [running.chat("one")[0] for _ in range(3)] == [200] * 3
    assert running.metric("crashes_total") == 3


def test_a_request_whose_process_dies_as_it_comes_is_answered_by_the_next_process(
    gateway: Start, dying_programs: Path, tmp_path: Path
) -> None:
    death = {"GGML_FAKE": '{"die_answering": -9}', "GGML_TEST_GATE": str(tmp_path / "died")}
    running = gateway(SLOW.format(programs=dying_programs), **death)
    assert running.chat("one")[0] == 200
    assert running.metric("crashes_total") == 1


def test_a_request_that_kills_each_process_is_sent_twice_and_no_more(gateway: Start, fake_programs: Path) -> None:
    running = gateway(SLOW.format(programs=fake_programs), GGML_FAKE='{"die_answering": -9}')
    status, told = running.chat("one")
    assert (status, told["error"]["code"]) == (502, "server_lost")
    running.wait_for(lambda: running.metric("crashes_total") == 2)


def test_another_model_answers_while_one_prepares_and_loads(
    gateway: Start, slow_programs: Path, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    running = gateway(SLOW.format(programs=slow_programs), GGML_TEST_GATE=str(gate))
    running.chat("two")
    with ThreadPoolExecutor(1) as client:
        answer = client.submit(running.chat, "one")
        loading(running)
        assert running.chat("two")[0] == 200
        gate.touch()
        assert answer.result()[0] == 200


def test_a_gateway_that_ends_while_a_model_loads_leaves_no_process(
    gateway: Start, slow_programs: Path, tmp_path: Path
) -> None:
    running = gateway(SLOW.format(programs=slow_programs), GGML_TEST_GATE=str(tmp_path / "never"))
    with ThreadPoolExecutor(1) as client:
        answer = client.submit(running.chat, "one")
        process = loading(running)
        running.process.send_signal(signal.SIGTERM)
        assert answer.result()[0] == 503
        running.until("gateway_stopped")
    psutil.wait_procs([process], timeout=30)
    assert not process.is_running()


def test_a_model_that_is_there_does_not_wait_for_others_that_are_made(
    gateway: Start, hanging_programs: Path, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    making = "".join(f'[models.{name}]\ndemo = true\nbinaries = "{hanging_programs}"\n' for name in ("b", "c", "d"))
    running = gateway(making + TWO, GGML_TEST_GATE=str(gate))
    with ThreadPoolExecutor(3) as clients:
        answers = [clients.submit(running.chat, name) for name in ("b", "c", "d")]
        running.wait_for(lambda: running.running().keys() >= {"b", "c", "d"})
        assert running.chat("two")[0] == 200
        gate.touch()
        assert [answer.result()[0] for answer in answers] == [200] * 3


def test_a_gateway_ends_at_once_while_a_model_is_prepared(
    gateway: Start, hanging_programs: Path, tmp_path: Path
) -> None:
    running = gateway(SLOW.format(programs=hanging_programs), GGML_TEST_GATE=str(tmp_path / "never"))
    with ThreadPoolExecutor(1) as client:
        answer = client.submit(running.chat, "one")
        running.wait_for(lambda: running.running().get("one", {}).get("state") == "preparing")
        assert running.chat("two")[0] == 200
        running.process.send_signal(signal.SIGTERM)
        assert answer.result()[0] == 503
    assert running.process.wait(15) == 0


def test_a_second_sigterm_ends_requests_in_progress(gateway: Start) -> None:
    running = gateway(TWO)
    running.chat("one")
    os.kill(running.running()["one"]["pid"], signal.SIGSTOP)  # it answers no more
    with ThreadPoolExecutor(1) as client:
        answer = client.submit(running.chat, "one")
        running.wait_for(lambda: running.running()["one"]["in_flight"] == 1)
        running.process.send_signal(signal.SIGTERM)
        running.until("gateway_stopping")
        running.process.send_signal(signal.SIGTERM)
        status, told = answer.result()
        assert (status, told["error"]["code"]) == (502, "server_lost")
    running.until("gateway_stopped")
    assert running.process.wait(60) == 0


def test_a_client_that_leaves_the_queue_is_forgotten(gateway: Start) -> None:
    running = gateway(TIGHT + TWO)
    running.chat("one")
    with Stream(running.url, "one", max_tokens=3000) as busy:
        busy.first()
        os.kill(running.running()["one"]["pid"], signal.SIGSTOP)
        with Stream(running.url, "two"):
            running.wait_for(lambda: running.running().get("two", {}).get("state") == "waiting")
        running.wait_for(lambda: "two" not in running.running())
        os.kill(running.running()["one"]["pid"], signal.SIGCONT)
        busy.rest()
    assert running.running().keys() == {"one"}


def test_a_file_of_a_model_that_disappears_is_told_and_comes_back(
    gateway: Start, binaries: Path, tmp_path: Path
) -> None:
    model = tmp_path / "model.gguf"
    model.write_bytes(Runner(binaries).prepare(demo=True).model.read_bytes())
    running = gateway(f'[models.one]\ngguf_path = "{model}"\nthreads = 1\n')
    model.rename(tmp_path / "away")
    status, told = running.chat("one")
    assert status == 500
    assert "model.gguf" in told["error"]["message"]
    (tmp_path / "away").rename(model)
    assert running.wait_for(lambda: running.chat("one")[0] == 200)


def test_garbage_instead_of_http_disturbs_nobody(gateway: Start) -> None:
    running = gateway(TWO)
    port = int(running.url.rpartition(":")[2])
    for garbage in (
        b"\x00" * 1000,
        b"GET\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\nHost: x\r\nX-Session-ID: %b\r\n\r\n" % (b"a" * 10_000),
        b"GET /v1/models HTTP/1.1\r\nHost: x\r\nX-Session-ID: a\x1b[31m\r\n\r\n",
    ):
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(garbage)
            client.shutdown(socket.SHUT_WR)
            client.recv(1000)
    assert running.get("/health")[0] == 200
    status, told = running.post("/v1/chat/completions", {"model": "a\x1b[31m\nb"})
    assert status == 404
    assert "\x1b" not in told["error"]["message"]
    assert not [line for line in running.lines if "text" in line and "event" not in line], "no traceback"


def test_nobody_reads_the_log_and_the_gateway_goes_on(tmp_path: Path, binaries: Path) -> None:
    config = tmp_path / "a.toml"
    config.write_text(TWO, encoding="utf-8")
    path = tmp_path / "gateway.sock"
    words = ["--config", str(config), "--root", str(binaries), "--listen", str(path)]
    command = [sys.executable, "-m", "llama_runner.gateway", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert b"gateway_ready" in process.stdout.readline()
        for _ in range(6000):  # more than a pipe and the queue take
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(path))
                client.sendall(b"GET /nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                assert client.recv(100).startswith(b"HTTP/1.1 404")
        process.kill()


def test_a_process_that_closes_kept_connections_loses_no_request(gateway: Start, fake_programs: Path) -> None:
    """llama-server closes a connection after each stream, and when it was idle for 5 s, without saying so."""
    running = gateway(SLOW.format(programs=fake_programs), GGML_FAKE=json.dumps({"closes": True, "sentence": "b"}))
    assert [running.chat("one")[0] for _ in range(3)] == [200] * 3


def test_a_process_that_ignores_sigterm_is_killed_and_the_model_loads_again(
    gateway: Start, fake_programs: Path
) -> None:
    fake = json.dumps({"ignore_term": True, "sentence": "b"})
    running = gateway(SLOW.format(programs=fake_programs), GGML_FAKE=fake)
    assert running.chat("one")[0] == 200
    pid = running.running()["one"]["pid"]
    assert running.post("/models/one/unload", {})[1]["unloaded"]
    assert not lives(pid)
    assert running.chat("one")[0] == running.chat("two")[0] == 200


def test_a_process_that_dies_as_it_is_to_be_stopped_is_stopped(binaries: Path, tmp_path: Path) -> None:
    config = tmp_path / "a.toml"
    config.write_text(TWO, encoding="utf-8")
    root = own_root(tmp_path, binaries)

    async def scenario() -> None:
        gateway = Gateway(root, lambda: Runner(root), catalogue_from(Config.load(config)))
        gateway.start()
        async with gateway.acquire("one") as lease:
            child = lease.child
        os.kill(child.server.pid, signal.SIGKILL)
        await asyncio.to_thread(child.server._child.wait)
        gateway.tell(state.Unload("one"))
        gateway.children.check("one", child)
        await asyncio.wait_for(gateway.unload("one"), 30)
        async with gateway.acquire("one") as lease:
            assert lease.child is not child
        await gateway.close(0.0)

    asyncio.run(scenario())


def resident_mib(running: Running) -> float:
    return float(psutil.Process(running.process.pid).memory_info().rss) / (1 << 20)


def test_a_slow_reader_does_not_grow_the_gateway(gateway: Start, fake_programs: Path) -> None:
    running = gateway(SLOW.format(programs=fake_programs), GGML_FAKE=json.dumps({"stream": 3200}))
    with Stream(running.url, "one") as warm:
        warm.first()
    with Stream(running.url, "one") as stream:
        stream.first()
        before = resident_mib(running)
        assert stream.answer is not None
        for _ in range(100):  # 200 MiB are offered, and a few are taken
            stream.answer.read(1 << 16)
            time.sleep(0.01)
        assert resident_mib(running) - before < 16


def test_a_thousand_clients_that_wait_for_the_next_token_are_served_and_cost_little(
    gateway: Start, fake_programs: Path
) -> None:
    running = gateway(SLOW.format(programs=fake_programs), GGML_FAKE=json.dumps({"stream": -1}))
    port = int(running.url.rpartition(":")[2])
    body = json.dumps({"model": "one", "messages": [], "stream": True}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with contextlib.ExitStack() as clients:
        opened = []
        before = 0.0
        for number in range(COUNT):
            client = clients.enter_context(socket.create_connection(("127.0.0.1", port), timeout=120))
            client.sendall(head + body)
            assert b" 200 " in client.recv(1 << 10)
            opened.append(client)
            if number == 10:
                before = resident_mib(running)
        assert running.running()["one"]["in_flight"] == COUNT
        assert resident_mib(running) - before < 0.1 * COUNT
    running.wait_for(lambda: running.running()["one"]["in_flight"] == 0)
    assert running.chat("two")[0] == 200


def test_a_gateway_collects_garbage_whoever_started_it(tmp_path: Path) -> None:
    program = (
        "import gc, sys\n"
        "from llama_runner.core.errors import LlamaRunnerError\n"
        "from llama_runner.gateway import main_process\n"
        "gc.disable()\n"
        "try:\n"
        "    main_process.serve(sys.argv[1:])\n"
        "except LlamaRunnerError:\n"
        "    print(gc.isenabled())\n"
    )
    words = [sys.executable, "-c", program, "--config", str(tmp_path / "none.toml"), "--root", str(tmp_path)]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "True"
