"""Reads an answer of llama-server while it is passed on: its message, and how many tokens were reused."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from typing import Any

from llama_runner.gateway.sessions.chat_messages import CHAT, COMPLETIONS, MESSAGES, RESPONSES

Json = dict[str, Any]

_LAST = 4
"""Events at the end of a stream of which one has the counts."""


class AnswerReader:
    """Collects an answer of a path, whole or as events. What is no answer leaves it incomplete."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.is_complete = False
        self.cached: int | None = None
        """Tokens of the prompt that were not read again."""
        self.prompt: int | None = None
        """Tokens of the prompt."""
        self._whole: Json | None = None
        self._texts: dict[str, list[str]] = {"content": [], "reasoning_content": []}
        self._calls: dict[int, Json] = {}
        self._blocks: dict[int, Json] = {}

    def feed(self, data: bytes) -> None:
        """Read whole events of a stream."""
        for line in data.split(b"\n"):
            if line.startswith(b"data:"):
                self.event(line[5:])

    def feed_ends(self, data: bytes) -> None:
        """Read the events of a whole stream that have the counts, and whether it is complete."""
        data = data.rstrip(b"\n")
        first = data.split(b"\n\n", 1)[:1] if self.path == MESSAGES else []
        self.feed(b"\n".join(first + data.rsplit(b"\n\n", _LAST)[-_LAST:]))

    def event(self, data: bytes) -> None:
        """Read the data of one event."""
        if data.strip() == b"[DONE]":
            self.is_complete = True
            return
        with suppress(ValueError, RecursionError, AttributeError, LookupError, TypeError):
            found = json.loads(data)
            if isinstance(found, dict):
                self._read_event(found)

    def whole(self, body: bytes) -> None:
        """Read a whole answer."""
        try:
            found = json.loads(body)
            if isinstance(found, dict):
                self._whole = found
                self._count(found)
                self.is_complete = self._items() is not None
        except (ValueError, RecursionError, AttributeError, LookupError, TypeError):
            return

    def _read_event(self, event: Json) -> None:
        kind = event.get("type")
        if self.path == RESPONSES:
            if kind in ("response.completed", "response.incomplete"):
                self._whole = event["response"]
                self._count(event["response"])
                self.is_complete = True
        elif self.path == MESSAGES:
            self._read_anthropic(str(kind), event)
        else:
            self._read_chunk(event)

    def _read_chunk(self, event: Json) -> None:
        self._count(event)
        if self.path in COMPLETIONS or "content" in event:
            choices = event.get("choices") or [{}]
            self._texts["content"].append(choices[0].get("text") or event.get("content") or "")
            self.is_complete = self.is_complete or bool(event.get("stop"))
            return
        for choice in event.get("choices") or ():
            if choice.get("index", 0) != 0:
                continue
            delta = choice.get("delta") or {}
            for name, parts in self._texts.items():
                if text := delta.get(name):
                    parts.append(text)
            for call in delta.get("tool_calls") or ():
                own = self._calls.setdefault(call.get("index", 0), {"type": "function", "function": {"arguments": ""}})
                own |= {name: call[name] for name in ("id", "type") if call.get(name)}
                function = call.get("function") or {}
                own["function"] |= {"name": function["name"]} if function.get("name") else {}
                own["function"]["arguments"] += function.get("arguments") or ""
            self.is_complete = self.is_complete or choice.get("finish_reason") is not None

    def _read_anthropic(self, kind: str, event: Json) -> None:
        if kind == "message_start":
            self._count(event["message"])
        elif kind == "content_block_start":
            self._blocks[event["index"]] = {**event["content_block"], "json": ""}
        elif kind == "content_block_delta":
            block, delta = self._blocks[event["index"]], event["delta"]
            for name, member in (("text", "text"), ("thinking", "thinking"), ("partial_json", "json")):
                if name in delta:
                    block[member] = block.get(member, "") + delta[name]
        elif kind == "message_delta":
            self._count(event)
        elif kind == "message_stop":
            self.is_complete = True

    def _count(self, found: Json) -> None:
        usage, timings = found.get("usage") or {}, found.get("timings") or {}
        if "cache_n" in timings:
            self.cached, self.prompt = timings["cache_n"], timings["cache_n"] + timings["prompt_n"]
        elif "cache_read_input_tokens" in usage:
            self.cached = usage["cache_read_input_tokens"]
            self.prompt = self.cached + usage.get("input_tokens", 0)
        elif "prompt_tokens" in usage:
            self.cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens")
            self.prompt = usage["prompt_tokens"]
        elif "input_tokens_details" in usage:
            self.cached, self.prompt = usage["input_tokens_details"].get("cached_tokens"), usage["input_tokens"]

    def items(self) -> list[Json] | None:
        """Return the answer as messages of its protocol; None where it is not complete."""
        try:
            return self._items() if self.is_complete else None
        except (AttributeError, LookupError, TypeError, ValueError):
            return None

    def _items(self) -> list[Json] | None:
        if self.path == RESPONSES:
            return list(self._whole["output"]) if self._whole is not None else None
        if self.path == MESSAGES:
            blocks = [_block(each) for _, each in sorted(self._blocks.items())]
            return [{"role": "assistant", "content": blocks if self._whole is None else self._whole["content"]}]
        if self._whole is not None and self.path in COMPLETIONS:
            choices = self._whole.get("choices") or [{}]
            return [{"role": "assistant", "content": choices[0].get("text") or self._whole.get("content") or ""}]
        if self._whole is not None:
            return [self._whole["choices"][0]["message"]]
        message: Json = {"role": "assistant", "content": "".join(self._texts["content"])}
        if self._texts["reasoning_content"]:
            message["reasoning_content"] = "".join(self._texts["reasoning_content"])
        if self._calls:
            message["tool_calls"] = [call for _, call in sorted(self._calls.items())]
        return [message]


_ENDS = {
    CHAT: re.compile(rb'"finish_reason": ?"'),
    MESSAGES: re.compile(rb'"message_stop"'),
    RESPONSES: re.compile(rb'"response\.(?:completed|incomplete)"'),
}
"""What the event has that completes an answer. Quotes in a text are escaped."""


def may_end_in(path: str, data: bytes) -> bool:
    """Return whether an answer of a path may be complete with these events. They are not read for it."""
    return path in _ENDS and _ENDS[path].search(data) is not None


def items_of_events(path: str, data: bytes) -> list[Json] | None:
    """Return the answer of a whole stream as messages of its protocol; None where it is not complete."""
    reader = AnswerReader(path)
    reader.feed(data)
    return reader.items()


def _block(block: Json) -> Json:
    found = {name: value for name, value in block.items() if name != "json"}
    if block.get("type") == "tool_use":
        found["input"] = json.loads(block["json"]) if block["json"] else {}
    return found
