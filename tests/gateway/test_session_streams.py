"""The answer of a stream is read once, where it ends, and not event by event."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from llama_runner.gateway.anthropic_messages import MessageStream
from llama_runner.gateway.sessions.append_mode import StoredTurn
from llama_runner.gateway.sessions.session_turn import SessionTurn
from llama_runner.sessions.history import History
from llama_runner.sessions.session_name import SessionName

if TYPE_CHECKING:
    from pathlib import Path

TEXT = 'it ends with "finish_reason":"stop", {"type":"message_stop"} or "response.completed"\n\ndata: [DONE]'
"""What an answer may say of how answers end."""
NAME = SessionName("loopback", "chat 1", "loopback")


def event(data: dict[str, Any], name: str = "") -> bytes:
    """Return an event as llama-server writes it."""
    text = json.dumps(data, separators=(",", ":"))
    return (f"event: {name}\n" if name else "").encode() + f"data: {text}\n\n".encode()


def chunk(content: str | None, reason: str | None = None) -> bytes:
    delta = {} if content is None else {"content": content}
    return event(
        {"choices": [{"finish_reason": reason, "index": 0, "delta": delta}], "object": "chat.completion.chunk"}
    )


def part(text: str) -> bytes:
    delta = {"type": "text_delta", "text": text}
    return event({"type": "content_block_delta", "index": 0, "delta": delta}, "content_block_delta")


BLOCK = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
MESSAGE = {"type": "message_start", "message": {"usage": {"input_tokens": 3}}}
SAID = [{"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": f"so: {TEXT}"}]}]
STREAMS: dict[str, tuple[list[bytes], bytes, list[bytes]]] = {
    "/v1/chat/completions": (
        [chunk(""), chunk("so: "), chunk(TEXT)],
        chunk(None, "stop"),
        [event({"choices": [], "usage": {"prompt_tokens": 3}}), b"data: [DONE]\n\n"],
    ),
    "/v1/messages": (
        [event(MESSAGE, "message_start"), event(BLOCK, "content_block_start"), part("so: "), part(TEXT)],
        event({"type": "message_stop"}, "message_stop"),
        [],
    ),
    "/v1/responses": (
        [event({"type": "response.output_text.delta", "delta": each}) for each in ("so: ", TEXT)],
        event({"type": "response.completed", "response": {"id": "resp_a", "output": SAID}}),
        [],
    ),
}


def turn_of(path: str, directory: Path) -> tuple[SessionTurn, History]:
    """Return a turn of a session with a history, and that history."""
    history = History(directory, NAME.digest)
    asked = [{"role": "user", "content": "hi"}]
    turn = history.begin({}, parent=None, protocol="chat", model="one", messages=asked)
    return SessionTurn(path, {"messages": asked}, None, StoredTurn(history, NAME, turn)), history


def answer_in(history: History) -> str | None:
    """Return the text of the last answer."""
    _, turns = history.read()
    answer = next(reversed(turns.values())).answer
    if answer is None:
        return None
    content = answer[0]["content"]
    return str(content) if isinstance(content, str) else str(content[0]["text"])


@pytest.mark.parametrize("path", STREAMS)
def test_an_answer_is_written_down_where_it_ends_and_not_where_its_text_says_so(path: str, tmp_path: Path) -> None:
    events, end, after = STREAMS[path]
    turn, history = turn_of(path, tmp_path)
    for each in events:
        turn.feed(each)
        assert not turn.is_to_store, each
    turn.feed(end)
    assert turn.is_to_store
    assert answer_in(history) is None
    asyncio.run(turn.store())
    assert answer_in(history) == f"so: {TEXT}"
    for each in after:
        turn.feed(each)
        assert not turn.is_to_store
    turn.ended()


def test_another_choice_that_ends_first_does_not_end_the_answer(tmp_path: Path) -> None:
    turn, history = turn_of("/v1/chat/completions", tmp_path)
    other = event({"choices": [{"finish_reason": "stop", "index": 1, "delta": {}}]})
    turn.feed(chunk("so") + other)
    asyncio.run(turn.store())
    assert answer_in(history) is None
    turn.feed(chunk(" far") + chunk(None, "stop"))
    assert turn.is_to_store
    asyncio.run(turn.store())
    assert answer_in(history) == "so far"


def test_the_end_of_a_message_that_was_a_chat_completion_is_seen(tmp_path: Path) -> None:
    turn, history = turn_of("/v1/messages", tmp_path)
    stream = MessageStream("one")
    turn.feed(stream.translated(chunk("hello") + chunk(None, "stop")))
    assert not turn.is_to_store
    end = stream.translated(b"data: [DONE]\n\n")
    assert turn.feed(end) == end
    asyncio.run(turn.store())
    assert answer_in(history) == "hello"
