"""Messages of Ollama's API and of OpenAI's, in both directions: tool calls, images, thinking. Pure.

Arguments of a tool call are an object in Ollama's API and a JSON text in OpenAI's. Ollama's messages need no ids of
calls: a result names the function, so ids are made here and matched by name.
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any

from llama_runner.core.printable_text import printable
from llama_runner.gateway.errors import BadRequest

Json = dict[str, Any]

_SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"BM", "image/bmp"),
)
"""The first bytes of the pictures that llama-server reads."""
_ROLES = ("system", "user", "assistant", "tool", "developer")


def wrong_type_error(name: str, expected: str, value: object) -> BadRequest:
    """Return the error for a member of a request that has another type."""
    return BadRequest(f"{name}: expected {expected}, got {printable(repr(value), limit=80)}", field=name)


def openai_messages(messages: Any) -> list[Json]:  # noqa: ANN401 - as the client sent it
    """Return the messages of a chat in OpenAI's form. Raises ``BadRequest``."""
    if not isinstance(messages, list):
        raise wrong_type_error("messages", "a list", messages)
    found: list[Json] = []
    open_calls: list[tuple[str, str]] = []  # function and id of the calls that have no result yet
    made = 0
    for number, message in enumerate(messages):
        where = f"messages[{number}]"
        if not isinstance(message, dict):
            raise wrong_type_error(where, "an object", message)
        role = _text(message.get("role") or "user", f"{where}.role")
        if role not in _ROLES:
            raise wrong_type_error(f"{where}.role", " or ".join(_ROLES), role)
        text = _text(message.get("content") or "", f"{where}.content")
        one: Json = {"role": role, "content": message_content(text, message.get("images"), f"{where}.images")}
        if thinking := message.get("thinking"):
            one["reasoning_content"] = _text(thinking, f"{where}.thinking")
        if given := message.get("tool_calls"):
            one["tool_calls"] = openai_calls(given, made, f"{where}.tool_calls")
            made += len(given)
            open_calls += [(call["function"]["name"], call["id"]) for call in one["tool_calls"]]
        if role == "tool":
            one["tool_call_id"] = _result_id(message, open_calls)
        found.append(one)
    return found


def _result_id(message: Json, open_calls: list[tuple[str, str]]) -> str:
    """Return the id of the call that a result belongs to, and take the call from the open ones.

    The client's id comes first, then the oldest open call of this function, then the oldest open call.
    """
    given, name = message.get("tool_call_id"), message.get("tool_name") or message.get("name")
    if not (isinstance(given, str) and given):
        named = [id_ for function, id_ in open_calls if function == name]
        given = next(iter(named or [id_ for _, id_ in open_calls]), "call_0")
    open_calls[:] = [call for call in open_calls if call[1] != given]
    return given


def openai_calls(calls: Any, first: int = 0, where: str = "tool_calls") -> list[Json]:  # noqa: ANN401 - as sent
    """Return tool calls with arguments as text; a call without an id gets ``call_N``, numbered from ``first``."""
    if not isinstance(calls, list):
        raise wrong_type_error(where, "a list", calls)
    found = []
    for number, call in enumerate(calls):
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict):
            raise wrong_type_error(f"{where}[{number}]", 'an object with "function"', call)
        name = _text(function.get("name"), f"{where}[{number}].function.name")
        arguments = function.get("arguments")
        if arguments is None:
            arguments = {}
        if isinstance(arguments, str):  # some clients send OpenAI's form back
            arguments = _object(arguments)
        if not isinstance(arguments, dict):
            raise wrong_type_error(f"{where}[{number}].function.arguments", "an object", function.get("arguments"))
        given = call.get("id")
        found.append(
            {
                "id": given if isinstance(given, str) and given else f"call_{first + number}",
                "type": "function",
                "function": {"name": name, "arguments": json.dumps(arguments, ensure_ascii=False)},
            }
        )
    return found


def ollama_calls(calls: list[Json]) -> list[Json]:
    """Return tool calls of OpenAI's API with their arguments as objects. Raises ``ValueError`` for other arguments."""
    found = []
    for index, call in enumerate(calls):
        function = call.get("function") or {}
        arguments = _object(function.get("arguments") or "{}")
        if arguments is None:
            raise ValueError(f"arguments of the call of {printable(str(function.get('name')), limit=80)}")
        one: Json = {"function": {"index": index, "name": function.get("name") or "", "arguments": arguments}}
        found.append({"id": call["id"], **one} if call.get("id") else one)
    return found


def openai_tools(tools: Any) -> list[Json]:  # noqa: ANN401 - as the client sent it
    """Return definitions of tools with ``type``, without which llama-server answers with status 500."""
    if not isinstance(tools, list):
        raise wrong_type_error("tools", "a list", tools)
    found = []
    for number, tool in enumerate(tools):
        function = tool.get("function") if isinstance(tool, dict) else None
        if not isinstance(function, dict):
            raise wrong_type_error(f"tools[{number}]", 'an object with "function"', tool)
        _text(function.get("name"), f"tools[{number}].function.name")
        found.append({**tool, "type": tool.get("type") or "function"})
    return found


def message_content(text: str, images: Any, where: str = "images") -> str | list[Json]:  # noqa: ANN401 - as sent
    """Return the content of a message: its text, or with images a list of parts."""
    if not images:
        return text
    if not isinstance(images, list):
        raise wrong_type_error(where, "a list of base64 texts", images)
    parts: list[Json] = [{"type": "text", "text": text}] if text else []
    return parts + [_media_part(image, f"{where}[{number}]") for number, image in enumerate(images)]


def _media_part(image: Any, where: str) -> Json:  # noqa: ANN401 - as the client sent it
    """Return the part of a picture or a sound, both of which Ollama's clients send as ``images``."""
    encoded = _text(image, where)
    if encoded.startswith("data:"):
        encoded = encoded.partition(",")[2]
    try:
        content = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise wrong_type_error(where, "base64", encoded) from None
    if content[:4] == b"RIFF" and content[8:12] == b"WAVE":
        return {"type": "input_audio", "input_audio": {"data": encoded, "format": "wav"}}
    if content[:3] == b"ID3":
        return {"type": "input_audio", "input_audio": {"data": encoded, "format": "mp3"}}
    kind = media_type(content)
    if kind is None:
        raise BadRequest(
            f"{where} is no picture that llama-server reads", field=where, hint="send PNG, JPEG, GIF or BMP"
        )
    return {"type": "image_url", "image_url": {"url": f"data:{kind};base64,{encoded}"}}


def media_type(content: bytes) -> str | None:
    """Return the type of a picture by its first bytes, None for one that llama-server cannot read."""
    return next((kind for start, kind in _SIGNATURES if content.startswith(start)), None)


def _object(text: str) -> Json | None:
    """Return the JSON object of a text, None where it is none."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _text(value: Any, where: str) -> str:  # noqa: ANN401 - as the client sent it
    if not isinstance(value, str):
        raise wrong_type_error(where, "a text", value)
    return value
