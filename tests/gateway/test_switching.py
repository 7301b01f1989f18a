"""Two models of which one fits: the process of the next one is there while the other one is stopped."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

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


def server_of(running: Running, model: str) -> psutil.Process | None:
    """Return the llama-server that has the name of a model, also one that has not loaded it yet."""
    for child in running.children():
        with suppress(psutil.NoSuchProcess):
            if f"--alias {model} " in " ".join(child.cmdline()) and child.name() == "llama-server":
                return child
    return None


def waiting_server(running: Running) -> psutil.Process | None:
    """Return the process of the model ``two`` where it has begun while another one is stopped."""
    states = {name: model["state"] for name, model in running.running().items()}
    assert states.get("two") != "loading", running.running()
    return server_of(running, "two")


def test_a_model_that_another_one_is_stopped_for_is_the_process_that_waited(gateway: Start) -> None:
    running = gateway(TIGHT + TWO)
    running.chat("one")
    spare = running.wait_for(lambda: spare_process(running))
    assert running.chat("two")[0] == 200
    assert running.running()["two"]["pid"] == spare.pid
    assert running.wait_for(lambda: spare_process(running)).pid != spare.pid, "another one waits"
    assert running.chat("one")[0] == 200


def test_the_model_that_was_stopped_last_has_a_process_that_waits_for_some_seconds(gateway: Start) -> None:
    running = gateway(TIGHT + TWO)
    for model in ("one", "two"):
        assert running.chat(model)[0] == 200
    was_taken = False
    for stopped, loaded in [("one", "two"), ("two", "one")] * 3:  # on a busy machine the seconds may be over
        waiting = running.wait_for(lambda: server_of(running, stopped))  # noqa: B023
        assert not [file for file in waiting.memory_maps() if file.path.endswith(".gguf")]
        assert set(running.running()) == {loaded}
        assert running.chat(stopped)[0] == 200
        if was_taken := running.running()[stopped]["pid"] == waiting.pid:
            break
    assert was_taken
    waiting = running.wait_for(lambda: server_of(running, loaded))
    psutil.wait_procs([waiting], timeout=30)
    assert not waiting.is_running(), "nobody asked for it"
    running.wait_for(lambda: spare_process(running))


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
