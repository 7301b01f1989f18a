"""The SDKs of OpenAI and Anthropic against the gateway, unchanged."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import anthropic
import openai
import pytest

from tests.gateway.conftest import Running

HI = [{"role": "user", "content": "hi"}]


@pytest.fixture
def client(served: Running) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key="sk-anything") as made:
        yield made


@pytest.fixture
def claude(served: Running) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=served.url, api_key="sk-ant-anything") as made:
        yield made


def counted(served: Running, path: str) -> int:
    """Return how many requests for a path the access log has, once its latest line is there."""
    marker = f"marker-{os.urandom(8).hex()}"
    served.get("/health", **{"X-Request-Id": marker})
    served.wait_for(lambda: any(line.get("request_id") == marker for line in served.lines))
    return sum(line.get("path") == path for line in served.lines)


def test_openai_lists_and_retrieves_models(client: openai.OpenAI) -> None:
    listed = [model.id for model in client.models.list()]
    assert listed == ["one", "gpt-4o-mini", "claude-haiku", "one:cold", "vectors", "broken", "rescued"]
    assert client.models.retrieve("one:cold").id == "one:cold"
    assert client.models.retrieve("secret").id == "secret", "hidden models answer"
    with pytest.raises(openai.NotFoundError, match="model 'nope' not found"):
        client.models.retrieve("nope")


def test_openai_chats(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="gpt-4o-mini", messages=HI, max_tokens=3)  # type: ignore[arg-type]
    assert answer.model == "gpt-4o-mini"
    assert answer.choices[0].message.content
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 3


def test_openai_streams_with_usage(client: openai.OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(  # type: ignore[call-overload]
            model="one",
            messages=HI,
            max_tokens=3,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    assert {chunk.model for chunk in chunks} == {"one"}
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 3
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def test_openai_completes_and_embeds(client: openai.OpenAI) -> None:
    assert client.completions.create(model="one", prompt="a", max_tokens=2).choices[0].text
    vectors = client.embeddings.create(model="vectors", input=["a", "b"])
    assert len(vectors.data) == 2
    assert vectors.model == "vectors"


def test_openai_responses_are_answered_and_streamed(client: openai.OpenAI) -> None:
    answer = client.responses.create(model="one", input="hi", max_output_tokens=3)
    assert answer.output_text
    assert answer.model == "one"
    events = [
        event.type for event in client.responses.create(model="one", input="hi", max_output_tokens=3, stream=True)
    ]
    assert events[0] == "response.created"
    assert events[-1] == "response.completed"


def test_a_previous_response_id_is_refused_with_its_reason(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="it keeps no sessions") as caught:
        client.responses.create(model="one", input="hi", previous_response_id="resp_1")
    assert caught.value.param == "previous_response_id"


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [("nope", "NotFoundError", "not found"), ("broken", "InternalServerError", "broken.gguf")],
)
def test_a_permanent_error_is_not_sent_again(
    served: Running, client: openai.OpenAI, name: str, kind: str, message: str
) -> None:
    before = counted(served, "/v1/chat/completions")
    with pytest.raises(getattr(openai, kind), match=message):
        client.chat.completions.create(model=name, messages=HI)  # type: ignore[arg-type]
    assert counted(served, "/v1/chat/completions") == before + 1


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"tools": [{"function": {"name": "x"}}]}, "Missing tool type"),
        ({"messages": "text"}, "messages"),
        ({"messages": [{"role": "user", "content": "a " * 4000}]}, "context size"),
    ],
)
def test_mistakes_of_a_client_have_the_status_400_and_are_not_sent_again(
    served: Running, client: openai.OpenAI, more: dict[str, object], message: str
) -> None:
    before = counted(served, "/v1/chat/completions")
    with pytest.raises(openai.BadRequestError, match=message):
        client.chat.completions.create(**{"model": "one", "messages": HI, **more})  # type: ignore[call-overload]
    assert counted(served, "/v1/chat/completions") == before + 1


def test_an_image_without_a_projector_has_the_status_400(client: openai.OpenAI) -> None:
    part = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    with pytest.raises(openai.BadRequestError, match="image input is not supported"):
        client.chat.completions.create(model="one", messages=[{"role": "user", "content": [part]}])  # type: ignore[list-item,misc]


def test_an_image_at_an_address_is_not_fetched(client: openai.OpenAI) -> None:
    part = {"type": "image_url", "image_url": {"url": "http://127.0.0.1:1/secret"}}
    with pytest.raises(openai.BadRequestError, match="not fetched from URLs"):
        client.chat.completions.create(model="one", messages=[{"role": "user", "content": [part]}])  # type: ignore[list-item,misc]


def test_a_fallback_answers_where_a_model_cannot_be_loaded(client: openai.OpenAI) -> None:
    assert client.chat.completions.create(model="rescued", messages=HI, max_tokens=2).choices  # type: ignore[arg-type]


def test_a_variant_adds_its_settings_and_what_the_client_says_counts_more(client: openai.OpenAI) -> None:
    cold = client.chat.completions.create(model="one:cold", messages=HI)  # type: ignore[arg-type]
    assert cold.usage is not None
    assert cold.usage.completion_tokens == 3
    longer = client.chat.completions.create(model="one:cold", messages=HI, max_tokens=5)  # type: ignore[arg-type]
    assert longer.usage is not None
    assert longer.usage.completion_tokens == 5
    plain = client.chat.completions.create(model="one", messages=HI, max_tokens=1)  # type: ignore[arg-type]
    assert plain.usage is not None
    assert cold.usage.prompt_tokens > plain.usage.prompt_tokens, "the system prompt"


def test_a_process_that_dies_in_mid_stream_is_an_error_of_openai_s_sdk(served: Running, client: openai.OpenAI) -> None:
    client.chat.completions.create(model="secret", messages=HI, max_tokens=1)  # type: ignore[arg-type]
    pid = served.running()["secret"]["pid"]
    stream = client.chat.completions.create(
        model="secret",
        messages=HI,  # type: ignore[arg-type]
        max_tokens=15000,
        stream=True,
        extra_body={"ignore_eos": True},
    )
    next(iter(stream))
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(openai.APIError, match="stopped while it answered"):
        list(stream)


def test_anthropic_lists_and_retrieves_models(claude: anthropic.Anthropic) -> None:
    assert [model.id for model in claude.models.list(limit=2)][:3] == ["one", "gpt-4o-mini", "claude-haiku"]
    assert claude.models.retrieve("claude-haiku").display_name == "claude-haiku"
    with pytest.raises(anthropic.NotFoundError) as caught:
        claude.models.retrieve("nope")
    assert caught.value.body["error"]["type"] == "not_found_error"  # type: ignore[index]


def test_anthropic_creates_and_counts(claude: anthropic.Anthropic) -> None:
    answer = claude.messages.create(model="claude-haiku", messages=HI, max_tokens=3)  # type: ignore[arg-type]
    assert answer.model == "claude-haiku"
    assert answer.content
    assert claude.messages.count_tokens(model="claude-haiku", messages=HI).input_tokens > 5  # type: ignore[arg-type]


def test_anthropic_streams(claude: anthropic.Anthropic) -> None:
    with claude.messages.stream(model="claude-haiku", messages=HI, max_tokens=3) as stream:  # type: ignore[arg-type]
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text
    assert final.model == "claude-haiku"
    assert final.usage.output_tokens == 3


def test_an_error_has_anthropic_s_shape_and_is_not_sent_again(served: Running, claude: anthropic.Anthropic) -> None:
    before = counted(served, "/v1/messages")
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}
    with pytest.raises(anthropic.BadRequestError) as caught:
        claude.messages.create(model="one", messages=[{"role": "user", "content": [image]}], max_tokens=3)  # type: ignore[list-item,misc]
    assert caught.value.body["error"]["type"] == "invalid_request_error"  # type: ignore[index]
    assert counted(served, "/v1/messages") == before + 1


def test_a_process_that_dies_in_mid_stream_is_an_error_of_anthropic_s_sdk(
    served: Running, claude: anthropic.Anthropic
) -> None:
    claude.messages.create(model="secret", messages=HI, max_tokens=1)  # type: ignore[arg-type]
    pid = served.running()["secret"]["pid"]
    stream = claude.messages.create(
        model="secret",
        messages=HI,  # type: ignore[arg-type]
        max_tokens=15000,
        stream=True,
        extra_body={"ignore_eos": True},
    )
    next(iter(stream))
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(anthropic.APIStatusError, match="stopped while it answered"):
        list(stream)
