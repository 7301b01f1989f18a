"""Anthropic's Messages API for a model with adapters says what it says for one without."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import pytest

from llama_runner import Runner
from llama_runner.gateway.anthropic_messages import MessageStream, chat_request, message_of
from llama_runner.gateway.errors import BadRequest
from llama_runner.gateway.sessions.chat_messages import chat_body
from tests.e2e.contamination import write_adapters
from tests.gateway.conftest import Running

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
WEATHER = {"name": "weather", "description": "of a town", "input_schema": {"type": "object", "properties": {}}}


@pytest.fixture(scope="module")
def clients(binaries: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[anthropic.Anthropic]:
    """Return a client of a gateway with the same model twice: ``plain``, and ``with`` adapters."""
    directory = tmp_path_factory.mktemp("gateway")
    adapters = write_adapters(directory, Runner(binaries).prepare(demo=True).model)
    tables = "".join(f'[models.with.adapters.{name}]\npath = "{path}"\n' for name, path in adapters.items())
    config = directory / "llama-runner.toml"
    config.write_text(f"[defaults]\nthreads = 1\n[models.plain]\ndemo = true\n[models.with]\ndemo = true\n{tables}")
    running = Running(config, binaries)
    with anthropic.Anthropic(base_url=running.url, api_key="none", max_retries=0) as client:
        yield client
    running.end()


REQUESTS: dict[str, dict[str, Any]] = {
    "a text": {"messages": [{"role": "user", "content": "What are you?"}]},
    "a system prompt and stops": {
        "messages": [{"role": "user", "content": [{"type": "text", "text": "What are you?"}]}],
        "system": [{"type": "text", "text": "Answer briefly."}],
        "stop_sequences": ["tiny"],
    },
    "the results of tools": {
        "messages": [
            {"role": "user", "content": "How is the weather?"},
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "a tool", "signature": ""},
                    {"type": "tool_use", "id": "t1", "name": "weather", "input": {"town": "Ulm"}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "dry"}]},
                    {"type": "text", "text": "And now?"},
                ],
            },
        ],
        "tools": [WEATHER],
    },
    "a tool that has to be called": {
        "messages": [{"role": "user", "content": "How is the weather?"}],
        "tools": [WEATHER],
        "tool_choice": {"type": "tool", "name": "weather"},
    },
}


@pytest.mark.parametrize("what", REQUESTS)
def test_a_message_is_that_of_a_model_without_adapters(clients: anthropic.Anthropic, what: str) -> None:
    options: dict[str, Any] = {"max_tokens": 24, "extra_body": {"temperature": 0}, **REQUESTS[what]}
    found = {}
    for model in ("plain", "with"):
        answer = clients.messages.create(model=model, **options)
        shown = answer.model_dump(exclude={"id", "model", "stop_sequence"})
        for block in shown["content"]:
            block.pop("id", None)
        with clients.messages.stream(model=model, **options) as stream:
            streamed = stream.get_final_message().model_dump()
        assert [(each["type"], each.get("text"), each.get("input")) for each in streamed["content"]] == [
            (each["type"], each.get("text"), each.get("input")) for each in shown["content"]
        ]
        assert streamed["stop_reason"] == shown["stop_reason"]
        assert streamed["usage"]["output_tokens"] == shown["usage"]["output_tokens"]
        shown["usage"].pop("cache_read_input_tokens"), shown["usage"].pop("input_tokens")
        found[model] = shown
    assert found["with"] == found["plain"]


def test_tokens_are_counted_with_those_that_are_reused(clients: anthropic.Anthropic) -> None:
    options: dict[str, Any] = {"max_tokens": 2, "messages": [{"role": "user", "content": "Count these tokens. " * 9}]}
    counted = clients.messages.count_tokens(model="with:a", messages=options["messages"]).input_tokens
    for reuses in (False, True):
        usage = clients.messages.create(model="with:a", **options).usage
        assert usage.input_tokens + (usage.cache_read_input_tokens or 0) == counted
        assert bool(usage.cache_read_input_tokens) is reuses


def test_images_become_data_urls() -> None:
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}}
    found = chat_request({"messages": [{"role": "user", "content": [image]}]}, {})
    assert found["messages"][0]["content"] == [
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}}
    ]
    result = {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "x"}, image]}
    [found] = chat_request({"messages": [{"role": "user", "content": [result]}]}, {})["messages"]
    assert (found["role"], [each["type"] for each in found["content"]]) == ("tool", ["text", "image_url"])


def test_the_stamp_of_claude_code_and_the_form_of_arguments_do_not_keep_a_prompt_from_being_reused() -> None:
    stamped = "x-anthropic-billing-header: cc_version=2; cch={};"
    call = {"type": "tool_use", "id": "t", "name": "f", "input": {"town": "K\xf6ln", "days": [1, 2]}}
    body = {"messages": [{"role": "assistant", "content": [call]}]}
    for system in (stamped.format("a1b2c"), [{"type": "text", "text": stamped.format("d3e4f")}]):
        found = chat_request({**body, "system": system}, {})
        assert found["messages"][0]["content"] == stamped.format("fffff")
        assert found["messages"][1]["tool_calls"][0]["function"]["arguments"] == '{"town":"K\xf6ln","days":[1,2]}'
        assert chat_body("/v1/messages", {**body, "system": system})["messages"] == found["messages"]  # type: ignore[index]


@pytest.mark.parametrize("messages", [None, "hi", [1], {"role": "user"}])
def test_what_is_no_list_of_messages_is_refused(messages: object) -> None:
    with pytest.raises(BadRequest, match="messages is not a list of messages"):
        chat_request({"messages": messages}, {})


def test_what_a_variant_adds_reaches_the_model() -> None:
    body = {"messages": [], "min_p": 0.1, "n_predict": 3, "max_tokens": 9, "unknown": 1}
    assert chat_request(body, {"min_p": 0.1, "n_predict": 3}) == {
        "messages": [],
        "min_p": 0.1,
        "n_predict": 3,
        "model": None,
    }


def test_thinking_comes_first_in_a_stream_and_each_block_is_closed() -> None:
    stream = MessageStream("m")
    deltas: list[dict[str, Any]] = [
        {"reasoning_content": "a"},
        {"reasoning_content": "b"},
        {"content": "c"},
        {"tool_calls": [{"index": 0, "id": "t", "function": {"name": "f", "arguments": "{"}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": "}"}}]},
        {"tool_calls": [{"index": 1, "id": "u", "function": {"name": "g", "arguments": "{}"}}]},
    ]
    data = b"".join(stream.translated(_chunk(delta)) for delta in deltas)
    data += stream.translated(b'data: {"choices":[{"delta":{},"finish_reason":"tool_calls"}]}\n\ndata: [DONE]\n\n')
    kinds = [line.removeprefix(b"event: ").decode() for line in data.splitlines() if line.startswith(b"event")]
    start, delta, stop = "content_block_start", "content_block_delta", "content_block_stop"
    expected = [start, delta, delta, delta, stop, start, delta, stop, start, delta, delta, stop, start, delta, stop]
    assert kinds == ["message_start", *expected, "message_delta", "message_stop"]
    assert b'"stop_reason": "tool_use"' in data
    assert stream.translated(b'data: {"error": {"message": "no"}}\n\n').startswith(b"event: error\n")


def _chunk(delta: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps({"id": "x", "choices": [{"delta": delta}]}).encode() + b"\n\n"


def test_a_call_with_arguments_that_are_no_json_has_none() -> None:
    call = {"id": "t", "function": {"name": "f", "arguments": "{"}}
    answer = {"id": "x", "choices": [{"message": {"tool_calls": [call]}, "finish_reason": "tool_calls"}]}
    assert message_of(answer, "m")["content"] == [{"type": "tool_use", "id": "t", "name": "f", "input": {}}]
