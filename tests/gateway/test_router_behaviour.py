"""What llama.cpp's own tests require of its router, required of the gateway, and the request that hangs there."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.e2e.serving import request
from tests.gateway.conftest import TIGHT, TWO, Start
from tests.gateway.streams import Stream

THREE = TWO + "[models.three]\ndemo = true\n"
FOR_TWO = TIGHT.replace("32M", "58M")
"""Memory for two of three models."""


def test_the_least_recently_used_model_is_stopped(gateway: Start) -> None:
    running = gateway(FOR_TWO + THREE)
    for name in ("one", "two", "one", "three"):
        assert running.chat(name)[0] == 200
    assert running.running().keys() == {"one", "three"}


def test_a_busy_model_is_not_stopped_and_the_request_for_another_waits(gateway: Start) -> None:
    running = gateway(TIGHT + TWO)
    running.chat("one")
    pid = running.running()["one"]["pid"]
    os.kill(pid, signal.SIGSTOP)
    with Stream(running.url, "one") as stream, ThreadPoolExecutor(1) as client:
        running.wait_for(lambda: running.running()["one"]["in_flight"] == 1)
        other = client.submit(running.chat, "two")
        running.wait_for(lambda: running.running().get("two", {}).get("state") == "waiting")
        assert running.running()["one"]["state"] == "ready"
        os.kill(pid, signal.SIGCONT)
        assert stream.rest().endswith(b"data: [DONE]\n\n")
        assert other.result()[0] == 200


def test_requests_for_one_model_share_one_load(gateway: Start) -> None:
    running = gateway(TWO)
    with ThreadPoolExecutor(8) as clients:
        answers = list(clients.map(running.chat, ["one"] * 8))
    assert [status for status, _ in answers] == [200] * 8
    assert running.metric("loads_total") == 1


def test_a_client_that_leaves_while_a_model_loads_keeps_the_model(
    gateway: Start, slow_programs: Path, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    running = gateway(f'[models.one]\ndemo = true\nbinaries = "{slow_programs}"\n', GGML_TEST_GATE=str(gate))
    with Stream(running.url, "one"):
        running.wait_for(lambda: running.running().get("one", {}).get("state") == "loading")
    gate.touch()
    running.wait_for(lambda: running.running()["one"]["state"] == "ready")
    assert running.chat("one")[0] == 200
    assert running.metric("loads_total") == 1


def test_models_that_wait_for_memory_are_served_in_the_order_of_their_requests(gateway: Start) -> None:
    running = gateway(TIGHT + THREE)
    running.chat("one")
    pid = running.running()["one"]["pid"]
    os.kill(pid, signal.SIGSTOP)
    ended: list[str] = []

    def ask(name: str) -> None:
        assert running.chat(name)[0] == 200
        ended.append(name)

    with Stream(running.url, "one") as stream, ThreadPoolExecutor(2) as clients:
        running.wait_for(lambda: running.running()["one"]["in_flight"] == 1)
        asked = [clients.submit(ask, "three")]
        running.wait_for(lambda: "three" in running.running())
        asked.append(clients.submit(ask, "two"))
        running.wait_for(lambda: "two" in running.running())
        os.kill(pid, signal.SIGCONT)
        stream.rest()
        for each in asked:
            each.result()
    assert ended == ["three", "two"]


def test_lists_load_no_model_and_an_unknown_one_is_no_error_of_the_server(gateway: Start) -> None:
    running = gateway(TWO)
    for path in ("/v1/models", "/models", "/api/tags", "/api/ps", "/running", "/health"):
        assert running.get(path)[0] == 200
    assert running.chat("three")[0] == 404
    assert not running.running()
    assert not running.children()


def test_the_processes_behind_it_answer_only_to_the_gateway(gateway: Start) -> None:
    running = gateway(TWO)
    running.chat("one")
    [process] = running.children()
    ports = [each.laddr.port for each in process.net_connections() if each.status == "LISTEN"]
    for port in ports:
        assert request(f"http://127.0.0.1:{port}", "/v1/chat/completions", {"messages": []})[0] == 401


def test_two_models_that_are_asked_at_once_while_another_is_idle_both_answer(gateway: Start) -> None:
    """The router with room for one model leaves one of these requests without an answer."""
    running = gateway(TIGHT + THREE)
    for _ in range(3):
        assert running.chat("one")[0] == 200
        with ThreadPoolExecutor(2) as clients:
            assert [status for status, _ in clients.map(running.chat, ("two", "three"))] == [200, 200]
