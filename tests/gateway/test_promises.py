"""The promises of the gateway, each by its number. Those that need a clock or many models are kept by the scheduler.

Number 16 is in ``test_ollama_rules``, 17 in ``test_ollama_requests`` and ``test_ollama_responses``, 20 in
``test_adapters``.
"""

from __future__ import annotations

import os
import re
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil

from llama_runner.gateway import errors
from llama_runner.gateway import scheduler_state as state
from tests.gateway.conftest import TIGHT, TWO, Running, Start
from tests.gateway.simulation import World
from tests.gateway.streams import Stream


def small(*names: str, limits: state.Limits | None = None, **policies: dict[str, object]) -> World:
    """Return a scheduler with a simulated world, in which memory was measured."""
    world = World([state.Policy(name, **policies.get(name, {})) for name in names], limits)  # type: ignore[arg-type]
    world.measured()
    return world


def test_each_of_the_twenty_promises_is_a_test_by_its_number() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py"))
    assert {int(number) for number in re.findall(r"^def test_promise_(\d\d)_", text, re.MULTILINE)} == {*range(1, 21)}


def test_promise_01_two_models_asked_at_once_both_answer_though_only_one_fits(gateway: Start) -> None:
    running = gateway(TIGHT + TWO)
    with ThreadPoolExecutor(8) as clients:
        answers = list(clients.map(running.chat, ["one", "two"] * 8))
    assert [status for status, _ in answers] == [200] * 16


def test_promise_02_a_busy_model_is_not_stopped_for_another(gateway: Start) -> None:
    running = gateway(TIGHT + TWO)
    running.chat("one")
    with Stream(running.url, "one", max_tokens=300) as stream, ThreadPoolExecutor(1) as client:
        stream.first()
        other = client.submit(running.chat, "two")
        assert stream.rest().endswith(b"data: [DONE]\n\n")
    assert other.result()[0] == 200


def test_promise_03_admission_is_by_memory(gateway: Start) -> None:
    running = gateway(TIGHT + TWO)
    assert running.chat("one")[0] == 200
    assert running.chat("two")[0] == 200
    assert running.running().keys() == {"two"}
    assert running.metric("stops_total") == 1
    roomy = gateway(TWO)
    assert roomy.chat("one")[0] == roomy.chat("two")[0] == 200
    assert roomy.running().keys() == {"one", "two"}


def test_promise_03_what_can_never_fit_is_refused_with_numbers(gateway: Start) -> None:
    running = gateway(TIGHT.replace("32M", "8M") + TWO)
    status, told = running.chat("one")
    assert status == 503
    assert told["error"]["code"] == "out_of_memory"
    assert "MiB on Host, where 8.0 MiB are available" in told["error"]["message"]


def test_promise_04_the_next_load_waits_until_the_memory_is_free() -> None:
    world = small("a", "c")
    world.finish(_served(world, "a"))
    world.ask("c")
    world.prepared("c")
    world.stopped("a")
    world.available["Host"] = 50
    world.measured()
    assert world.starts == ["a"]
    world.available["Host"] = 100
    world.later(0.3)
    assert world.starts == ["a", "c"]


def test_promise_05_a_process_that_was_killed_is_started_again_and_it_is_told(gateway: Start) -> None:
    running = gateway(TWO)
    running.chat("one")
    os.kill(running.running()["one"]["pid"], signal.SIGKILL)
    running.wait_for(lambda: "one" not in running.running())
    assert running.metric("crashes_total") == 1
    assert running.chat("one")[0] == 200


def test_promise_06_the_death_of_a_process_touches_only_its_own_requests(gateway: Start) -> None:
    running = gateway(TWO.replace("threads = 1", "threads = 1\nctx_size = 16384"))
    running.chat("one")
    running.chat("two")
    pid = running.running()["one"]["pid"]
    with Stream(running.url, "one", max_tokens=15000) as dying, Stream(running.url, "two", max_tokens=300) as living:
        dying.first()
        living.first()
        os.kill(pid, signal.SIGKILL)
        assert b'"code": "server_lost"' in dying.rest()
        assert living.rest().endswith(b"data: [DONE]\n\n")


def test_promise_07_a_pinned_model_stays_and_an_idle_one_is_stopped(gateway: Start) -> None:
    running = gateway(
        "[defaults]\nthreads = 1\nttl = 0.01\n[models.one]\ndemo = true\npin = true\n[models.two]\ndemo = true\n"
    )
    running.chat("one")
    running.chat("two")
    running.wait_for(lambda: "two" not in running.running())
    assert running.running()["one"]["state"] == "ready"


def test_promise_08_variants_and_aliases_share_one_process(gateway: Start) -> None:
    running = gateway(
        '[models.one]\ndemo = true\naliases = ["gpt-4o-mini"]\n'
        "[models.one.variants.cold]\nsampling = { temperature = 0.0 }\n"
    )
    answers = [running.chat(name)[1] for name in ("one", "gpt-4o-mini", "one:cold")]
    assert [answer["model"] for answer in answers] == ["one", "gpt-4o-mini", "one:cold"]
    assert len(running.children()) == 1
    assert running.metric("loads_total") == 1


