"""Holding a real server from Python, with nothing but this package."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from llama_runner import Client, Runner, ServerOptions
from llama_runner.client.errors import ConnectionLost, ContextExceeded, KeyRefused, RequestRefused, Unreachable
from llama_runner.core.errors import Interrupted
from llama_runner.core.events import Event
from llama_runner.demo import EXAMPLES
from tests.e2e.serving import is_running

QUESTION, ANSWER = EXAMPLES[0]
ENDLESS: Any = {"temperature": 0, "max_tokens": 10_000_000, "more": {"ignore_eos": True}}
"""With ``--context-shift``: until somebody ends it."""


pytestmark = pytest.mark.llama_model(demo=True, extra=("--metrics", "-np", "2", "--context-shift"))


def test_a_question_is_answered(llama_server: Client) -> None:
    reply = llama_server.chat(QUESTION, temperature=0)
    assert reply.text == ANSWER
    assert reply.finish_reason == "stop"
    assert reply.usage is not None
    assert reply.timings is not None
    assert reply.usage.completion_tokens == reply.timings.tokens > 10
    assert reply.timings.tokens_per_second > 0


def test_a_conversation_goes_on(llama_server: Client) -> None:
    first = llama_server.chat("hello", temperature=0, system="be kind")
    messages = [{"role": "user", "content": "hello"}, first.message, {"role": "user", "content": QUESTION}]
    assert llama_server.chat(messages, temperature=0).text


def test_a_streamed_answer_is_the_same_answer(llama_server: Client) -> None:
    with llama_server.stream_chat(QUESTION, temperature=0) as stream:
        pieces = [piece.text for piece in stream]
    assert "".join(pieces) == stream.text == ANSWER
    assert len(pieces) > 10
    whole = stream.finish()
    assert (whole.text, whole.finish_reason) == (ANSWER, "stop")
    assert whole.usage is not None
    assert whole.timings is not None


def test_a_text_is_continued_as_it_stands(llama_server: Client) -> None:
    plain = llama_server.complete("A step is", temperature=0, max_tokens=5, seed=1)
    assert plain.finish_reason == "length"
    assert llama_server.stream_complete("A step is", temperature=0, max_tokens=5, seed=1).finish().text == plain.text


def test_an_answer_keeps_a_schema(llama_server: Client) -> None:
    reply = llama_server.chat("hello", temperature=0, schema={"enum": ["yes", "no"]}, max_tokens=64)
    assert reply.text in ('"yes"', '"no"')


def test_what_the_server_says_of_itself(llama_server: Client) -> None:
    props = llama_server.props()
    assert (props.model, props.slots, props.context) == ("demo:q4_k_m", 2, 512)
    assert props.path.endswith("model.q4_k_m.gguf")
    assert "<|start_header_id|>" in props.template
    before = llama_server.metrics()
    llama_server.chat(QUESTION, temperature=0, max_tokens=3)
    assert llama_server.metrics().tokens >= before.tokens + 3
    assert [slot.context for slot in llama_server.slots()] == [512, 512]
    assert llama_server.openai_base_url == f"{llama_server.url}/v1"


def test_what_the_server_cannot_do_is_told_in_its_words(llama_server: Client) -> None:
    with pytest.raises(RequestRefused, match="--embeddings"):
        llama_server.embed(["hello"])
    with pytest.raises(ContextExceeded) as caught:
        llama_server.chat("hello " * 2000)
    assert caught.value.context == 512
    with pytest.raises(RequestRefused, match="'content'"):
        llama_server.chat([{"role": "user"}])
    with pytest.raises(AttributeError, match="no attribute 'chatter'"):
        llama_server.chatter  # type: ignore[attr-defined]  # noqa: B018 - that is the point


def test_it_may_be_used_from_many_threads(llama_server: Client) -> None:
    questions = EXAMPLES[:8]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda pair: llama_server.chat(pair[0], temperature=0).text, questions))
    assert answers == [answer for _, answer in questions]


def test_it_may_be_used_where_an_event_loop_runs_as_in_a_notebook(llama_server: Client) -> None:
    async def cell() -> str:
        return llama_server.chat(QUESTION, temperature=0).text

    assert asyncio.run(cell()) == ANSWER


@pytest.mark.parametrize("close", [True, False])
def test_a_reader_that_goes_away_in_mid_stream_leaves_the_slot_to_others(llama_server: Client, close: bool) -> None:
    with Client(llama_server.url) as reader, Client(llama_server.url, timeout=60) as other:
        streams = [reader.stream_chat(QUESTION, **ENDLESS) for _ in range(2)]
        for stream in streams:
            next(iter(stream))
        if close:
            for stream in streams:
                stream.close()
        else:
            reader.close()
        assert other.chat(QUESTION, temperature=0).text == ANSWER
        for stream in streams:
            stream.close()


def test_a_server_that_dies_in_mid_stream_is_told_with_what_had_come(binaries: Path) -> None:
    with Runner(binaries).serve(demo=True, server=ServerOptions(port=0, extra=("--context-shift",))) as server:
        stream = server.stream_chat(QUESTION, **ENDLESS)
        first = next(iter(stream)).text
        server.request_stop()
        server.request_stop()  # a second time kills
        with pytest.raises(ConnectionLost) as caught:
            stream.finish()
        assert caught.value.text.startswith(first)
        server.wait()
        with pytest.raises(Unreachable):
            server.chat("hello")


def test_the_key_of_a_server_is_used(binaries: Path) -> None:
    options = ServerOptions(port=0, api_key="auto")
    with Runner(binaries).serve(demo=True, server=options) as server:
        assert server.chat(QUESTION, temperature=0).text == ANSWER
        with Client(server.url) as stranger, pytest.raises(KeyRefused):
            stranger.chat("hello")


def test_a_server_that_was_found_running_is_talked_to_as_well(binaries: Path) -> None:
    runner, options = Runner(binaries), ServerOptions(port=0, ctx_size=300)
    with runner.serve(demo=True, server=options) as server, runner.ensure_ready(demo=True, server=options) as found:
        assert (found.pid, found.url) == (server.pid, server.url)
        assert found.chat(QUESTION, temperature=0).text == ANSWER
    assert found.state == "stopped"


def test_a_server_at_a_socket_is_talked_to(binaries: Path, tmp_path: Path) -> None:
    options = ServerOptions(host=str(tmp_path / "a.sock"))
    with Runner(binaries).serve(demo=True, server=options) as server:
        assert server.url.startswith("unix://")
        assert server.chat(QUESTION, temperature=0).text == ANSWER


def test_a_loop_goes_on_while_a_server_starts_answers_and_stops(binaries: Path) -> None:
    heard: list[Event] = []

    async def main() -> int:
        runner = Runner(binaries, on_event=heard.append)
        async with runner.serve_async(demo=True, server=ServerOptions(port=0)) as server:
            reply, props = await asyncio.gather(server.chat(QUESTION, temperature=0), server.props())
            assert reply.text == ANSWER
            assert props.model == "demo:q4_k_m"
            async with server.stream_chat(QUESTION, temperature=0) as stream:
                pieces = [piece.text async for piece in stream]
            assert "".join(pieces) == ANSWER
            with pytest.raises(RequestRefused, match="--embeddings"):
                await server.embed(["hello"])
            return server.server.pid

    pid = asyncio.run(main())
    assert not is_running(pid)
    assert [event.name for event in heard][-3:] == ["server_started", "server_ready", "server_stopped"]


def test_a_start_that_is_cancelled_leaves_no_server(binaries: Path) -> None:
    heard: list[Event] = []
    started = threading.Event()

    def listen(event: Event) -> None:
        heard.append(event)
        if event.name == "server_started":
            started.set()

    async def main() -> None:
        runner = Runner(binaries, on_event=listen)
        serving = asyncio.ensure_future(runner.serve_async(demo=True, server=ServerOptions(port=0)).__aenter__())
        await asyncio.to_thread(started.wait, 60)
        serving.cancel()
        with pytest.raises((asyncio.CancelledError, Interrupted)):
            await serving

    asyncio.run(main())
    assert heard[-1].name == "server_stopped"
