"""Adapters behind the gateway: each is a model of its own to clients, and none changes the answer of another.

What is compared with are cold answers: those of servers that were started for one request each.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from llama_runner import Runner, ServerOptions
from tests.e2e.contamination import CHOICES, PROMPTS, cold_answers, write_adapters, wrong_answers
from tests.e2e.lora import write_adapter
from tests.gateway.conftest import Running, Start
from tests.gateway.streams import Stream

Cold = dict[tuple[str, str], str]
TOKENS = 16


@pytest.fixture(scope="module")
def adapters(binaries: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return two adapters of the demo model."""
    return write_adapters(tmp_path_factory.mktemp("adapters"), Runner(binaries).prepare(demo=True).model)


@pytest.fixture(scope="module")
def cold(binaries: Path, adapters: dict[str, Path]) -> Cold:
    """Return the answers of servers that were started for one request each."""

    def ask(choice: str, prompt: str) -> str:
        options = ServerOptions(port=0, threads=1)
        lora = [f"{name}={path}" for name, path in adapters.items()]
        with Runner(binaries).serve(demo=True, lora=lora, server=options) as server:
            return str(server.chat(prompt, adapter=choice, temperature=0.0, max_tokens=TOKENS).text)

    return cold_answers(ask)


def declared(adapters: dict[str, Path], more: str = "") -> str:
    tables = "".join(f'[models.one.adapters.{name}]\npath = "{path}"\n' for name, path in adapters.items())
    return f'[models.one]\ndemo = true\nthreads = 1\naliases = ["uno"]\n{more}\n{tables}'