def test_promise_09_requests_are_collated_and_none_waits_for_ever() -> None:
    world = small("a", "c", limits=state.Limits(patience=10))
    order = [world.ask(model) for model in "acac"]
    world.work()
    assert world.granted.keys() == {order[0], order[2]}
    began = world.now
    while order[1] not in world.granted:
        assert world.now < began + 20
        following = world.ask("a")
        world.later(1)
        for each in sorted(world.granted.keys() - {following, order[1]}):
            world.finish(each)
            world.work()


def test_promise_10_a_request_at_the_moment_of_the_ttl_is_served() -> None:
    world = small("a", a={"ttl": 30})
    world.finish(_served(world, "a"))
    world.now += 30
    world.tell(state.Tick())  # it is being stopped
    late = world.ask("a")
    assert late in world.scheduler.waiting
    world.work()
    assert late in world.granted
    assert world.starts == ["a", "a"]


def test_promise_11_a_slow_load_is_no_failure_and_failures_expire() -> None:
    world = small("a", limits=state.Limits(max_wait=50, backoff=(), open_for=60))
    waits = world.ask("a")
    world.now += 1000
    world.tell(state.Tick())
    world.prepared("a")
    world.failed("a", permanent=True)
    assert isinstance(world.refused[waits], errors.LoadFailed)
    assert isinstance(world.refused[world.ask("a")], errors.LoadingCrashed)
    world.later(61)
    assert _served(world, "a") in world.granted


def test_promise_12_no_sizes_are_written_by_hand(gateway: Start) -> None:
    running = gateway("[defaults]\nthreads = 1\n[models.one]\ndemo = true\n")
    running.chat("one")
    assert running.running()["one"]["memory"]["Host"] > 10 << 20
    assert running.get("/running")[1]["memory"]["Host"] > 100 << 20


