"""Prompts and answers in the access log: only where the configuration asks for them, and never a secret."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from llama_runner.gateway.prompt_log import answer_text, logged_texts
from tests.gateway.conftest import TWO, Start

KEY = "the-key-of-a-client-of-this-test"
LIMITS = f'[keys.someone]\nkey = "{KEY}"\n'
WITH_KEYS = '[gateway]\nlimits_file = "limits.toml"\n'

ASKED: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": f"my PIN is 4711, and {KEY}"}]},
    "/v1/messages": {"system": f"my PIN is 4711, and {KEY}", "messages": [{"role": "user", "content": "hi"}]},
    "/v1/responses": {"input": f"my PIN is 4711, and {KEY}"},
    "/api/chat": {"messages": [{"role": "user", "content": f"my PIN is 4711, and {KEY}"}]},
    "/api/generate": {"prompt": f"my PIN is 4711, and {KEY}"},
}


@pytest.mark.parametrize("with_prompts", [False, True])
def test_prompts_and_answers_are_in_the_log_only_where_the_configuration_asks_for_them(
    gateway: Start, tmp_path: Path, with_prompts: bool
) -> None:
    (tmp_path / "limits.toml").write_text(LIMITS, encoding="utf-8")
    (tmp_path / "limits.toml").chmod(0o600)
    running = gateway(WITH_KEYS + ("log_prompts = true\n" if with_prompts else "") + TWO)
    key = {"Authorization": f"Bearer {KEY}"}
    for path, body in ASKED.items():
        for stream in (True, False):
            asked = {**body, "model": "one", "stream": stream, "max_tokens": 4, "options": {"num_predict": 4}}
            answer = httpx.post(running.url + path, json=asked, headers=key, timeout=60)
            assert answer.status_code == 200
            assert answer.text
    lines = running.wait_for(lambda: len(found := [each for each in running.lines if "path" in each]) == 10 and found)
    text = json.dumps(running.lines)
    assert KEY not in text
    assert all(line["client"] == "someone" for line in lines)
    assert [("prompt" in line, "answer" in line) for line in lines] == [(with_prompts, with_prompts)] * 10
    assert text.count("4711") == (10 if with_prompts else 0)
    if with_prompts:
        streamed, whole = lines[0]["answer"], lines[1]["answer"]
        assert all(line["answer"] for line in lines)
        assert isinstance(streamed, str)
        assert isinstance(whole, str)


def test_what_is_wrong_about_a_request_does_not_put_its_key_into_the_log(gateway: Start) -> None:
    running = gateway("[gateway]\nlog_prompts = true\n" + TWO)
    for path in ("/v1/chat/completions", "/api/chat", "/nowhere"):
        for content in (b"{", b'{"model": 5}', b'{"model": "nowhere"}', b"\xff" * 100):
            assert httpx.post(running.url + path, content=content, headers={"x-api-key": KEY}).status_code >= 400
    running.wait_for(lambda: len([each for each in running.lines if "path" in each]) == 12)
    assert KEY not in json.dumps(running.lines)


def lines(*values: object, event: bool = True) -> bytes:
    return b"".join((b"data: " if event else b"") + json.dumps(value).encode() + b"\n\n" for value in values)


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (lines({"choices": [{"delta": {"content": None}}]}, {"choices": [{"delta": {"content": "ab"}}]}), "ab"),
        (lines({"choices": [{"delta": {"reasoning_content": "hm"}}]}) + b"data: [DONE]\n\n", "hm"),
        (lines({"choices": [{"message": {"role": "assistant", "content": "ab"}}]}, event=False), "ab"),
        (lines({"choices": [{"message": {"tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}}]}), "{}"),
        (lines({"type": "content_block_delta", "delta": {"type": "text_delta", "text": "a"}}), "a"),
        (
            lines(
                {"type": "response.output_text.delta", "delta": "a"}, {"type": "response.output_text.done", "text": "a"}
            ),
            "a",
        ),
        (lines({"output": [{"type": "message", "content": [{"type": "output_text", "text": "a"}]}]}, event=False), "a"),
        (lines({"message": {"content": "a"}}, {"message": {"content": "b"}, "done": True}, event=False), "ab"),
        (lines({"response": "a"}, event=False), "a"),
        (lines({"object": "list", "data": [{"embedding": [0.5]}]}, event=False), ""),
        (b"data: {", ""),
        (b"[" * 100_000, ""),
        (b"\xff\xfe", ""),
    ],
)
def test_the_text_of_an_answer_is_found_in_every_protocol(answer: bytes, text: str) -> None:
    assert answer_text(answer) == text


def test_media_and_credentials_are_left_out() -> None:
    image: dict[str, Any] = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 1000}}
    content = [{"type": "text", "text": f"https://me:hunter2@example.org {KEY}"}, image]
    body = {"model": "m", "api_key": "secret", "messages": [{"content": content, "images": ["B" * 1000]}]}
    logged = json.dumps(logged_texts(body, lines({"response": KEY}), KEY))
    for secret in ("hunter2", KEY, "secret", "AAAA", "BBBB"):
        assert secret not in logged
    assert "example.org" in logged


def test_texts_are_cut_and_deep_nesting_ends() -> None:
    deep: Any = "x"
    for _ in range(500):
        deep = [deep]
    found = logged_texts({"prompt": "y" * (1 << 20), "messages": deep}, b"", None)
    assert len(json.dumps(found)) < 1 << 17


def test_of_a_long_conversation_the_newest_messages_are_logged() -> None:
    messages = [{"role": "user", "content": f"{number} " + "http://me:hunter2@b/ " * 1000} for number in range(600)]
    logged = logged_texts({"messages": messages, "tools": [{}] * 1_000_000}, b"", None)["prompt"]
    assert len(json.dumps(logged)) < 1 << 19
    shown = logged["messages"]
    assert shown[0] == f"… ({601 - len(shown)} more)"
    assert str(shown[-1]["content"]).startswith("599 http://b/ ")
    assert len(shown) > 5
