"""`GET /metrics` and `GET /running`: what an operator sees of the gateway."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import httpx
from prometheus_client.parser import text_string_to_metric_families

from llama_runner.gateway.metrics import Metrics
from llama_runner.gateway.served_models import RunningModel
from tests.gateway.conftest import TIGHT, TWO, Running, Start
from tests.gateway.streams import Stream

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def samples(text: str) -> Samples:
    """Parse with the parser of Prometheus' own package. It accepts no sample twice here."""
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation, family.name
        assert family.type in ("counter", "gauge", "histogram"), family.name
        for sample in family.samples:
            key = sample.name.removeprefix("llama_runner_"), tuple(sorted(sample.labels.items()))
            assert key not in found
            found[key] = sample.value
    return found


def scraped(running: Running) -> Samples:
    answer = httpx.get(f"{running.url}/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return samples(answer.text)


def test_every_number_of_the_documentation_is_there_after_two_models_took_turns(gateway: Start) -> None:
    running = gateway(TIGHT + TWO)
    assert running.chat("one")[0] == running.chat("two")[0] == 200
    with Stream(running.url, "two", max_tokens=5) as stream:
        stream.rest()
    assert running.chat("nowhere")[0] == 404
    found = running.wait_for(lambda: (now := scraped(running)).get(("first_token_seconds_count", TWO_)) and now)
    chat = ("route", "/v1/chat/completions")
    assert found["requests_total", (("model", "two"), chat, ("status", "200"))] == 2
    assert found["requests_total", (("model", ""), chat, ("status", "404"))] == 1
    assert found["prompt_tokens_total", ONE] > 0
    assert found["generated_tokens_total", TWO_] == 7
    assert found["first_token_seconds_count", TWO_] == 1
    assert found["first_token_seconds_bucket", (("le", "+Inf"), *TWO_)] == 1
    assert ("first_token_seconds_count", ONE) not in found  # its answer was one piece
    assert found["queue_seconds_count", TWO_] == 2
    assert found["queue_seconds_sum", ONE] > 0
    assert found["loads_total", ONE] == found["loads_total", TWO_] == 1
    assert found["load_seconds_total", ONE] > 0
    assert found["stops_total", (("cause", "evicted"), *ONE)] == 1
    assert found["model_ready", TWO_] == 1
    assert found["in_flight", TWO_] == found["queued", TWO_] == 0
    assert found["model_memory_bytes", (*TWO_, ("place", "Host"))] > 10 << 20
    assert found["memory_available_bytes", (("place", "Host"),)] == 32 << 20
    assert found["started_at_seconds", ()] > 1e9


def test_a_histogram_has_growing_buckets_and_its_sum(gateway: Start) -> None:
    running = gateway(TWO)
    with ThreadPoolExecutor(4) as clients:
        list(clients.map(running.chat, ["one"] * 8))
    found = running.wait_for(lambda: (now := scraped(running)).get(("request_seconds_count", ONE)) == 8 and now)
    buckets = sorted(
        (float(dict(labels)["le"]), count)
        for (name, labels), count in found.items()
        if name == "request_seconds_bucket"
    )
    assert [count for _, count in buckets] == sorted(count for _, count in buckets)
    assert buckets[-1] == (float("inf"), 8)
    assert found["request_seconds_sum", ONE] > 0


def test_a_stop_is_counted_by_its_cause(gateway: Start) -> None:
    running = gateway(TWO)
    running.chat("one")
    running.post("/models/one/load", {})
    assert running.post("/models/one/unload", {})[1]["unloaded"]
    assert scraped(running)["stops_total", (("cause", "unloaded"), *ONE)] == 1


def test_any_name_of_a_model_is_a_label() -> None:
    metrics = Metrics()
    names = ['a"b', "a\\b", "a\nb", "a,b}", "größe", ""]
    for name in names:
        metrics.count("loads_total", model=name)
    model = RunningModel(name='a"b', state="ready", pinned=False, in_flight=1, queued=2, memory={'CUDA"0': 1 << 40})
    found = samples(metrics.text([model], {"Host": (1 << 62) + 1}, 0.5))
    assert {dict(labels)["model"] for (name, labels) in found if name == "loads_total"} == set(names)
    assert found["model_memory_bytes", (("model", 'a"b'), ("place", 'CUDA"0'))] == 1 << 40
    assert found["memory_available_bytes", (("place", "Host"),)] == (1 << 62) + 1


def test_running_shows_each_model_with_its_memory_and_what_is_left(gateway: Start) -> None:
    running = gateway(
        TWO.replace("demo = true\n[models.two]", 'demo = true\naliases = ["uno"]\nttl = "1h"\n[models.two]')
    )
    with Stream(running.url, "uno", max_tokens=3000) as stream:
        stream.first()
        found = running.get("/running")[1]
        [model] = found["models"]
        assert (model["name"], model["names"], model["state"]) == ("one", ["one", "uno"], "ready")
        assert (model["in_flight"], model["queued"], model["pinned"]) == (1, 0, False)
        assert model["expires_at"] is None  # a request is in progress
        stream.rest()
    ended = running.wait_for(lambda: (now := running.running()["one"])["expires_at"] and now)
    assert ended["expires_at"] > ended["loaded_at"] + 3500
    assert ended["memory"]["Host"] > 10 << 20
    assert ended["context"] == 1024
    assert ended["load_seconds"] > 0
    assert found["memory"]["Host"] > 100 << 20


ONE, TWO_ = (("model", "one"),), (("model", "two"),)