@pytest.fixture(scope="module")
def running(adapters: dict[str, Path], binaries: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Return a gateway with one model that has two adapters."""
    config = tmp_path_factory.mktemp("gateway") / "llama-runner.toml"
    variant = "[models.one.variants.short]\nsampling = { n_predict = 2 }\n"
    config.write_text(declared(adapters, 'llama = { cache-ram = 4096 }\npreset = "chat"') + variant, encoding="utf-8")
    running = Running(config, binaries)
    yield running
    running.end()


def named(choice: str) -> str:
    return f"one:{choice}" if choice else "one"


def message(prompt: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt}]


def chat(running: Running, model: str, prompt: str, **more: Any) -> str:
    status, answer = running.chat(model, messages=message(prompt), temperature=0, max_tokens=TOKENS, **more)
    assert status == 200, answer
    assert answer["model"] == model
    return str(answer["choices"][0]["message"]["content"])


def by_field(running: Running, choice: str, prompt: str) -> str:
    wanted = [{"name": name} for name in choice.split("+") if name]
    return chat(running, "one", prompt, lora=wanted)


def by_responses(running: Running, choice: str, prompt: str) -> str:
    body = {"model": named(choice), "input": prompt, "temperature": 0, "max_output_tokens": TOKENS}
    status, answer = running.post("/v1/responses", body)
    assert status == 200, answer
    return "".join(part["text"] for item in answer["output"] for part in item["content"])


def by_messages(running: Running, choice: str, prompt: str) -> str:
    body = {"model": named(choice), "messages": message(prompt), "temperature": 0, "max_tokens": TOKENS}
    status, answer = running.post("/v1/messages", body)
    assert status == 200, answer
    return "".join(part["text"] for part in answer["content"])


def by_streamed_messages(running: Running, choice: str, prompt: str) -> str:
    more: dict[str, Any] = {"messages": message(prompt), "temperature": 0, "max_tokens": TOKENS}
    with Stream(running.url, named(choice), "/v1/messages", **more) as stream:
        events = [line.removeprefix(b"data: ") for line in stream.rest().splitlines() if line.startswith(b"data: {")]
    deltas = [event["delta"] for each in events if (event := json.loads(each))["type"] == "content_block_delta"]
    return "".join(delta["text"] for delta in deltas)


def by_ollama(running: Running, choice: str, prompt: str) -> str:
    options = {"temperature": 0, "num_predict": TOKENS}
    body = {"model": named(choice), "messages": message(prompt), "stream": False, "options": options}
    status, answer = running.post("/api/chat", body)
    assert status == 200, answer
    return str(answer["message"]["content"])


def by_generate(running: Running, choice: str, prompt: str) -> str:
    options = {"temperature": 0, "num_predict": TOKENS}
    body = {"model": named(choice), "prompt": prompt, "stream": False, "options": options}
    return str(running.post("/api/generate", body)[1]["response"])


def by_stream(running: Running, choice: str, prompt: str) -> str:
    more: dict[str, Any] = {"messages": message(prompt), "temperature": 0, "max_tokens": TOKENS, "ignore_eos": False}
    with Stream(running.url, named(choice), **more) as stream:
        events = [line.removeprefix(b"data: ") for line in stream.rest().splitlines() if line.startswith(b"data: {")]
    choices = [choice for event in events for choice in json.loads(event)["choices"]]
    return "".join(each["delta"].get("content") or "" for each in choices)


PROTOCOLS: dict[str, Callable[[Running, str, str], str]] = {
    "chat": lambda running, choice, prompt: chat(running, named(choice), prompt),
    "the field": by_field,
    "a stream": by_stream,
    "responses": by_responses,
    "messages": by_messages,
    "streamed messages": by_streamed_messages,
    "ollama": by_ollama,
    "generate": by_generate,
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_promise_20_no_adapter_changes_an_answer_that_another_or_none_is_asked_for(
    running: Running, cold: Cold, protocol: str
) -> None:
    ask = PROTOCOLS[protocol]
    assert wrong_answers(cold, lambda choice, prompt: ask(running, choice, prompt)) == []
    assert len(running.children()) == 1


def test_promise_20_holds_across_protocols_and_for_clients_at_once(
    gateway: Start, adapters: dict[str, Path], cold: Cold
) -> None:
    running = gateway(declared(adapters, "llama = { parallel = 1 }"))  # what is computed together is rounded otherwise
    asked = [(protocol, choice, prompt) for choice in reversed(CHOICES) for protocol in PROTOCOLS for prompt in PROMPTS]
    with ThreadPoolExecutor(6) as clients:
        answers = list(clients.map(lambda each: PROTOCOLS[each[0]](running, *each[1:]), asked))
    assert [each for each, answer in zip(asked, answers, strict=True) if answer != cold[each[1:]]] == []


def test_one_process_has_every_adapter_unapplied_and_no_host_cache(running: Running, adapters: dict[str, Path]) -> None:
    running.chat("one")
    [child] = running.children()
    words = child.cmdline()
    assert words.count("--lora-scaled") == 1
    assert words[words.index("--lora-scaled") + 1] == ",".join(f"{path}:0" for path in adapters.values())
    assert [words[at + 1] for at, word in enumerate(words) if word == "--cache-ram"] == ["0"]


def test_each_adapter_is_in_the_lists_of_every_protocol(running: Running) -> None:
    expected = ["one", "uno", "one:short", "one:a", "one:b"]
    assert [each["id"] for each in running.get("/v1/models")[1]["data"]] == expected
    listed = running.get("/v1/models", **{"anthropic-version": "2023-06-01"})[1]["data"]
    assert [each["id"] for each in listed] == expected
    running.chat("one")
    tags = running.get("/api/tags")[1]["models"]
    assert {each["name"] for each in tags} == {"one:latest", "uno:latest", "one:short", "one:a", "one:b"}
    assert running.get("/v1/models/one:a+b")[1]["id"] == "one:a+b"
    assert running.post("/api/show", {"model": "one:a+b"})[0] == 200
    assert running.running()["one"]["names"] == expected


@pytest.mark.parametrize("name", ["one:c", "one:a+c", "one:a+a", "one:+a", "one:a:b", "two:a"])
def test_a_name_with_an_adapter_that_is_not_there_is_no_model(running: Running, name: str) -> None:
    assert running.chat(name)[0] == 404
    assert running.get(f"/v1/models/{name}")[0] == 404
    assert running.post("/api/chat", {"model": name, "messages": message("hi")})[0] == 404


def test_aliases_and_variants_have_the_adapters_of_their_model(running: Running, cold: Cold) -> None:
    assert chat(running, "uno:a", PROMPTS[0]) == cold["a", PROMPTS[0]]
    answer = running.post("/v1/chat/completions", {"model": "one:short:a", "messages": message(PROMPTS[0])})[1]
    assert (answer["model"], answer["usage"]["completion_tokens"]) == ("one:short:a", 2)


def test_scales_are_chosen_by_request(running: Running, cold: Cold) -> None:
    prompt = PROMPTS[0]
    half = chat(running, "one", prompt, lora=[{"name": "a", "scale": 0.5}])
    assert half not in (cold["a", prompt], cold["", prompt])
    assert chat(running, "one:b", prompt, lora=[{"name": "a", "scale": 0.5}, {"name": "b", "scale": 0}]) == half
    assert chat(running, "one:b", prompt, lora=[]) == cold["", prompt]
    options = {"temperature": 0, "num_predict": TOKENS}
    body = {"model": "one", "messages": message(prompt), "stream": False, "options": options}
    answer = running.post("/api/chat", {**body, "lora": [{"name": "a", "scale": 0.5}]})[1]
    assert answer["message"]["content"] == half
    answer = running.post("/models/one/completion", {"prompt": prompt, "lora": [{"name": "a"}], "n_predict": 4})
    assert answer[0] == 200


@pytest.mark.parametrize(
    ("lora", "said"),
    [
        ([{"id": 0, "scale": 1}], "chosen by its name and a scale, not by an id"),
        ([{"name": "a", "id": 0}], "chosen by its name and a scale, not by an id"),
        ([{"name": "c"}], "there is no adapter 'c'"),
        ([{"name": "a"}, {"name": "a"}], "lora names 'a' twice"),
        ([{"name": "a", "scale": -1}], "the scale of 'a' is no number from 0 on"),
        ([{"name": "a", "scale": "1"}], "the scale of 'a' is no number from 0 on"),
        ({"a": 1}, "lora is not a list of adapters"),
        (["a"], "chosen by its name and a scale, not by an id"),
        ([{"name": "x" * 999}], "there is no adapter"),
    ],
)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/api/chat", "/models/one/completion"])
def test_a_field_that_chooses_no_adapters_of_the_model_is_refused(
    running: Running, path: str, lora: object, said: str
) -> None:
    body = {"model": "one", "messages": message("hi"), "prompt": "hi", "max_tokens": 1, "stream": False}
    status, answer = running.post(path, {**body, "lora": lora})
    assert (status, said in json.dumps(answer)) == (400, True), answer


def test_the_scales_of_the_whole_process_are_closed_to_clients(running: Running) -> None:
    for path in ("/lora-adapters", "/models/one/lora-adapters", "/one/lora-adapters"):
        assert running.post(path, [{"id": 0, "scale": 1}])[0] in (404, 405)
        assert running.get(path)[0] in (404, 405)


@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/rerank", "/v1/audio/transcriptions"])
def test_what_takes_no_adapters_is_refused_for_a_model_that_has_some(running: Running, path: str) -> None:
    status, answer = running.post(path, {"model": "one", "input": "hi", "query": "a", "documents": ["b"]})
    assert (status, "takes no adapters" in answer["error"]["message"]) == (400, True), answer


def test_tokens_are_counted_with_an_adapter_too(running: Running) -> None:
    assert running.post("/tokenize", {"model": "one:a", "content": "hi"})[0] == 200
    assert running.post("/v1/messages/count_tokens", {"model": "one:a", "messages": message("hi")})[0] == 200


def test_metrics_count_a_mix_for_its_model(running: Running) -> None:
    before = running.get("/metrics")[1].decode()
    running.chat("one:b+a")
    assert "b+a" not in before + running.get("/metrics")[1].decode()


def test_an_adapter_that_cannot_be_used_leaves_its_model_and_the_others_usable(
    gateway: Start, adapters: dict[str, Path], cold: Cold, tmp_path: Path
) -> None:
    (tmp_path / "damaged.gguf").write_bytes(b"GGUF" + bytes(100))
    running = gateway(declared({"gone": tmp_path / "gone.gguf", "a": adapters["a"], "bad": tmp_path / "damaged.gguf"}))
    for choice in ("", "a"):
        assert chat(running, named(choice), PROMPTS[0]) == cold[choice, PROMPTS[0]]
    for name in ("gone", "bad"):
        status, answer = running.chat(f"one:{name}")
        assert status == 400
        assert answer["error"]["message"].startswith(f"the adapter '{name}' cannot be used: {tmp_path}")
    write_adapter(tmp_path / "gone.gguf", Runner(running.config.parent / "root").prepare(demo=True).model, 3)
    running.process.send_signal(signal.SIGHUP)
    running.until("reloaded")
    assert running.chat("one:gone")[0] == 200


def test_a_new_adapter_is_added_while_requests_are_answered_and_none_fails(
    gateway: Start, adapters: dict[str, Path], cold: Cold
) -> None:
    running = gateway(declared({"a": adapters["a"]}))
    prompt = PROMPTS[0]
    assert chat(running, "one:a", prompt) == cold["a", prompt]
    [before] = running.children()
    with Stream(running.url, "one:a", max_tokens=300) as stream, ThreadPoolExecutor(4) as clients:
        stream.first()
        running.config.write_text(declared(adapters), encoding="utf-8")
        running.process.send_signal(signal.SIGHUP)
        running.until("reloaded")
        waiting = [clients.submit(chat, running, named(choice), prompt) for choice in CHOICES]
        assert stream.rest().endswith(b"data: [DONE]\n\n")
        assert [each.result() for each in waiting] == [cold[choice, prompt] for choice in CHOICES]
    [after] = running.children()
    assert after.pid != before.pid


def test_an_adapter_whose_file_was_replaced_is_loaded_anew_by_reload(
    gateway: Start, adapters: dict[str, Path], cold: Cold, tmp_path: Path
) -> None:
    path, prompt = tmp_path / "c.gguf", PROMPTS[0]
    path.write_bytes(adapters["a"].read_bytes())
    running = gateway(declared({"c": path}))
    assert chat(running, "one:c", prompt) == cold["a", prompt]
    [before] = running.children()
    for name, is_same in (("a", True), ("b", False)):
        if not is_same:
            (tmp_path / "new").write_bytes(adapters[name].read_bytes())
            (tmp_path / "new").replace(path)
        running.process.send_signal(signal.SIGHUP)
        running.until("reloaded")
        assert chat(running, "one:c", prompt) == cold[name, prompt]
        assert (running.children()[0].pid == before.pid) is is_same


def test_a_key_uses_the_adapters_that_its_list_names(gateway: Start, adapters: dict[str, Path], tmp_path: Path) -> None:
    limits = tmp_path / "limits.toml"
    rights = {"base": ["one"], "only": ["one:a"], "both": ["one", "one:[ab]"], "all": ["one", "one:*"]}
    limits.write_text("".join(f'[keys.{name}]\nkey = "{name}"\nmodels = {rights[name]}\n' for name in rights))
    limits.chmod(0o600)
    running = gateway(declared(adapters) + f'[gateway]\nlimits_file = "{limits}"\n')
    asked = ["one", "one:a", "one:b", "one:a+b"]
    expected = {"base": "one", "only": "one:a", "both": " ".join(asked), "all": " ".join(asked)}
    for key, names in expected.items():
        headers = {"Authorization": f"Bearer {key}"}
        body = {"messages": message("hi"), "max_tokens": 1}
        answers = {name: running.post("/v1/chat/completions", {"model": name, **body}, **headers)[0] for name in asked}
        assert [name for name in asked if answers[name] == 200] == names.split(), key
        listed = [each["id"] for each in running.get("/v1/models", **headers)[1]["data"]]
        assert set(listed) == {*names.split()} - {"one:a+b"} | ({"uno"} & {*listed})
        chosen = {"model": names.split()[0], "lora": [{"name": "a", "scale": 0.5}], **body}
        assert running.post("/v1/chat/completions", chosen, **headers)[0] == (403 if key in ("base", "only") else 200)
