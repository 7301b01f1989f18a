"""Requests of Ollama's API become requests to llama-server: what is sent on, what is refused."""

from __future__ import annotations

import base64
import json
import math
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_runner.gateway.errors import BadRequest
from llama_runner.gateway.ollama_message_translation import ollama_calls, openai_calls, openai_messages
from llama_runner.gateway.ollama_names import find_name, listed_name, plain_name, same_name
from llama_runner.gateway.ollama_request_translation import (
    ModelTraits,
    chat_request,
    embedding_inputs,
    generate_request,
    sampling_options,
    shortened,
)
from llama_runner.gateway.ollama_times import FAR_FUTURE, FOREVER, keep_alive_seconds, nanoseconds, time_text
from llama_runner.gateway.ollama_truncation import shortened_chat, truncated_tokens
from tests.gateway.ollama_strategies import CALLS, JSON, OBJECTS, TEXT

ALL = ("completion", "tools", "insert", "vision", "embedding", "thinking", "audio")
ABLE = ModelTraits("able", ALL, 1024, "{{ messages }}")
PLAIN = ModelTraits("plain")
PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n....").decode()
USER = {"role": "user", "content": "hi"}
TOOL = {"function": {"name": "sky", "parameters": {"type": "object", "properties": {}}}}


# Names


@pytest.mark.parametrize("name", ["qwen", "qwen:latest", "hf.co/qwen", "https://huggingface.co/qwen", "QWEN"])
def test_a_name_is_found_with_and_without_the_tag_and_the_address_of_the_hub(name: str) -> None:
    assert find_name(name, ["other:latest", "qwen", "qwen:8b"]) == "qwen"
    assert find_name(name, ["qwen:latest"]) == "qwen:latest"
    assert find_name(name, ["qwen:8b"]) is None


def test_a_name_that_is_written_the_same_comes_first() -> None:
    assert find_name("Qwen", ["qwen", "Qwen"]) == "Qwen"


@given(TEXT)
def test_a_listed_name_has_a_tag_and_stands_for_the_same_model(name: str) -> None:
    assert ":" in listed_name(name)
    assert listed_name(listed_name(name)) == listed_name(name)
    assert same_name(listed_name(name), name)


def test_a_colon_before_a_slash_is_no_tag() -> None:
    assert listed_name("localhost:5000/model") == "localhost:5000/model:latest"
    assert plain_name("hf.co/org/model-GGUF:Q4_K_M") == "org/model-GGUF:Q4_K_M"


# Durations


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        (0, 0),
        ("0", 0),
        (300, 300),
        (1.5, 1.5),
        ("5m", 300),
        ("1h30m", 5400),
        ("250ms", 0.25),
        ("1.5h", 5400),
        (-1, FOREVER),
        ("-1", FOREVER),
        ("-1m", FOREVER),
        (1e300, FOREVER),
    ],
)
def test_keep_alive_is_seconds_or_a_duration(value: Any, seconds: float | None) -> None:
    assert keep_alive_seconds(value) == seconds


@pytest.mark.parametrize("value", ["5 minutes", "m", "1d", True, [], {}, math.nan, "5m\n5", "\u0661m"])
def test_another_keep_alive_is_refused(value: Any) -> None:
    with pytest.raises(BadRequest, match="is no duration"):
        keep_alive_seconds(value)


@given(JSON)
def test_any_keep_alive_is_a_number_or_refused(value: Any) -> None:
    try:
        found = keep_alive_seconds(value)
    except BadRequest:
        return
    assert found is None or found >= 0


def test_times_are_rfc_3339_and_forever_is_far_away() -> None:
    assert time_text(0) == "1970-01-01T00:00:00.000000Z"
    assert time_text(None) == time_text(math.inf) == time_text(1e30) == FAR_FUTURE
    assert nanoseconds(1.5) == 1_500_000
    assert nanoseconds("x") == nanoseconds(None) == nanoseconds(math.nan) == 0


# Options


def test_only_the_options_that_are_given_are_sent_on() -> None:
    assert sampling_options({"temperature": 0.1, "top_k": 40.0, "stop": "x", "num_predict": 5, "seed": None}) == (
        {"temperature": 0.1, "top_k": 40, "stop": ["x"], "n_predict": 5},
        (),
    )
    assert chat_request({"messages": [USER], "stream": False}, PLAIN).body == {"messages": [USER]}


def test_options_of_loading_are_named_and_not_sent_on() -> None:
    given, ignored = sampling_options({"num_gpu": 99, "use_mmap": True, "num_ctx": 4096, "no\x1bsuch": 1})
    assert given == {}
    assert ignored == ("num_gpu", "use_mmap", "num_ctx", "no\\x1bsuch")


def test_a_negative_num_predict_ends_after_ten_contexts() -> None:
    assert sampling_options({"num_predict": -1}, 1024)[0] == {"n_predict": 10240}
    assert sampling_options({"num_predict": -2})[0] == {"n_predict": -1}


