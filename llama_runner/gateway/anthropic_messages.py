"""Anthropic's Messages API as chat completions, converted as llama-server does it. Pure.

llama-server serves ``/v1/messages`` itself. It drops the members that it does not know there, the list of adapters too:
models with adapters get chat completions. Sessions are saved as chats. Thinking comes before text, and text before tool
calls. See ``tools/server/server-chat.cpp`` of llama.cpp.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from llama_runner.gateway.errors import BadRequest, ServerLost

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Json = dict[str, Any]

_PASSED = ("temperature", "top_p", "top_k", "stream", "chat_template_kwargs")
_STOP_REASONS = {"stop": "end_turn", "tool_calls": "tool_use", "length": "max_tokens"}
_TOOL_CHOICES = {"auto": "auto", "any": "required", "tool": "required", "none": "none"}
_DEFAULT_TOKENS = 4096
"""What llama-server takes where a request has no ``max_tokens``."""
_BILLING = "x-anthropic-billing-header:"


def chat_request(body: Mapping[str, Any], sampling: Mapping[str, Any]) -> Json:
    """Return the chat completion that a request for a message stands for. ``BadRequest``.

    ``sampling`` are members that the name of the model added; llama-server takes them in a chat completion only.
    """
    messages = body.get("messages")
    if not isinstance(messages, list) or not all(isinstance(each, dict) for each in messages):
        raise BadRequest("messages is not a list of messages", field="messages")
    found: Json = {name: body[name] for name in (*_PASSED, *sampling) if name in body}
    found["model"] = body.get("model")
    start = [{"role": "system", "content": _system(body["system"])}] if body.get("system") is not None else []
    found["messages"] = start + [converted for each in messages for converted in chat_messages(each)]
    if not found.keys() & {"n_predict", "max_tokens"}:
        found["max_tokens"] = body.get("max_tokens", _DEFAULT_TOKENS)
    if "stop_sequences" in body:
        found["stop"] = body["stop_sequences"]
    if isinstance(tools := body.get("tools"), list):
        found["tools"] = [_tool(each) for each in tools if isinstance(each, dict)]
    choice = body.get("tool_choice")
    if isinstance(choice, dict) and (chosen := _TOOL_CHOICES.get(str(choice.get("type")))) is not None:
        found["tool_choice"] = chosen
    if isinstance(thinking := body.get("thinking"), dict) and thinking.get("type") == "enabled":
        found["thinking_budget_tokens"] = thinking.get("budget_tokens", 10000)
    if body.get("stream"):
        found["stream_options"] = {"include_usage": True}
    return found


def _text(value: object) -> str:
    """Return a text, or the texts of blocks."""
    if isinstance(value, str):
        return value
    blocks = value if isinstance(value, list) else []
    return "".join(
        str(each.get("text", "")) for each in blocks if isinstance(each, dict) and each.get("type") == "text"
    )


def _system(value: object) -> str:
    """Return a system prompt without the stamp of Claude Code, which is another one in each request."""
    blocks = [{"type": "text", "text": value}] if isinstance(value, str) else value
    texts = [_text([each]) for each in blocks] if isinstance(blocks, list) else []
    return "".join(
        re.sub(r"cch=.{5};", "cch=fffff;", text, count=1) if text.startswith(_BILLING) else text for text in texts
    )


def chat_messages(message: Json) -> list[Json]:
    """Return what one message is in a chat: results of tools are messages of their own, after the others."""
    content = message.get("content")
    if not isinstance(content, list):
        return [message] if content is not None or message.get("role") != "assistant" else []
    blocks = [each for each in content if isinstance(each, dict)]
    parts = [part for each in blocks if (part := _part(each)) is not None]
    calls = [_call(each) for each in blocks if each.get("type") == "tool_use"]
    thinking = "".join(str(each.get("thinking", "")) for each in blocks if each.get("type") == "thinking")
    found: list[Json] = []
    if parts or calls or thinking:
        found.append({"role": message.get("role"), "content": parts or ""})
        found[0] |= {"tool_calls": calls} if calls else {}
        found[0] |= {"reasoning_content": thinking} if thinking else {}
    return found + [_result(each) for each in blocks if each.get("type") == "tool_result"]


def _part(block: Json) -> Json | None:
    if block.get("type") == "text":
        return {"type": "text", "text": block.get("text", "")}
    if block.get("type") != "image":
        return None
    source = block.get("source")
    source = source if isinstance(source, dict) else {}
    data = f"data:{source.get('media_type', 'image/jpeg')};base64,{source.get('data', '')}"
    url = data if source.get("type") == "base64" else source.get("url", "")
    return {"type": "image_url", "image_url": {"url": url}}


def _call(block: Json) -> Json:
    arguments = json.dumps(block.get("input") or {}, ensure_ascii=False, separators=(",", ":"))
    return {
        "id": block.get("id", ""),
        "type": "function",
        "function": {"name": block.get("name", ""), "arguments": arguments},
    }


def _result(block: Json) -> Json:
    content = block.get("content")
    found: Any = _text(content)
    if isinstance(content, list) and any(isinstance(each, dict) and each.get("type") == "image" for each in content):
        found = [part for each in content if isinstance(each, dict) and (part := _part(each)) is not None]
    return {"role": "tool", "tool_call_id": block.get("tool_use_id", ""), "content": found}


def _tool(tool: Json) -> Json:
    described = {"name": tool.get("name", ""), "description": tool.get("description", "")}
    return {"type": "function", "function": {**described, "parameters": tool.get("input_schema", {})}}


def message_of(answer: Json, model: str) -> Json:
    """Return the message that a chat completion is. Raises ``LookupError`` and the like for what is none."""
    choice = answer["choices"][0]
    said = choice["message"]
    content: list[Json] = []
    if said.get("reasoning_content"):
        content.append({"type": "thinking", "thinking": said["reasoning_content"], "signature": ""})
    if said.get("content"):
        content.append({"type": "text", "text": said["content"]})
    for call in said.get("tool_calls") or ():
        function = call["function"]
        content.append({"type": "tool_use", "id": call["id"], "name": function["name"], "input": _arguments(function)})
    return {
        "id": answer["id"],
        "type": "message",
        "role": "assistant",
        "content": content,
        "model": model,
        "stop_reason": _STOP_REASONS.get(choice.get("finish_reason"), "end_turn"),
        "stop_sequence": None,
        "usage": _usage(answer.get("usage") or {}),
    }


def message_bytes(answer: bytes, model: str) -> bytes:
    """Return the message that a chat completion is, as JSON; ``ServerLost`` for what is none."""
    try:
        return json.dumps(message_of(json.loads(answer), model)).encode()
    except (LookupError, TypeError, ValueError, AttributeError):
        raise ServerLost(model) from None


def _arguments(function: Json) -> Json:
    try:
        found = json.loads(function.get("arguments") or "{}")
    except ValueError:
        found = {}
    return found if isinstance(found, dict) else {}


def _usage(usage: Json) -> Json:
    reused = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    return {
        "cache_read_input_tokens": reused,
        "input_tokens": (usage.get("prompt_tokens") or 0) - reused,
        "output_tokens": usage.get("completion_tokens") or 0,
    }


class MessageStream:
    """Turns the events of a chat completion into those of a message."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._started = False
        self._block: tuple[str, int] | None = None
        """Kind of the open block, and the number of its tool call."""
        self._index = -1
        self._reason = "end_turn"
        self._usage: Json = {}

    def translated(self, data: bytes) -> bytes:
        """Return the events for complete events of a chat completion."""
        found: list[bytes] = []
        for line in data.splitlines():
            kind, _, text = line.partition(b": ")
            if kind != b"data":
                continue
            if text.strip() == b"[DONE]":
                found += self.finish()
            elif isinstance(chunk := json.loads(text), dict) and "error" in chunk:
                error = chunk["error"] if isinstance(chunk["error"], dict) else {}
                failure = {"type": "api_error", "message": str(error.get("message", "the server failed"))}
                found.append(_event({"type": "error", "error": failure}))
            else:
                found += self.feed(chunk)
        return b"".join(found)

    def feed(self, chunk: Json) -> list[bytes]:
        """Return the events for one chunk."""
        return [_event(each) for each in self._events(chunk)]

    def finish(self) -> list[bytes]:
        """Return the events at the end of the stream."""
        delta = {"stop_reason": self._reason, "stop_sequence": None}
        ends: list[Json] = [*self._close(), {"type": "message_delta", "delta": delta, "usage": _usage(self._usage)}]
        return [_event(each) for each in (*ends, {"type": "message_stop"})]

    def _events(self, chunk: Json) -> Iterator[Json]:
        if not self._started:
            self._started = True
            message = {"id": chunk.get("id", ""), "type": "message", "role": "assistant", "content": []}
            message |= {"model": self._model, "stop_reason": None, "stop_sequence": None, "usage": _usage({})}
            yield {"type": "message_start", "message": message}
        self._usage = chunk.get("usage") or self._usage
        for choice in chunk.get("choices") or ():
            delta = choice.get("delta") or {}
            if text := delta.get("reasoning_content"):
                yield from self._piece("thinking", 0, {"thinking": ""}, {"type": "thinking_delta", "thinking": text})
            if text := delta.get("content"):
                yield from self._piece("text", 0, {"text": ""}, {"type": "text_delta", "text": text})
            for call in delta.get("tool_calls") or ():
                function = call.get("function") or {}
                start = {"id": call.get("id", ""), "name": function.get("name", ""), "input": {}}
                piece = {"type": "input_json_delta", "partial_json": function.get("arguments") or ""}
                yield from self._piece("tool_use", int(call.get("index") or 0), start, piece)
            if reason := choice.get("finish_reason"):
                self._reason = _STOP_REASONS.get(reason, "end_turn")

    def _piece(self, kind: str, number: int, start: Json, delta: Json) -> Iterator[Json]:
        if self._block != (kind, number):
            yield from self._close()
            self._block, self._index = (kind, number), self._index + 1
            yield {"type": "content_block_start", "index": self._index, "content_block": {"type": kind, **start}}
        yield {"type": "content_block_delta", "index": self._index, "delta": delta}

    def _close(self) -> Iterator[Json]:
        if self._block is None:
            return
        if self._block[0] == "thinking":
            delta = {"type": "signature_delta", "signature": ""}
            yield {"type": "content_block_delta", "index": self._index, "delta": delta}
        yield {"type": "content_block_stop", "index": self._index}
        self._block = None


def _event(data: Json) -> bytes:
    return f"event: {data['type']}\ndata: {json.dumps(data)}\n\n".encode()
