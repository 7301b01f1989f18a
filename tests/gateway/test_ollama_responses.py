"""Responses of llama-server become responses of Ollama's API, streamed and whole."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_runner.gateway.ollama_message_translation import openai_calls
from llama_runner.gateway.ollama_models import listed_model, parameter_size, running_model, shown_model
from llama_runner.gateway.ollama_response_translation import ResponseTranslator, Shape, UpstreamError, event_data, line
from llama_runner.gateway.served_models import ModelFacts, RunningModel, ServedModel
from tests.gateway.ollama_strategies import CALLS, JSON, TEXT

WHEN = "2026-11-22T00:00:00.000000Z"
TIMINGS = {"cache_n": 21, "prompt_n": 1, "prompt_ms": 1.5, "predicted_n": 4, "predicted_ms": 32.86}


def translator(shape: Shape = "chat", load_ns: int = 0) -> ResponseTranslator:
    return ResponseTranslator(shape, "demo:latest", created=lambda: WHEN, load_ns=load_ns)


def chunk(finish: str | None = None, **delta: Any) -> str:
    return json.dumps({"choices": [{"index": 0, "finish_reason": finish, "delta": delta}]})


def test_text_streams_and_the_last_line_has_counts_and_nanoseconds() -> None:
    one = translator(load_ns=7)
    assert one.feed(chunk(role="assistant", content=None)) == []
    [first] = one.feed(chunk(content="A step"))
    assert first == {
        "model": "demo:latest",
        "created_at": WHEN,
        "message": {"role": "assistant", "content": "A step"},
        "done": False,
    }
    assert one.feed(chunk("length")) == []
    assert one.feed(json.dumps({"choices": [], "timings": TIMINGS})) == []
    assert one.feed("[DONE]") == []
    assert one.ended
    [last] = one.finish(99)
    assert last == {
        "model": "demo:latest",
        "created_at": WHEN,
        "message": {"role": "assistant", "content": ""},
        "done": True,
        "done_reason": "length",
        "total_duration": 99,
        "load_duration": 7,
        "prompt_eval_count": 22,
        "prompt_eval_duration": 1_500_000,
        "eval_count": 4,
        "eval_duration": 32_860_000,
    }


def test_generate_has_a_response_and_thinking_beside_it() -> None:
    one = translator("generate")
    assert one.feed(chunk(reasoning_content="hm"))[0]["thinking"] == "hm"
    assert one.feed(chunk(content="x"))[0]["response"] == "x"
    assert one.finish(1)[-1]["response"] == ""


def test_raw_text_streams_from_completion() -> None:
    one = translator("generate")
    [first] = one.feed(json.dumps({"content": "I", "stop": False}))
    assert (first["response"], first["done"]) == ("I", False)
    assert one.feed(json.dumps({"content": "", "stop": True, "stop_type": "limit", "timings": TIMINGS})) == []
    assert one.ended
    assert one.finish(1)[0]["done_reason"] == "length"
    assert translator("generate").whole({"content": "I", "stop_type": "eos"}, 5)["done_reason"] == "stop"


@given(CALLS, st.integers(1, 5))
def test_promise_17_calls_are_sent_whole_as_objects_before_the_last_line(calls: list[Any], size: int) -> None:
    one = translator()
    for index, call in enumerate(openai_calls(calls)):
        text = call["function"]["arguments"]
        first = {"index": index, "id": call["id"], "function": {"name": call["function"]["name"], "arguments": ""}}
        assert one.feed(chunk(tool_calls=[first])) == []
        for at in range(0, len(text), size):
            assert one.feed(chunk(tool_calls=[{"index": index, "function": {"arguments": text[at : at + size]}}])) == []
    one.feed(chunk("tool_calls"))
    *lines, last = one.finish(1)
    assert (last["done"], last["done_reason"]) == (True, "stop")
    assert "tool_calls" not in last["message"]
    assert len(lines) == bool(calls)
    sent = [call["function"] for each in lines for call in each["message"]["tool_calls"]]
    assert [(call["name"], call["arguments"]) for call in sent] == [
        (call["function"]["name"], call["function"]["arguments"]) for call in calls
    ]
    assert [call["index"] for call in sent] == list(range(len(calls)))


def test_arguments_that_are_no_object_are_an_error_and_a_cut_off_call_is_left_out() -> None:
    for finish, fails in (("tool_calls", True), ("length", False)):
        one = translator()
        one.feed(chunk(tool_calls=[{"index": 0, "id": "a", "function": {"name": "sky", "arguments": '{"city": "O'}}]))
        one.feed(chunk(finish))
        if fails:
            with pytest.raises(UpstreamError, match="no JSON object"):
                one.finish(1)
        else:
            assert [each["done"] for each in one.finish(1)] == [True]


@given(st.lists(st.tuples(TEXT, TEXT), max_size=5), CALLS, st.sampled_from(["chat", "generate"]))
def test_a_stream_and_a_whole_response_say_the_same(
    pieces: list[tuple[str, str]], calls: list[Any], shape: Shape
) -> None:
    calls = calls if shape == "chat" else []
    streamed, whole = translator(shape), translator(shape)
    lines = []
    for text, thinking in pieces:
        lines += streamed.feed(chunk(content=text, reasoning_content=thinking))
    known = openai_calls(calls)
    for index, call in enumerate(known):
        streamed.feed(chunk(tool_calls=[{**call, "index": index}]))
    streamed.feed(json.dumps({"choices": [{"delta": {}, "finish_reason": "stop"}], "timings": TIMINGS}))
    lines += streamed.finish(9)
    message = {
        "content": "".join(text for text, _ in pieces),
        "reasoning_content": "".join(thinking for _, thinking in pieces),
        "tool_calls": known,
    }
    found = whole.whole({"choices": [{"message": message, "finish_reason": "stop"}], "timings": TIMINGS}, 9)

    def part(each: Any) -> Any:
        return each["message"] if shape == "chat" else each

    text = "content" if shape == "chat" else "response"
    assert "".join(part(each)[text] for each in lines) == part(found)[text]
    assert "".join(part(each).get("thinking", "") for each in lines) == part(found).get("thinking", "")
    assert [call for each in lines for call in part(each).get("tool_calls", ())] == part(found).get("tool_calls", [])
    for name in ("done_reason", "prompt_eval_count", "eval_count", "eval_duration", "total_duration"):
        assert lines[-1][name] == found[name]
    assert [each["done"] for each in lines] == [False] * (len(lines) - 1) + [True]


@given(JSON, st.dictionaries(st.sampled_from(["content", "tool_calls", "reasoning_content"]), JSON))
def test_anything_that_llama_server_sends_gives_lines_or_an_error(event: Any, delta: Any) -> None:
    for one in (event, {"choices": event}, {"choices": [event]}, {"choices": [{"delta": delta, "message": delta}]}):
        with suppress(UpstreamError):
            for each in translator().feed(json.dumps(one)):
                assert line(each).count(b"\n") == 1
        with suppress(UpstreamError):
            line(translator().whole(one, 1))


def test_an_error_in_a_stream_has_the_text_of_llama_server() -> None:
    with pytest.raises(UpstreamError, match="too long") as caught:
        translator().feed('{"error": {"code": 400, "message": "too long"}}')
    assert caught.value.status == 400


def test_comments_that_keep_a_stream_alive_are_no_data() -> None:
    assert event_data(":") is None
    assert event_data("") is None
    assert event_data("data: [DONE]") == "[DONE]"


def test_a_lone_surrogate_does_not_end_a_stream() -> None:
    assert json.loads(line({"a": "\ud800"}))


# Descriptions


FACTS = ModelFacts(
    file=Path("/root/model.gguf"),
    digest="sha256:" + "ab" * 32,
    bytes=1_228_256,
    modified_at=1_795_318_825.5,
    architecture="llama",
    name="Demo",
    parameters=1_900_000,
    quantization="q4_k_m",
    context_length=512,
    template="{{ messages }}{% if tools %}{% endif %}",
    metadata={
        "general.architecture": "llama",
        "llama.rope.scaling.original_context_length": 8,
        "llama.context_length": 512,
        "tokenizer.ggml.tokens": {"array": 512},
    },
    capabilities=("completion", "tools", "insert"),
)
SERVED = ServedModel(name="demo", declared="demo", sampling={"temperature": 0.5, "stop": ["a b", 'c"'], "n_predict": 9})


def test_a_listed_model_has_a_tag_and_a_plain_digest() -> None:
    found = listed_model(SERVED, FACTS)
    assert found["name"] == found["model"] == "demo:latest"
    assert re.fullmatch("[0-9a-f]{64}", found["digest"])
    assert found["details"]["parameter_size"] == "1.90M"
    assert found["details"]["quantization_level"] == "Q4_K_M"
    assert datetime.fromisoformat(found["modified_at"].replace("Z", "+00:00"))


def test_the_first_key_with_context_length_is_that_of_the_architecture() -> None:
    """The rule of litellm."""
    info = shown_model(SERVED, FACTS)["model_info"]
    assert next(value for name, value in info.items() if "context_length" in name) == 512
    assert info["general.architecture"] == "llama"
    assert info["general.basename"] == "Demo"
    assert info["tokenizer.ggml.tokens"] is None
    tokens = {"tokenizer.ggml.tokens": ["a"]}
    assert shown_model(SERVED, FACTS, arrays=tokens)["model_info"]["tokenizer.ggml.tokens"] == ["a"]


def test_the_template_has_what_litellm_and_continue_look_for() -> None:
    found = shown_model(SERVED, FACTS)
    assert "tools" in found["template"]
    assert ".Suffix" in found["template"]
    assert ".Suffix" not in shown_model(SERVED, FACTS.replace(capabilities=("completion",)))["template"]


def test_each_parameter_fits_the_expression_of_continue() -> None:
    lines = shown_model(SERVED, FACTS, context=4096)["parameters"].splitlines()
    found = [re.match(r'^(\S+)\s+((?:".*")|\S+)$', each) for each in lines]
    assert all(found), lines
    assert [(each[1], json.loads(each[2])) for each in found if each] == [
        ("num_ctx", 4096),
        ("temperature", 0.5),
        ("stop", "a b"),
        ("stop", 'c"'),
        ("num_predict", 9),
    ]


def test_a_modelfile_names_what_the_model_is_made_from() -> None:
    served = ServedModel(name="pirate", declared="demo", system="Arr.", sampling={"temperature": 1})
    text = shown_model(served, FACTS)["modelfile"].splitlines()
    assert "FROM demo:latest" in text
    assert 'SYSTEM """Arr."""' in text
    assert "PARAMETER temperature 1" in text


def test_a_pinned_model_expires_never_and_one_that_stops_at_the_zero_time() -> None:
    running = RunningModel(
        name="demo", state="ready", pinned=False, in_flight=0, queued=0, expires_at=0.0, memory={"Host": 5, "CUDA0": 7}
    )
    found = running_model(running, FACTS)
    assert (found["size"], found["size_vram"]) == (12, 7)
    assert found["expires_at"].startswith("1970")
    assert running_model(running.replace(pinned=True), FACTS)["expires_at"].startswith("9999")
    assert running_model(running.replace(expires_at=None), FACTS)["expires_at"].startswith("9999")
    assert running_model(running.replace(state="stopping"), FACTS)["expires_at"].startswith("0001")


@pytest.mark.parametrize(("count", "text"), [(8_190_735_360, "8.2B"), (494_032_768, "494.03M"), (12, "12"), (None, "")])
def test_parameters_are_counted_in_billions_and_millions(count: int | None, text: str) -> None:
    assert parameter_size(count) == text