@pytest.mark.parametrize(
    "options",
    [
        [],
        {"temperature": "hot"},
        {"top_k": 1.5},
        {"seed": True},
        {"stop": [1]},
        {"top_p": math.nan},
        {"top_p": math.inf},
        {"seed": 10**400},
    ],
)
def test_an_option_of_another_type_is_refused_with_its_name(options: Any) -> None:
    with pytest.raises(BadRequest, match=r"^options"):
        sampling_options(options)


# Tools, images, thinking, format


def test_promise_17_a_tool_gets_its_type_and_arguments_become_text() -> None:
    told = [
        USER,
        {"role": "assistant", "tool_calls": [{"function": {"name": "sky", "arguments": {"city": "Oslo"}}}]},
        {"role": "tool", "tool_name": "sky", "content": "stars"},
    ]
    body = chat_request({"messages": told, "tools": [TOOL]}, ABLE).body
    assert body["tools"] == [{**TOOL, "type": "function"}]
    [call] = body["messages"][1]["tool_calls"]
    assert call == {"id": "call_0", "type": "function", "function": {"name": "sky", "arguments": '{"city": "Oslo"}'}}
    assert body["messages"][2] == {"role": "tool", "content": "stars", "tool_call_id": "call_0"}


def test_a_result_belongs_to_the_oldest_open_call_of_its_function() -> None:
    calls: list[Any] = [{"function": {"name": name, "arguments": {}}} for name in ("sky", "sea", "sky")]
    told: list[Any] = [{"role": "assistant", "tool_calls": calls}]
    told += [{"role": "tool", "tool_name": name, "content": ""} for name in ("sea", "sky", "sky")]
    found = openai_messages(told)
    assert [message["tool_call_id"] for message in found[1:]] == ["call_1", "call_0", "call_2"]


def test_ids_of_the_client_are_kept_and_names_are_not_needed() -> None:
    calls: list[Any] = [{"id": "a1", "function": {"name": "sky", "arguments": {}}}, {"function": {"name": "sea"}}]
    results = [{"role": "tool", "content": "1", "tool_call_id": "a1"}, {"role": "tool", "content": "2"}]
    found = openai_messages([{"role": "assistant", "tool_calls": calls}, *results])
    assert [message["tool_call_id"] for message in found[1:]] == ["a1", "call_1"]


@given(CALLS)
def test_promise_17_tool_calls_are_the_same_after_both_translations(calls: list[Any]) -> None:
    back = ollama_calls(openai_calls(calls))
    assert [{name: call["function"][name] for name in ("name", "arguments")} for call in back] == [
        call["function"] for call in calls
    ]


@given(
    st.lists(st.builds(lambda text, calls: {"role": "assistant", "content": text, "tool_calls": calls}, TEXT, CALLS))
)
def test_ids_of_calls_are_unique_in_a_conversation(messages: list[Any]) -> None:
    found = [call["id"] for message in openai_messages(messages) for call in message.get("tool_calls", ())]
    assert len(set(found)) == len(found)


def test_images_become_parts_with_their_type() -> None:
    found = chat_request({"messages": [{**USER, "images": [PNG]}]}, ABLE)
    assert found.body["messages"][0]["content"] == [
        {"type": "text", "text": "hi"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}},
    ]
    wav = base64.b64encode(b"RIFF\0\0\0\0WAVE").decode()
    [part] = generate_request({"images": [wav]}, ABLE).body["messages"][0]["content"]
    assert part == {"type": "input_audio", "input_audio": {"data": wav, "format": "wav"}}


@pytest.mark.parametrize("image", ["http://169.254.169.254/", "%%%", 7, base64.b64encode(b"RIFF1234WEBP").decode(), ""])
def test_an_image_that_is_no_picture_is_refused_and_no_address_is_fetched(image: Any) -> None:
    with pytest.raises(BadRequest, match=r"messages\[0\]\.images\[0\]"):
        chat_request({"messages": [{**USER, "images": [image]}]}, ABLE)


@pytest.mark.parametrize(
    ("request_", "what"),
    [
        ({"messages": [USER], "tools": [TOOL]}, "tools"),
        ({"messages": [USER], "think": True}, "thinking"),
        ({"messages": [USER], "think": "high"}, "thinking"),
        ({"messages": [{**USER, "images": [PNG]}]}, "vision"),
    ],
)
def test_what_a_model_cannot_do_is_refused_by_name(request_: Any, what: str) -> None:
    with pytest.raises(BadRequest, match=f"plain does not support {what}"):
        chat_request(request_, PLAIN)


def test_think_is_a_boolean_of_the_template_and_a_level_an_effort() -> None:
    def body(think: Any) -> Any:
        return chat_request({"messages": [USER], "think": think}, ABLE).body

    assert body(True)["chat_template_kwargs"] == {"enable_thinking": True}
    assert body(False)["chat_template_kwargs"] == {"enable_thinking": False}
    assert body("low")["reasoning_effort"] == "low"
    assert chat_request({"messages": [USER], "think": False}, PLAIN).body["chat_template_kwargs"]
    with pytest.raises(BadRequest, match="think: expected"):
        body("hard")
    past = {"role": "assistant", "content": "4", "thinking": "2 + 2"}
    assert chat_request({"messages": [past, USER]}, ABLE).body["messages"][0]["reasoning_content"] == "2 + 2"


