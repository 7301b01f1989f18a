"""Puts the pieces of a streamed reply together: texts, thoughts, tool calls. Pure."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from llama_runner.client.errors import StrangeAnswer, response_error
from llama_runner.client.reply_parsing import error_code_of, timings_of, usage_of
from llama_runner.client.reply_types import Reply, ReplyChunk, ToolCall

if TYPE_CHECKING:
    from llama_runner.client.reply_types import Json

_DONE = "[DONE]"


class StreamAccumulator:
    """Accumulates the events of a streamed reply."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._texts: list[str] = []
        self._thoughts: list[str] = []
        self._calls: dict[int, dict[str, str]] = {}
        self._finish = ""
        self._last: Json = {}
        self.complete = False

    @property
    def text(self) -> str:
        """The text received so far."""
        return "".join(self._texts)

    def feed(self, data: str) -> ReplyChunk | None:
        """Add the data of one server-sent event and return its chunk, None without text. Raises the server's errors."""
        if data.strip() == _DONE:
            self.complete = True
            return None
        try:
            event = json.loads(data)
            if "error" in event:
                raise response_error(self._url, error_code_of(event["error"]), event, data)
            self._last |= event
            choice: Json = next(iter(event["choices"]), {})
            delta = choice.get("delta") or {"content": choice.get("text")}
            self._finish = choice.get("finish_reason") or self._finish
            for call in delta.get("tool_calls") or ():
                self._call(call)
            piece = ReplyChunk(delta.get("content") or "", delta.get("reasoning_content") or "")
        except (LookupError, TypeError, ValueError, AttributeError):
            raise StrangeAnswer(self._url, data) from None
        self._texts.append(piece.text)
        self._thoughts.append(piece.reasoning)
        return piece if piece.text or piece.reasoning else None

    def _call(self, part: Json) -> None:
        call = self._calls.setdefault(part.get("index", 0), {"id": "", "name": "", "arguments": ""})
        function = part.get("function") or {}
        call["id"] = part.get("id") or call["id"]
        call["name"] += function.get("name") or ""
        call["arguments"] += function.get("arguments") or ""

    @property
    def reply(self) -> Reply:
        """The reply, as if it had not been streamed."""
        return Reply(
            self.text,
            "".join(self._thoughts),
            tuple(ToolCall(**call) for _, call in sorted(self._calls.items())),
            self._finish,
            self._last.get("model", ""),
            usage_of(self._last),
            timings_of(self._last),
            self._last,
        )
