"""What is changed in requests and answers on their way, as pure functions."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_runner.gateway import error_bodies, request_bodies
from llama_runner.gateway.errors import BadRequest, NeverFits, QueueFull, UnknownModel
from llama_runner.gateway.served_models import ServedModel

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)
PLAIN = ServedModel(name="m", declared="m")
VARIANT = PLAIN.replace(
    sampling={"temperature": 0.1, "n_predict": 9}, template={"enable_thinking": False}, system="Be brief."
)


@given(st.dictionaries(st.text(max_size=12), JSON, max_size=6), st.sampled_from(sorted(request_bodies._COMPLETIONS)))
def test_a_plain_name_changes_nothing_and_any_body_is_taken(body: dict[str, Any], path: str) -> None:
    assert request_bodies.with_variant(path, body, PLAIN) is body
    before = json.dumps(body)
    changed = request_bodies.with_variant(path, body, VARIANT)
    assert json.dumps(body) == before
    kept = {key: value for key, value in body.items() if key not in ("messages", "chat_template_kwargs")}
    assert changed.items() >= {key: value for key, value in kept.items() if value}.items()


def test_what_a_client_says_counts_more_than_the_variant() -> None:
    body = {"temperature": 0.9, "max_tokens": 5, "chat_template_kwargs": {"enable_thinking": True}, "messages": []}
    changed = request_bodies.with_variant("/v1/chat/completions", body, VARIANT)
    assert changed["temperature"] == 0.9
    assert "n_predict" not in changed
    assert changed["chat_template_kwargs"] == {"enable_thinking": True}
    assert changed["messages"] == [{"role": "system", "content": "Be brief."}]


@pytest.mark.parametrize("role", ["system", "developer"])
def test_the_system_prompt_of_a_client_counts_more(role: str) -> None:
    messages = [{"role": role, "content": "Own."}]
    changed = request_bodies.with_variant("/v1/chat/completions", {"messages": messages}, VARIANT)
    assert changed["messages"] == messages
    changed = request_bodies.with_variant("/v1/responses", {"input": messages}, VARIANT)
    assert "instructions" not in changed
    assert request_bodies.with_variant("/v1/messages", {"system": "Own."}, VARIANT)["system"] == "Own."
    assert request_bodies.with_variant("/v1/messages", {}, VARIANT)["system"] == "Be brief."
    assert request_bodies.with_variant("/v1/responses", {"input": "hi"}, VARIANT)["instructions"] == "Be brief."


def test_embeddings_get_no_sampling() -> None:
    body = {"input": "a"}
    assert request_bodies.with_variant("/v1/embeddings", body, VARIANT) is body


REMOTE = [
    {"type": "image_url", "image_url": {"url": "http://169.254.169.254/"}},
    {"type": "image_url", "image_url": "HTTPS://example.org/a.png"},
    {"type": "image_url", "image_url": {"url": "  file:///etc/passwd"}},
    {"type": "input_image", "image_url": "http://example.org"},
    {"type": "image", "source": {"type": "url", "url": "http://example.org"}},
    {"type": "document", "source": {"url": "http://example.org"}},
    {"type": "audio_url", "audio_url": {"url": "ftp://example.org"}},
]


@pytest.mark.parametrize("part", REMOTE, ids=lambda part: part["type"])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/v1/responses", "/apply-template"])
def test_no_address_is_passed_on_as_an_image(part: dict[str, Any], path: str) -> None:
    for body in ({"messages": [{"role": "user", "content": [part]}]}, {"input": [{"content": [{"content": [part]}]}]}):
        with pytest.raises(BadRequest, match="not fetched from URLs"):
            request_bodies.check(path, body)
        request_bodies.check(path, body, fetch_images=True)


def test_the_bytes_of_an_image_and_links_in_a_text_are_passed_on() -> None:
    parts = [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
        {"type": "text", "text": "see http://example.org"},
        {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
    ]
    request_bodies.check("/v1/chat/completions", {"messages": [{"role": "user", "content": parts}]})


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/completion", "/infill"])
def test_an_adapter_is_not_chosen_by_the_id_that_it_has_in_a_process(path: str) -> None:
    with pytest.raises(BadRequest, match="chosen by its name and a scale, not by an id"):
        request_bodies.check(path, {"lora": [{"id": 0, "scale": 0}]})


def test_a_body_that_is_nested_too_deeply_is_refused() -> None:
    deep: Any = {}
    for _ in range(100):
        deep = {"type": [deep]}
    with pytest.raises(BadRequest, match="nested too deeply"):
        request_bodies.check("/v1/chat/completions", {"messages": deep})
    with pytest.raises(BadRequest, match="nested too deeply"):
        request_bodies.parsed(b"[" * 100_000)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'"a"', b"\xff\xfe", b"1"])
def test_a_body_that_is_no_object_is_refused(body: bytes) -> None:
    with pytest.raises(BadRequest, match="the body is not"):
        request_bodies.parsed(body)


@pytest.mark.parametrize("body", [{}, {"model": ""}, {"model": None}, {"model": ["a"]}])
def test_a_body_without_a_model_is_refused(body: dict[str, Any]) -> None:
    with pytest.raises(BadRequest, match="names no model"):
        request_bodies.model_name(body)


def test_the_model_of_a_form_is_found() -> None:
    form = (
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="model"\r\n\r\n\x00\r\n'
        b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nwhisper\r\n--b--\r\n'
    )
    assert request_bodies.model_of_form(form, 'multipart/form-data; boundary="b"') == "whisper"
    assert request_bodies.model_of_form(form, "multipart/form-data") is None
    assert request_bodies.model_of_form(b"", "multipart/form-data; boundary=b") is None


@given(st.binary(max_size=200), st.text(max_size=40))
def test_any_form_is_taken(body: bytes, kind: str) -> None:
    request_bodies.model_of_form(body, f"multipart/form-data; boundary={kind}")


@pytest.mark.parametrize(
    ("status", "message", "becomes"),
    [
        (500, "image input is not supported - hint: you may need to provide the mmproj", 400),
        (500, "Failed to parse tools: Missing tool type", 400),
        (500, "[json.exception.parse_error.101] parse error", 400),
        (500, "Failed to decode the batch", 500),
        (500, "out of memory", 500),
        (501, "This server does not support embeddings", 501),
        (503, "Loading model", 503),
        (400, "anything", 400),
    ],
)
def test_mistakes_of_the_client_that_llama_server_answers_with_500_become_400(
    status: int, message: str, becomes: int
) -> None:
    failure = error_bodies.failure_of_answer(status, json.dumps({"error": {"message": message, "type": "x"}}).encode())
    assert (failure.status, failure.message) == (becomes, message)
    assert failure.permanent == (becomes not in (500, 503))


@given(st.binary(max_size=300), st.integers(400, 599))
def test_any_answer_with_an_error_becomes_one(body: bytes, status: int) -> None:
    failure = error_bodies.failure_of_answer(status, body)
    assert failure.message
    for protocol in ("openai", "anthropic", "ollama", "responses"):
        json.dumps(error_bodies.error_body(failure, protocol, "id"))
        assert error_bodies.stream_error(failure, protocol, "id").endswith(b"\n")


def test_errors_say_whether_to_send_the_request_again() -> None:
    full = error_bodies.failure_of(QueueFull("m", 512))
    assert error_bodies.error_headers(full) == {"Retry-After": "5"}
    gone = error_bodies.failure_of(UnknownModel("m"))
    assert error_bodies.error_headers(gone) == {"x-should-retry": "false"}
    never = error_bodies.failure_of(NeverFits("m", [("Host", 2 << 30, 1 << 30)]))
    assert error_bodies.error_headers(never) == {"x-should-retry": "false", "Retry-After": "60"}


def test_control_characters_of_names_do_not_reach_an_error_text() -> None:
    failure = error_bodies.failure_of(UnknownModel("a\x1b[31m\n"))
    assert "\x1b" not in failure.message
