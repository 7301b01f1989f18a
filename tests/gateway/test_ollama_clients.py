"""The clients of Ollama talk to the routes, with real servers of the demo model behind them."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import ollama
import pytest

from llama_runner.demo import EXAMPLES
from tests.gateway.conftest import Running
from tests.gateway.ollama_gateway import config

QUESTION, ANSWER = EXAMPLES[0]
GREEDY = {"temperature": 0}
ASKED: Any = [{"role": "user", "content": QUESTION}]
TOOL: Any = {
    "type": "function",
    "function": {
        "name": "sky",
        "description": "Say what can be seen in the sky.",
        "parameters": {"type": "object", "properties": {"city": {"enum": ["Oslo", "Rome"]}}, "required": ["city"]},
    },
}


def product(one: Sequence[float], other: Sequence[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


def test_a_chat_is_answered_whole_and_streamed(client: ollama.Client) -> None:
    whole = client.chat("demo", ASKED, options=GREEDY)
    assert whole.message.content == ANSWER
    assert (whole.done, whole.done_reason, whole.model) == (True, "stop", "demo")
    assert whole.eval_count and whole.eval_count > 10  # noqa: PT018 - for mypy
    assert whole.prompt_eval_count and whole.eval_duration and whole.total_duration  # noqa: PT018
    *pieces, last = client.chat("demo:latest", ASKED, stream=True, options=GREEDY)
    assert "".join(piece.message.content or "" for piece in pieces) == ANSWER
    assert len(pieces) > 10
    assert (last.done, last.model, last.prompt_eval_count) == (True, "demo:latest", whole.prompt_eval_count)


def test_a_prompt_is_answered_and_a_limit_is_kept(client: ollama.Client) -> None:
    whole = client.generate("demo", QUESTION, options={**GREEDY, "num_predict": 3, "num_keep": 2, "num_ctx": 256})
    assert ANSWER.startswith(whole.response or "?")
    assert (whole.done_reason, whole.eval_count) == ("length", 3)
    pieces = list(client.generate("demo", QUESTION, stream=True, options=GREEDY))
    assert "".join(piece.response or "" for piece in pieces) == ANSWER
    raw = client.generate("demo", "what is", raw=True, options={**GREEDY, "num_predict": 4})
    assert raw.eval_count == 4
    streamed = list(client.generate("demo", "what is", raw=True, stream=True, options={**GREEDY, "num_predict": 4}))
    assert "".join(piece.response or "" for piece in streamed) == raw.response
    assert client.generate("demo", QUESTION, options={**GREEDY, "num_predict": -1}).response == ANSWER


def test_a_tool_is_called_with_an_object_and_its_result_is_read(client: ollama.Client) -> None:
    told: Any = [{"role": "user", "content": "what do you see?"}]
    options: Any = {**GREEDY, "num_predict": 64}
    whole = client.chat("tools", told, tools=[TOOL], options=options)
    calls = list(whole.message.tool_calls or ())
    streamed = list(client.chat("tools", told, tools=[TOOL], stream=True, options=options))
    assert [dict(call.function) for piece in streamed for call in piece.message.tool_calls or ()] == [
        dict(call.function) for call in calls
    ]
    assert streamed[-1].done
    past = {"role": "assistant", "tool_calls": [{"function": {"name": "sky", "arguments": {"city": "Oslo"}}}]}
    told += [past, {"role": "tool", "tool_name": "sky", "content": "stars"}]
    assert client.chat("tools", told, tools=[TOOL], options=options).done


def test_thoughts_stand_beside_the_answer(client: ollama.Client) -> None:
    options: Any = {**GREEDY, "num_predict": 8}
    thought = client.chat("thinker", ASKED, think=True, options=options)
    assert thought.message.thinking
    assert not thought.message.content
    silent = client.chat("thinker", ASKED, think=False, options=options)
    assert silent.message.content
    assert not silent.message.thinking
    pieces = list(client.generate("thinker", QUESTION, think=True, stream=True, options=options))
    assert "".join(piece.thinking or "" for piece in pieces)
    with pytest.raises(ollama.ResponseError, match="does not support thinking") as caught:
        client.chat("demo", ASKED, think=True)
    assert caught.value.status_code == 400


def test_a_schema_shapes_the_answer(client: ollama.Client) -> None:
    schema: Any = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    options: Any = {**GREEDY, "num_predict": 200}
    found = client.chat("demo", ASKED, format=schema, options=options)
    assert isinstance(json.loads(found.message.content or "")["a"], int)
    raw = client.generate("demo", "x", raw=True, format=schema, options=options)
    assert isinstance(json.loads(raw.response or ""), dict)


def test_vectors_have_length_one_also_after_they_are_shortened(client: ollama.Client) -> None:
    texts = ["A cat sits on the mat.", "The stock market fell.", "A kitten lies on a rug."]
    found = client.embed("vectors", texts)
    assert [len(vector) for vector in found.embeddings] == [384] * 3
    cat, market, kitten = found.embeddings
    assert product(cat, kitten) > product(cat, market)
    [short] = client.embed("vectors", texts[0], dimensions=64).embeddings
    assert math.isclose(sum(value * value for value in short), 1, rel_tol=1e-5)
    assert found.prompt_eval_count
    assert len(client.embeddings("vectors", texts[0]).embedding) == 384
    assert client.embed("vectors", []).embeddings == []
    with pytest.raises(ollama.ResponseError) as caught:
        client.embed("demo", "a")
    assert caught.value.status_code == 400


def test_a_long_text_is_cut_or_refused_for_a_vector(client: ollama.Client) -> None:
    long = "word " * 3000
    assert len(client.embed("vectors", long).embeddings[0]) == 384
    with pytest.raises(ollama.ResponseError, match="exceeds the context length") as caught:
        client.embed("vectors", long, truncate=False)
    assert caught.value.status_code == 400


def test_a_chat_that_is_too_long_is_refused_with_both_numbers_or_shortened(
    ollama_gateway: Running,
) -> None:
    turns = [{"role": "user", "content": "hello " * 700}, {"role": "assistant", "content": "hm"}]
    body = {"model": "demo", "messages": turns * 3 + ASKED, "stream": False, "options": GREEDY}
    status, answer = ollama_gateway.post("/api/chat", body)
    assert status == 400
    assert "1024" in answer["error"]
    status, answer = ollama_gateway.post("/api/chat", {**body, "truncate": True})
    assert status == 200
    assert answer["message"]["content"]


def test_unknown_models_and_malformed_requests_are_errors(ollama_gateway: Running, client: ollama.Client) -> None:
    for call in (client.show, client.delete, client.chat, client.generate, client.embed):
        with pytest.raises(ollama.ResponseError, match="model 'nowhere' not found") as caught:
            call("nowhere")
        assert caught.value.status_code == 404
    for path in ("/api/chat", "/api/generate", "/api/embed", "/api/show", "/api/create"):
        long, deep = b'{"model": "%s"}' % (b"x" * 1000), b'{"model": "demo", "x": %s}' % (b"[" * 99 + b"]" * 99)
        for body in (b"", b"{", b"[]", b"[" * 100_000, b'{"model": 5}', b"{}", long, deep):
            answer = httpx.post(ollama_gateway.url + path, content=body)
            assert answer.status_code == 400, (path, body)
            assert isinstance(answer.json()["error"], str)


def test_an_empty_request_loads_a_model_and_unloads_it(ollama_gateway: Running, client: ollama.Client) -> None:
    loaded = client.chat("demo", [])
    assert (loaded.done, loaded.done_reason) == (True, "load")
    assert "demo:latest" in [each.name for each in client.ps().models]
    assert client.generate("demo", "", keep_alive=0).done_reason == "unload"
    assert "demo:latest" not in [each.name for each in client.ps().models]
    client.generate("demo", "", keep_alive=-1)
    [running] = [each for each in client.ps().models if each.name == "demo:latest"]
    assert running.expires_at and running.expires_at.year == 9999  # noqa: PT018 - for mypy
    assert running.context_length == 1024
    assert client.chat("demo", ASKED, keep_alive=0, options=GREEDY).message.content == ANSWER
    ollama_gateway.wait_for(lambda: "demo" not in ollama_gateway.running())
    assert "demo:latest" not in [each.name for each in client.ps().models]


def test_models_are_listed_and_shown(client: ollama.Client) -> None:
    client.chat("demo", [])
    names = [each.model for each in client.list().models]
    assert "demo:latest" in names
    assert "pirate:latest" in names
    assert "secret:latest" not in names
    shown = client.show("pirate")
    assert shown.modelinfo is not None
    assert shown.modelinfo["general.architecture"] == "llama"
    assert shown.capabilities == ["completion"]
    assert 'SYSTEM """You are a pirate."""' in (shown.modelfile or "")


def test_the_async_client_does_the_same(ollama_gateway: Running) -> None:
    async def use() -> None:
        async with ollama.AsyncClient(ollama_gateway.url) as client:
            await check(client)

    async def check(client: ollama.AsyncClient) -> None:
        whole = await client.chat("demo", ASKED, options=GREEDY)
        assert whole.message.content == ANSWER
        pieces = [
            piece.message.content or "" async for piece in await client.chat("demo", ASKED, stream=True, options=GREEDY)
        ]
        assert "".join(pieces) == ANSWER
        assert (await client.list()).models
        assert (await client.ps()).models
        assert (await client.show("demo")).modelinfo
        assert (await client.generate("demo", QUESTION, options=GREEDY)).response == ANSWER
        assert len((await client.embed("vectors", "a")).embeddings) == 1
        with pytest.raises(ollama.ResponseError) as caught:
            await client.show("nowhere")
        assert caught.value.status_code == 404

    asyncio.run(use())


def test_a_copy_outlives_the_gateway(client: ollama.Client, ollama_store: Path, tmp_path: Path) -> None:
    assert client.copy("demo", "gpt-4o").status == "success"
    assert client.chat("gpt-4o:latest", ASKED, options=GREEDY).message.content == ANSWER
    with pytest.raises(ollama.ResponseError, match="a model is called thinker already"):
        client.copy("demo", "thinker:latest")
    other = Running(config(tmp_path, "[models.demo]\ndemo = true\n"), ollama_store)
    try:
        with ollama.Client(other.url) as again:
            assert again.generate("gpt-4o", QUESTION, options=GREEDY).response == ANSWER
            assert again.delete("gpt-4o").status == "success"
    finally:
        other.end()
    with pytest.raises(ollama.ResponseError, match="not found"):
        client.chat("gpt-4o", ASKED)


def test_a_variant_is_created_from_simple_parts(client: ollama.Client) -> None:
    statuses = [
        each.status
        for each in client.create("sailor", from_="demo", system="Sail.", parameters={"num_predict": 2}, stream=True)
    ]
    assert statuses[-1] == "success"
    found = client.chat("sailor", ASKED, options=GREEDY)
    assert (found.eval_count, found.done_reason) == (2, "length")
    shown = client.show("sailor")
    assert "num_predict" in (shown.parameters or "")
    client.delete("sailor")
    with pytest.raises(ollama.ResponseError) as caught:
        client.create("x", from_="demo", quantize="q4_0")
    assert caught.value.status_code == 501
    with pytest.raises(ollama.ResponseError) as caught:
        client.push("demo")
    assert caught.value.status_code == 501