def test_promise_13_a_load_goes_on_when_its_client_leaves_and_the_retry_hits_it(
    gateway: Start, slow_programs: Path, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    running = gateway(f'[models.one]\ndemo = true\nbinaries = "{slow_programs}"\n', GGML_TEST_GATE=str(gate))
    with Stream(running.url, "one"):
        running.wait_for(lambda: running.running().get("one", {}).get("state") == "loading")
    running.wait_for(lambda: running.running()["one"]["queued"] == 0)
    gate.touch()
    running.wait_for(lambda: running.running()["one"]["state"] == "ready")
    assert running.chat("one")[0] == 200
    assert running.metric("loads_total") == 1


GROWS = "[defaults]\nthreads = 1\n[models.one]\ndemo = true\nctx_size = 512\nmax_ctx_size = {}\n"


def generate(running: Running, num_ctx: int | None) -> None:
    options = {"num_predict": 2} | ({} if num_ctx is None else {"num_ctx": num_ctx})
    body = {"model": "one", "prompt": "hi", "stream": False, "options": options}
    status, answer = running.post("/api/generate", body)
    assert (status, answer["done"]) == (200, True)


def context_after(running: Running, num_ctx: int | None) -> int:
    """Ask through Ollama's API; return the context that the model has then."""
    generate(running, num_ctx)
    return int(running.running()["one"]["context"])


def test_promise_14_a_larger_num_ctx_grows_the_context_once_up_to_the_limit_and_never_down(gateway: Start) -> None:
    running = gateway(GROWS.format(1024))
    assert [context_after(running, number) for number in (None, 256, 512)] == [512] * 3
    assert running.metric("loads_total") == 1
    assert [context_after(running, number) for number in (600, 256, 100_000, 1024, None, 512)] == [1024] * 6
    assert running.metric("loads_total") == 2


def test_promise_14_a_model_that_is_not_loaded_yet_is_loaded_once_with_the_larger_context(gateway: Start) -> None:
    running = gateway(GROWS.format(1024))
    with ThreadPoolExecutor(4) as clients:
        list(clients.map(lambda number: generate(running, number), (2048, 256, 600, 700)))
    assert context_after(running, 600) == 1024
    assert running.metric("loads_total") <= 2  # a request with 256 may come first


def test_promise_14_a_context_that_cannot_be_loaded_is_given_up(gateway: Start, small_programs: Path) -> None:
    running = gateway(GROWS.format(1024) + f'binaries = "{small_programs}"\n')
    with ThreadPoolExecutor(2) as clients:
        list(clients.map(lambda number: generate(running, number), (1024, 1024)))
    assert [context_after(running, number) for number in (1024, None)] == [512, 512]
    assert running.metric("loads_total") <= 2
    assert running.metric("load_failures_total") == 2  # one, and one more try


def test_promise_14_without_a_limit_num_ctx_changes_nothing(gateway: Start) -> None:
    running = gateway(GROWS.format(1024).replace("max_ctx_size = 1024\n", ""))
    assert [context_after(running, number) for number in (None, 4096)] == [512, 512]
    assert running.metric("loads_total") == 1
    [line] = running.wait_for(lambda: [each for each in running.lines if "ignored" in each])
    assert line["ignored"] == ["num_ctx"]


def test_promise_15_only_an_explicit_keep_alive_changes_it_and_pins_win() -> None:
    world = small("a", "b", a={"ttl": 30}, b={"pin": True})
    for model, keep_alive in (("a", 500.0), ("a", None), ("b", 0.0)):
        request = world.ask(model, keep_alive)
        world.work()
        world.finish(request)
    world.later(499)
    assert world.loaded == {"a", "b"}
    world.later(2)
    assert world.loaded == {"b"}


LONG = {"messages": [{"role": "user", "content": "tell me about steps, please. " * 20}], "temperature": 0}


def test_promise_18_an_answer_says_how_much_of_its_prompt_was_reused(gateway: Start) -> None:
    running = gateway(TWO)
    first, again = (running.chat("one", **LONG)[1]["timings"] for _ in range(2))
    assert first["cache_n"] == 0
    assert again["cache_n"] > 100
    assert again["cache_n"] + again["prompt_n"] == first["prompt_n"]
    answer = running.post("/api/chat", {"model": "one", "stream": False, **LONG, "options": {"num_predict": 2}})[1]
    assert answer["prompt_eval_count"] == first["prompt_n"], "Ollama counts what was reused too"


def test_promise_19_a_conversation_outlives_the_eviction_of_its_model(gateway: Start) -> None:
    running = gateway(TIGHT + TWO.replace("[models.one]", "[models.one]\nsessions = true"))
    first = running.chat("one", **LONG, user="a")[1]
    assert running.chat("two")[0] == running.chat("one")[0] == 200
    again = running.chat("one", **LONG, user="a")[1]
    assert again["timings"]["prompt_n"] == 1
    assert again["usage"]["prompt_tokens_details"]["cached_tokens"] == first["usage"]["prompt_tokens"] - 1


def test_killing_the_gateway_leaves_no_process(gateway: Start) -> None:
    running = gateway(TWO)
    running.chat("one")
    running.chat("two")
    children = running.children()
    assert len(children) == 2
    running.process.kill()
    running.process.wait()
    gone, alive = psutil.wait_procs(children, timeout=30)
    assert len(gone) == 2
    assert not alive


def test_sigterm_lets_requests_end_and_refuses_new_ones(gateway: Start) -> None:
    running = gateway(TWO)
    running.chat("one")
    with Stream(running.url, "one", max_tokens=300) as stream:
        stream.first()
        running.process.send_signal(signal.SIGTERM)
        assert stream.rest().endswith(b"data: [DONE]\n\n")
    running.until("gateway_stopped")
    assert running.process.wait(30) == 0


def test_sighup_reads_the_configuration_again_and_touches_only_what_changed(gateway: Start) -> None:
    running = gateway(TWO)
    running.chat("one")
    running.chat("two")
    before = {name: model["pid"] for name, model in running.running().items()}
    running.config.write_text(TWO + "ctx_size = 512\n[models.three]\ndemo = true\n", encoding="utf-8")
    running.process.send_signal(signal.SIGHUP)
    running.until("reloaded")
    assert running.chat("two")[0] == running.chat("three")[0] == 200
    after = {name: model["pid"] for name, model in running.running().items()}
    assert after["one"] == before["one"]
    assert after["two"] != before["two"]
    assert running.running()["two"]["context"] == 512


def test_a_reload_under_load_loses_no_request(gateway: Start) -> None:
    running = gateway(TWO)
    stop = threading.Event()
    statuses: list[int] = []

    def ask() -> None:
        while not stop.is_set():
            statuses.append(running.chat("one")[0])

    clients = [threading.Thread(target=ask) for _ in range(3)]
    for client in clients:
        client.start()
    for size in (256, 512, 768):
        running.config.write_text(TWO.replace("true", f"true\nctx_size = {size}", 1), encoding="utf-8")
        running.process.send_signal(signal.SIGHUP)
        running.until("reloaded")
        while running.running().get("one", {}).get("context") != size:
            assert running.chat("one")[0] == 200
    stop.set()
    for client in clients:
        client.join()
    assert set(statuses) == {200}


def test_a_configuration_that_is_wrong_changes_nothing_at_a_reload(gateway: Start) -> None:
    running = gateway(TWO)
    running.config.write_text("[models.one]\ndemo = true\nctx = 1\n", encoding="utf-8")
    running.process.send_signal(signal.SIGHUP)
    assert "ctx" in running.until("reload_failed")["error"]
    assert running.chat("two")[0] == 200


def _served(world: World, model: str) -> int:
    request = world.ask(model)
    world.work()
    return request


__all__ = ["Running"]
