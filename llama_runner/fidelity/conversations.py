"""Conversations that chat templates are compared with."""

from __future__ import annotations

import json
import re
from typing import Any

from llama_runner.core.immutable_values import Value

_TOOLS: list[dict[str, Any]] = [
    {
        "type": "function",
        "function": {
            "name": "temperature",
            "description": "Current temperature of a town.",
            "parameters": {
                "type": "object",
                "properties": {
                    "town": {"type": "string", "description": "Its name."},
                    "unit": {"type": "string", "enum": ["celsius", "kelvin"]},
                },
                "required": ["town"],
            },
        },
    }
]
_ARGUMENTS = {"town": "Zürich", "unit": "celsius"}
_CALL = {"id": "call00001", "type": "function", "function": {"name": "temperature", "arguments": _ARGUMENTS}}
_USER = {"role": "user", "content": "What is a step?"}
_MORE = {"role": "user", "content": "  And a key?\n"}
_SYSTEM = {"role": "system", "content": "You answer in one sentence."}
_ANSWER = {"role": "assistant", "content": "A step makes one artifact."}
_CALLED: list[dict[str, Any]] = [
    {"role": "user", "content": "How warm is it in Zürich?"},
    {"role": "assistant", "content": "", "tool_calls": [_CALL]},
    {"role": "tool", "tool_call_id": "call00001", "name": "temperature", "content": '{"celsius": 17}'},
]


class Conversation(Value):
    """What a template is rendered with."""

    name: str
    messages: tuple[dict[str, Any], ...]
    tools: tuple[dict[str, Any], ...] = ()
    generation: bool = True
    thinking: bool | None = None

    def variables(self) -> dict[str, Any]:
        """Return the variables that transformers gives a template."""
        found = {
            "messages": list(self.messages),
            "tools": list(self.tools) or None,
            "documents": None,
            "add_generation_prompt": self.generation,
        }
        return found if self.thinking is None else {**found, "enable_thinking": self.thinking}

    def request(self) -> dict[str, Any]:
        """Return the body of a request to llama-server, where the arguments of a call are a text."""
        body: dict[str, Any] = {
            "messages": [_as_requested(message) for message in self.messages],
            "add_generation_prompt": self.generation,
        }
        if self.tools:
            body["tools"] = list(self.tools)
        return body if self.thinking is None else {**body, "chat_template_kwargs": {"enable_thinking": self.thinking}}


def conversations_for(template: str) -> list[Conversation]:
    """Return the conversations that a template makes a difference for: tools and thinking only where it knows them."""
    found = [
        Conversation("one turn", (_USER,)),
        Conversation("system", (_SYSTEM, _USER)),
        Conversation("turns", (_USER, _ANSWER, _MORE)),
        Conversation("system and turns", (_SYSTEM, _USER, _ANSWER, _MORE)),
        Conversation("no generation prompt", (_USER, _ANSWER, _MORE), generation=False),
        Conversation("characters", ({"role": "user", "content": "<a> & \"b\" {{ c }} 'd' \\n 😀\n\n{% e %}"},)),
    ]
    if re.search(r"\btools\b", template):
        tools = tuple(_TOOLS)
        found += [
            Conversation("tools", (_USER,), tools),
            Conversation("tools and system", (_SYSTEM, _USER), tools),
            Conversation("tool result", tuple(_CALLED), tools),
        ]
    if re.search(r"\benable_thinking\b", template):
        found += [
            Conversation("thinking", (_USER,), thinking=True),
            Conversation("no thinking", (_USER,), thinking=False),
        ]
    if "reasoning_content" in template:
        thought = {**_ANSWER, "reasoning_content": "The user asks about steps."}
        found.append(Conversation("thought before", (_USER, thought, _MORE)))
    return found


def _as_requested(message: dict[str, Any]) -> dict[str, Any]:
    calls = [
        {**call, "function": {**call["function"], "arguments": json.dumps(_ARGUMENTS, ensure_ascii=False)}}
        for call in message.get("tool_calls", ())
    ]
    return {**message, "tool_calls": calls} if calls else message
