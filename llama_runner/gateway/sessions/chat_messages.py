"""Requests and answers of each protocol as those of chat completions, as llama-server converts them. Pure.

See ``tools/server/server-chat.cpp`` of llama.cpp. What is converted otherwise there costs time and no answer: the
saved tokens are not a prefix of the next prompt.
"""

from __future__ import annotations

from typing import Any

from llama_runner.gateway.anthropic_messages import chat_messages, chat_request
from llama_runner.gateway.errors import BadRequest

Json = dict[str, Any]

CHAT, MESSAGES, RESPONSES = "/v1/chat/completions", "/v1/messages", "/v1/responses"
COMPLETIONS = ("/v1/completions", "/completion")
GENERATING = (CHAT, MESSAGES, RESPONSES, *COMPLETIONS, "/infill")
"""Paths of llama-server that take a slot."""
_OF_ANSWERING = (
    *("stream", "stream_options", "max_tokens", "max_completion_tokens", "max_output_tokens", "n_predict", "n"),
    *("store", "previous_response_id", "metadata", "user"),
)
"""Members of a body that a prompt does not depend on."""


def chat_body(path: str, body: Json) -> Json | None:
    """Return a request as the body of chat completions; None where it is no chat, or cannot be converted."""
    try:
        if path == CHAT:
            found = body
        elif path == MESSAGES:
            found = chat_request(body, {})
        elif path == RESPONSES:
            found = _of_responses(body)
        else:
            return None
    except (AttributeError, BadRequest, LookupError, TypeError):
        return None
    if not isinstance(found.get("messages"), list):
        return None
    return {name: value for name, value in found.items() if name not in _OF_ANSWERING}


def chat_answer(path: str, items: list[Json]) -> Json | None:
    """Return an answer as one message of chat completions."""
    try:
        if path == MESSAGES:
            items = chat_messages(items[0])
        elif path == RESPONSES:
            items = _responses_messages(items)
    except (AttributeError, LookupError, TypeError):
        return None
    return items[0] if len(items) == 1 else None


def _of_responses(body: Json) -> Json:
    given = body["input"]
    items = [{"role": "user", "content": given}] if isinstance(given, str) else given
    system = [{"role": "system", "content": body["instructions"]}] if "instructions" in body else []
    names = ("chat_template_kwargs", "tool_choice", "parallel_tool_calls")
    found: Json = {name: body[name] for name in names if name in body}
    found["messages"] = system + (items if isinstance(given, str) else _responses_messages(items))
    if isinstance(body.get("tools"), list):
        tools = [
            {"type": "function", "function": {"strict": True, **{k: v for k, v in tool.items() if k != "type"}}}
            for tool in body["tools"]
            if tool.get("type") == "function"
        ]
        found |= {"tools": tools} if tools else {}
    reasoning = body.get("reasoning")
    if isinstance(reasoning, dict) and "effort" in reasoning:
        found["reasoning_effort"] = reasoning["effort"]
    return found


def _responses_messages(items: list[Json]) -> list[Json]:  # noqa: C901, PLR0912 - one branch for each kind
    found: list[Json] = []
    for item in items:
        before = found[-1] if found and found[-1].get("role") == "assistant" else None
        kind, content = item.get("type"), item.get("content")
        if isinstance(content, str):
            content = [{"type": "input_text", "text": content}]
        if item.get("role") in ("user", "system", "developer"):
            found.append({"role": item["role"], "content": [_responses_part(part) for part in content or ()]})
        elif kind == "message":
            texts = [{"type": "text", "text": part.get("text", "")} for part in content or ()]
            if before is None:
                found.append({"role": "assistant", "content": texts})
            else:
                before["content"] = [*(before.get("content") or ()), *texts]
        elif kind == "function_call":
            function = {"arguments": item["arguments"], "name": item["name"]}
            call = {"function": function, "id": item["call_id"], "type": "function"}
            if before is None:
                found.append({"role": "assistant", "tool_calls": [call]})
            else:
                before.setdefault("tool_calls", []).append(call)
        elif kind == "function_call_output":
            output = item["output"]
            said = output if isinstance(output, str) else [{**part, "type": "text"} for part in output]
            found.append({"role": "tool", "tool_call_id": item["call_id"], "content": said})
        elif kind == "reasoning":
            text = item["content"][0]["text"]
            if before is None:
                found.append({"role": "assistant", "content": [], "reasoning_content": text})
            else:
                before["reasoning_content"] = text
    return found


def _responses_part(part: Json) -> Json:
    if part.get("type") == "input_image":
        return {"type": "image_url", "image_url": {"url": part["image_url"]}}
    return {"type": "text", "text": part.get("text", "")}


def media_in(messages: list[Json]) -> list[str] | None:
    """Return the images and sounds in messages, as base64, in their order; None for one that is no data."""
    found: list[str] = []
    for message in messages:
        content = message.get("content")
        for part in content if isinstance(content, list) else ():
            kind = part.get("type") if isinstance(part, dict) else None
            if kind in (None, "text"):
                continue
            value = part.get(kind)
            url = value.get("url") or value.get("data") if isinstance(value, dict) else value
            if not isinstance(url, str):
                return None
            found.append(url.partition(";base64,")[2] if url.startswith("data:") else url)
    return found


def follow_ups(answer: Json) -> list[list[Json]]:
    """Return two ways in which a conversation goes on: what the prompts of both begin with is the saved prefix."""
    calls = answer.get("tool_calls")
    if calls:
        ids = [call.get("id", "") for call in calls]
        return [[{"role": "tool", "tool_call_id": each, "content": text} for each in ids] for text in "a1"]
    return [[{"role": "user", "content": text}] for text in "a1"]