def test_a_format_is_json_or_a_schema() -> None:
    schema = {"type": "object"}
    body = chat_request({"messages": [USER], "format": schema}, PLAIN).body
    assert body["response_format"]["json_schema"]["schema"] == schema
    assert chat_request({"messages": [USER], "format": "json"}, PLAIN).body["response_format"] == {
        "type": "json_object"
    }
    assert generate_request({"prompt": "x", "raw": True, "format": schema}, PLAIN).body["json_schema"] == schema
    assert "response_format" not in chat_request({"messages": [USER], "format": ""}, PLAIN).body
    with pytest.raises(BadRequest, match="format: expected"):
        chat_request({"messages": [USER], "format": "xml"}, PLAIN)


# generate


def test_a_prompt_is_a_chat_a_raw_one_is_text_and_a_suffix_fills_in_the_middle() -> None:
    found = generate_request({"prompt": "p", "system": "s"}, PLAIN)
    assert (found.path, found.kind) == ("/v1/chat/completions", "chat")
    assert found.body["messages"] == [{"role": "system", "content": "s"}, {"role": "user", "content": "p"}]
    found = generate_request({"prompt": "p", "raw": True, "stream": False}, PLAIN)
    assert (found.path, found.kind, found.body) == ("/completion", "text", {"prompt": "p"})
    found = generate_request({"prompt": "p", "suffix": "q", "stream": False}, ABLE)
    assert (found.path, found.body) == ("/infill", {"input_prefix": "p", "input_suffix": "q"})
    with pytest.raises(BadRequest, match="plain does not support insert"):
        generate_request({"prompt": "p", "suffix": "q"}, PLAIN)


def test_only_the_template_of_the_model_is_taken() -> None:
    assert generate_request({"prompt": "p", "template": "{{  messages }}\n"}, ABLE).body["messages"]
    with pytest.raises(BadRequest, match="template"):
        generate_request({"prompt": "p", "template": "{{ .Prompt }}"}, ABLE)
    with pytest.raises(BadRequest, match="context"):
        generate_request({"prompt": "p", "context": [1, 2]}, ABLE)


@given(OBJECTS, st.sampled_from([chat_request, generate_request]))
def test_any_request_is_translated_or_refused(request: Any, translate: Any) -> None:
    with suppress(BadRequest):
        json.dumps(translate(request, ABLE).body)


MEMBERS = ("messages", "options", "tools", "think", "format", "stream", "prompt", "suffix", "raw", "images", "template")


@given(st.dictionaries(st.sampled_from(MEMBERS), JSON), st.sampled_from([chat_request, generate_request]))
def test_any_value_of_a_known_member_is_translated_or_refused(request: Any, translate: Any) -> None:
    with suppress(BadRequest):
        json.dumps(translate(request, ABLE).body)


# Embeddings and long chats


def test_inputs_are_a_text_or_a_list() -> None:
    assert embedding_inputs({"input": "a"}) == ["a"]
    assert embedding_inputs({"input": ["a", "b"]}) == ["a", "b"]
    assert embedding_inputs({}) == []
    with pytest.raises(BadRequest, match="input"):
        embedding_inputs({"input": [1]})


@given(st.lists(st.integers(0, 9)), st.integers(0, 2), st.integers(0, 2), st.integers(1, 20))
def test_truncated_tokens_keep_the_special_ones_at_both_ends(
    bare: list[int], before: int, after: int, limit: int
) -> None:
    whole = [100] * before + bare + [200] * after
    cut = truncated_tokens(whole, bare, limit)
    assert len(cut) == min(limit, len(whole))
    if limit > before + after:
        assert cut[:before] == [100] * before
        assert cut[len(cut) - after :] == [200] * after


@given(st.lists(st.floats(-1e3, 1e3), min_size=1), st.integers(1, 8))
def test_a_shortened_vector_has_length_one(vector: list[float], dimensions: int) -> None:
    cut = shortened(vector, dimensions)
    assert len(cut) == min(dimensions, len(vector))
    length = math.sqrt(sum(value * value for value in vector[:dimensions]))
    if length > 1e-3:
        assert math.isclose(math.sqrt(sum(value * value for value in cut)), 1, rel_tol=1e-6)


def test_the_oldest_turns_go_with_their_answers_and_the_system_message_stays() -> None:
    system = {"role": "system", "content": "s"}
    turn = [{"role": "user", "content": "1" * 10}, {"role": "assistant", "content": "2" * 10}, {"role": "tool"}]
    last = {"role": "user", "content": "3" * 10}
    assert shortened_chat([system, *turn, last], (10, 9)) == [system, last]
    assert shortened_chat([system, *turn, *turn, last], (100, 90)) == [system, *turn, last]
    assert shortened_chat([system, *turn * 9, last], (100, 20)) == [system, *turn, last]
    assert shortened_chat([system, last], (10, 9)) is None
    assert shortened_chat([], (0, 0)) is None
