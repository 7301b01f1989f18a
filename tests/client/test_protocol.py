"""What is asked of a server and what its answers mean: without any server."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_runner.client import requests_to_server
from llama_runner.client.errors import StrangeAnswer
from llama_runner.client.reply_types import Timings, ToolCall, Usage
from llama_runner.client.server_address import ServerAddress
from llama_runner.client.streamed_reply import StreamAccumulator
from llama_runner.core.errors import LlamaRunnerError

URL = "http://127.0.0.1:8080"


def body(call: requests_to_server.Call[Any]) -> Any:
    return call.body


LOCAL = ("localhost", "LOCALHOST", "127.0.0.1", "127.8.8.8", "[::1]")


@pytest.mark.parametrize("host", [*LOCAL, "localhost.example.com", "127.example.com", "[::1f]", "10.0.0.1"])
def test_a_proxy_is_used_for_every_host_but_this_machine(host: str) -> None:
    assert ServerAddress(f"http://{host}:8080").is_local is (host in LOCAL)


def test_a_text_alone_is_what_the_user_says() -> None:
    asked = body(requests_to_server.chat("hello", system="be brief", temperature=0, seed=None))
    assert asked == {
        "messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hello"}],
        "temperature": 0,
    }


def test_a_conversation_is_sent_as_it_is_and_stays_the_callers() -> None:
    messages = [{"role": "user", "content": "hello"}]
    assert body(requests_to_server.chat(messages, system="be brief"))["messages"][1:] == messages
    assert messages == [{"role": "user", "content": "hello"}]


def test_a_schema_is_asked_for_where_each_call_wants_it() -> None:
    schema = {"type": "object"}
    asked = body(requests_to_server.chat("a", schema=schema))
    assert asked["response_format"] == {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    assert body(requests_to_server.complete("a", schema=schema))["json_schema"] == schema


def test_a_keyword_that_nobody_knows_is_a_mistake_and_more_is_not() -> None:
    with pytest.raises(TypeError, match="temprature"):
        requests_to_server.chat("a", temprature=1)
    assert body(requests_to_server.complete("a", more={"cache_prompt": False}))["cache_prompt"] is False


def test_one_text_is_one_text_to_embed() -> None:
    assert body(requests_to_server.embed("hello")) == {"input": ["hello"]}


def test_vectors_come_in_the_order_of_the_texts() -> None:
    data = [{"index": 1, "embedding": [1.0]}, {"index": 0, "embedding": [0.0]}]
    assert requests_to_server.embed(["a", "b"]).result(URL, 200, json.dumps({"data": data}).encode()) == [[0.0], [1.0]]


ANSWER = {
    "choices": [
        {
            "finish_reason": "tool_calls",
            "message": {
                "role": "assistant",
                "content": None,
                "reasoning_content": "hm",
                "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
            },
        }
    ],
    "model": "m",
    "usage": {"completion_tokens": 8, "prompt_tokens": 22, "prompt_tokens_details": {"cached_tokens": 21}},
    "timings": {"prompt_n": 1, "prompt_ms": 5.0, "predicted_n": 8, "predicted_ms": 2.0},
}


def test_an_answer_is_read() -> None:
    reply = requests_to_server.chat("a").result(URL, 200, json.dumps(ANSWER).encode())
    assert (reply.text, reply.reasoning, reply.finish_reason) == ("", "hm", "tool_calls")
    assert reply.tool_calls == (ToolCall("1", "f", "{}"),)
    assert reply.usage == Usage(22, 8, 21)
    assert reply.timings == Timings(1, 0.005, 8, 0.002)
    assert reply.timings.tokens_per_second == 4000
    assert reply.message["tool_calls"][0]["function"] == {"name": "f", "arguments": "{}"}
    assert reply.raw == ANSWER


def test_a_tool_call_that_comes_in_parts_is_put_together() -> None:
    gathered = StreamAccumulator(URL)
    parts: list[dict[str, Any]] = [
        {"index": 0, "id": "1", "function": {"name": "weather", "arguments": ""}},
        {"index": 0, "function": {"arguments": '{"city":'}},
        {"index": 1, "id": "2", "function": {"name": "time", "arguments": "{}"}},
        {"index": 0, "function": {"arguments": ' "Oslo"}'}},
    ]
    for part in parts:
        gathered.feed(json.dumps({"choices": [{"delta": {"tool_calls": [part]}}]}))
    gathered.feed(json.dumps({"choices": [{"delta": {}, "finish_reason": "tool_calls"}], "model": "m"}))
    gathered.feed("[DONE]")
    assert gathered.complete
    assert gathered.reply.tool_calls == (ToolCall("1", "weather", '{"city": "Oslo"}'), ToolCall("2", "time", "{}"))
    assert gathered.reply.finish_reason == "tool_calls"


def test_counters_are_read_by_their_names() -> None:
    text = "# HELP llamacpp:tokens_predicted_total …\n# TYPE …\nllamacpp:tokens_predicted_total 20\nother 1.5e3\n"
    metrics = requests_to_server.metrics().result(URL, 200, text.encode())
    assert metrics.tokens == 20
    assert metrics["other"] == 1500
    assert metrics.waiting == 0


FIELDS = ["choices", "delta", "message", "content", "tool_calls", "error", "usage", "data", "timings", "function"]
Anything: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS) | st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(Anything)
def test_whatever_answers_is_read_or_called_strange(said: Any) -> None:
    text = json.dumps(said)
    for call in (
        requests_to_server.chat("a"),
        requests_to_server.embed(["a"]),
        requests_to_server.props(),
        requests_to_server.metrics(),
        requests_to_server.slots(),
    ):
        for status in (200, 400, 500):
            try:
                call.result(URL, status, text.encode())
            except LlamaRunnerError as error:
                assert str(error)  # noqa: PT017 - it is the only thing that may be raised
    try:
        StreamAccumulator(URL).feed(text)
    except LlamaRunnerError as error:
        assert str(error)  # noqa: PT017 - as above


def test_what_is_no_json_in_a_stream_is_strange() -> None:
    with pytest.raises(StrangeAnswer, match="'what'"):
        StreamAccumulator(URL).feed("what")
