"""What people are told when a server does not answer as it should, from threads and event loops alike."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from llama_runner.client.async_client import AsyncClient
from llama_runner.client.errors import (
    ConnectionLost,
    ContextExceeded,
    KeyRefused,
    RequestFailed,
    RequestRefused,
    StillLoading,
    StrangeAnswer,
    TimedOut,
    Unreachable,
)
from llama_runner.client.reply_types import Reply
from llama_runner.client.sync_client import Client
from llama_runner.core.errors import LlamaRunnerError, ServerError, UsageError
from tests.client.canned import Canned


class Shell:
    """One of the two clients, plain or streaming; they must not differ in anything that they tell."""

    def __init__(self, *, loop: bool, stream: bool) -> None:
        self.loop, self.stream = loop, stream

    def chat(self, url: str, **options: Any) -> Reply:
        return asyncio.run(self._within_a_loop(url, **options)) if self.loop else self._chat(url, **options)

    async def _within_a_loop(self, url: str, **options: Any) -> Reply:
        async with AsyncClient(url, **options) as client:
            return await (client.stream_chat("hello").finish() if self.stream else client.chat("hello"))

    def _chat(self, url: str, **options: Any) -> Reply:
        with Client(url, **options) as client:
            return client.stream_chat("hello").finish() if self.stream else client.chat("hello")

    def refused(self, url: str, **options: Any) -> LlamaRunnerError:
        with pytest.raises(LlamaRunnerError) as caught:
            self.chat(url, **options)
        return caught.value


@pytest.fixture(params=["plain", "streaming", "plain in a loop", "streaming in a loop"])
def shell(request: pytest.FixtureRequest) -> Shell:
    return Shell(loop="loop" in request.param, stream="streaming" in request.param)


def told(message: str, **more: object) -> bytes:
    return json.dumps({"error": {"message": message, **more}}).encode()


def event(**choice: object) -> bytes:
    return b"data: " + json.dumps({"choices": [choice], "model": "m"}).encode() + b"\n\n"


@pytest.mark.parametrize(
    ("status", "body", "kind", "text"),
    [
        (400, told("'messages' is required"), RequestRefused, "the server refuses the request: 'messages' is required"),
        (501, told("no embeddings here", type="not_supported_error"), RequestRefused, "no embeddings here (501)"),
        (400, told("too long", n_prompt_tokens=300, n_ctx=256), ContextExceeded, "too long"),
        (401, told("Invalid API Key"), KeyRefused, "requires an API key and refuses the given one"),
        (503, told("Loading model"), StillLoading, "is not ready: Loading model"),
        (500, told("it broke"), RequestFailed, "the server failed: it broke (500)"),
        (500, b"", RequestFailed, "the server failed: no reason given (500)"),
        (502, b"<h1>Bad gateway</h1>", RequestFailed, "<h1>Bad gateway</h1> (502)"),
        (404, told("File Not Found"), RequestRefused, "File Not Found (404)"),
        (200, b"<h1>It works!</h1>", StrangeAnswer, "is not a llama-server"),
        (200, b"[]", StrangeAnswer, "is not a llama-server"),
    ],
)
def test_an_answer_that_is_none_is_called_by_its_name(
    shell: Shell, status: int, body: bytes, kind: type[LlamaRunnerError], text: str
) -> None:
    with Canned(status, body) as server:
        error = shell.refused(server.url)
    assert type(error) is kind
    assert text in str(error)


def test_what_was_too_long_says_how_long(shell: Shell) -> None:
    with Canned(400, told("too long", n_prompt_tokens=300, n_ctx=256)) as server:
        error = shell.refused(server.url)
    assert isinstance(error, ContextExceeded)
    assert (error.tokens, error.context, error.hint) == (300, 256, "start it with --ctx-size 301 or more, or ask less")


def test_the_users_fault_and_the_servers_are_told_apart() -> None:
    assert issubclass(RequestRefused, UsageError)
    for kind in (StillLoading, RequestFailed, ConnectionLost, Unreachable, TimedOut, StrangeAnswer):
        assert issubclass(kind, ServerError)


@pytest.mark.parametrize("loop", [False, True])
@pytest.mark.parametrize("break_off", [None, b""])
def test_what_had_come_before_the_connection_broke_is_not_lost(loop: bool, break_off: bytes | None) -> None:
    first = event(delta={"content": "What was "}), event(delta={"content": "said"})
    with Canned(200, *first, *([break_off] if break_off is None else []), kind="text/event-stream") as server:
        error = Shell(loop=loop, stream=True).refused(server.url)
    assert isinstance(error, ConnectionLost)
    assert error.text == "What was said"
    assert "broke after 13 characters" in str(error)


def test_a_connection_that_breaks_before_anything_came_is_told(shell: Shell) -> None:
    with Canned(200, None) as server:
        error = shell.refused(server.url)
    assert isinstance(error, ConnectionLost | StrangeAnswer)


@pytest.mark.parametrize("loop", [False, True])
def test_an_error_in_mid_stream_is_raised(loop: bool) -> None:
    broke = b"data: " + told("it broke", code=500) + b"\n\n"
    with Canned(200, event(delta={"content": "a"}), broke, kind="text/event-stream") as server:
        error = Shell(loop=loop, stream=True).refused(server.url)
    assert isinstance(error, RequestFailed)
    assert error.said == "it broke"


def test_a_server_that_says_nothing_is_not_waited_for_for_ever(shell: Shell) -> None:
    with Canned(200, hold=True) as server:
        error = shell.refused(server.url, timeout=0.1)
    assert isinstance(error, TimedOut)
    assert "no data from" in str(error)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "localhost:1", "http://[::1"])
def test_an_unreachable_server_is_an_error_with_its_url(shell: Shell, url: str) -> None:
    error = shell.refused(url)
    assert isinstance(error, Unreachable)
    assert url in str(error)


def test_the_key_is_sent_and_never_said(shell: Shell) -> None:
    with Canned(401, told("Invalid API Key")) as server:
        error = shell.refused(server.url, api_key="s3cret")
        [(_, path, headers, _)] = server.asked
    assert path == "/v1/chat/completions"
    assert headers["Authorization"] == "Bearer s3cret"
    assert "s3cret" not in f"{error}{error.hint}{error.__dict__}"


def test_a_proxy_is_not_asked_for_what_is_on_this_machine(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    with Canned(500, told("it was asked itself")) as server:
        assert "it was asked itself" in str(shell.refused(server.url))


def test_a_proxy_is_asked_for_what_is_elsewhere(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    with Canned(500, told("the proxy was asked")) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        assert "the proxy was asked" in str(shell.refused("http://elsewhere.invalid:8080"))
        assert proxy.asked[0][1] == "http://elsewhere.invalid:8080/v1/chat/completions"


@pytest.mark.parametrize("end", ["", "/", "/v1", "/v1/"])
def test_an_address_may_be_that_of_the_openai_api(shell: Shell, end: str) -> None:
    with Canned(400, told("no")) as server:
        shell.refused(server.url + end)
        assert server.asked[0][1] == "/v1/chat/completions"


def test_a_connection_that_the_server_is_about_to_close_is_not_used_again(shell: Shell) -> None:
    """As llama-server does after a streamed answer, without saying so beforehand."""
    with Canned(500, told("no")) as server:
        shell.refused(server.url)
        [(_, _, headers, _)] = server.asked
    assert (headers["Connection"] == "close") == shell.stream
