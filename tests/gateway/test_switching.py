"""Two models of which one fits: the process of the next one is there while the other one is stopped."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from llama_runner.system.processes import parent_death_prefix
from tests.gateway.conftest import TIGHT, TWO, Running, Start

pytestmark = pytest.mark.skipif(not parent_death_prefix(), reason="needs a signal at the end of the parent")


def spare_process(running: Running) -> psutil.Process | None:
    """Return the shell that waits to become a server."""
    for child in psutil.Process(running.process.pid).children():
        if 'IFS= read -r line && eval "$line"' in child.cmdline():
            return child
    return None


def waiting_server(running: Running) -> psutil.Process | None:
    """Return the process of the model ``two`` where it has begun while another one is stopped."""
    states = {name: model["state"] for name, model in running.running().items()}
    assert states.get("two") != "loading", running.running()
    found = [child for child in running.children() if "--alias two " in " ".join(child.cmdline())]
    return found[0] if found and found[0].name() == "llama-server" else None


def test_a_model_that_another_one_is_stopped_for_is_the_process_that_waited(gateway: Start) -> None:
    running = gateway(TIGHT + TWO)
    running.chat("one")
    spare = running.wait_for(lambda: spare_process(running))
    assert running.chat("two")[0] == 200
    assert running.running()["two"]["pid"] == spare.pid
    assert running.wait_for(lambda: spare_process(running)).pid != spare.pid, "another one waits"
    assert running.chat("one")[0] == 200


def test_a_switch_needs_no_process_that_waits(gateway: Start) -> None:
    running = gateway(TIGHT + TWO)
    running.chat("one")
    spare = running.wait_for(lambda: spare_process(running))
    spare.kill()
    assert running.chat("two")[0] == 200
    assert running.running()["two"]["pid"] != spare.pid


def test_a_process_that_waits_has_not_opened_its_model_before_the_other_one_has_ended(
    gateway: Start,
) -> None:
    running = gateway(TIGHT + TWO)
    assert running.chat("one")[0] == 200
    running.wait_for(lambda: spare_process(running))
    stopped = psutil.Process(running.running()["one"]["pid"])
    stopped.suspend()  # it does not end before it goes on
    with ThreadPoolExecutor(1) as client:
        answer = client.submit(running.chat, "two")
        waiting = running.wait_for(lambda: waiting_server(running))
        assert not [file for file in waiting.memory_maps() if file.path.endswith(".gguf")]
        assert not waiting.net_connections() if hasattr(waiting, "net_connections") else True
        stopped.resume()
        assert answer.result()[0] == 200
    assert running.running()["two"]["pid"] == waiting.pid


@pytest.mark.parametrize("at", ["idle", "stopping"])
def test_sigkill_of_the_gateway_leaves_no_process_that_waits(gateway: Start, at: str) -> None:
    running = gateway(TIGHT + TWO)
    assert running.chat("one")[0] == 200
    running.wait_for(lambda: spare_process(running))
    with ThreadPoolExecutor(1) as client:
        if at == "stopping":
            psutil.Process(running.running()["one"]["pid"]).suspend()
            answer = client.submit(running.chat, "two")
            running.wait_for(lambda: waiting_server(running))
        children = psutil.Process(running.process.pid).children(recursive=True)
        running.process.kill()
        _, alive = psutil.wait_procs(children, timeout=30)
        assert not alive
        if at == "stopping":
            assert answer.exception() is not None


def test_a_gateway_that_stops_leaves_no_process_that_waits(gateway: Start) -> None:
    running = gateway(TWO)
    running.chat("one")
    running.wait_for(lambda: spare_process(running))
    children = psutil.Process(running.process.pid).children(recursive=True)
    running.process.terminate()
    running.until("gateway_stopped")
    assert not psutil.wait_procs(children, timeout=30)[1]
