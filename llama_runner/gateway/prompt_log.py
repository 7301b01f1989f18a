"""Prompts and answers for the access log, where the configuration asks for them. Pure.

Only members of a request that hold text of the user are taken. Images and sounds are left out. Credentials in URLs,
and the key of the client, are removed.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from llama_runner.core.url_redaction import redacted

if TYPE_CHECKING:
    from collections.abc import Iterator

_PROMPT = (
    *("system", "instructions", "messages", "prompt", "suffix", "input", "content", "query", "documents"),
    *("input_prefix", "input_suffix", "input_extra", "tools", "format", "response_format"),
)
"""Members of a request that are text of the user."""
_TEXTS = ("content", "reasoning_content", "text", "thinking", "response", "arguments", "partial_json", "delta")
_PARTS = ("choices", "delta", "message", "content", "output", "tool_calls", "function")
_WHOLE = (".done", ".completed", ".created", ".in_progress", ".added")
"""Ends of the types of events that repeat text of other events."""
_LONGEST = 1 << 16
"""Characters of one text."""
_DEPTH = 64
_SECRET = 8
"""Characters that a key has at least: shorter ones would remove parts of words."""


def logged_texts(body: dict[str, Any], answer: bytes, key: str | None) -> dict[str, Any]:
    """Return the members ``prompt`` and ``answer`` of a line of the log. ``key`` is that of the client."""
    prompt = {name: _cleaned(body[name], key, _DEPTH) for name in _PROMPT if name in body}
    return {"prompt": prompt, "answer": _cleaned(answer_text(answer), key, _DEPTH)}


def answer_text(answer: bytes) -> str:
    """Return the text of an answer: a JSON object, a stream of events, or lines of JSON. Its end may be missing."""
    found: list[str] = []
    for line in answer.splitlines():
        try:
            value = json.loads(line.removeprefix(b"data:"))
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict) and not str(value.get("type", "")).endswith(_WHOLE):
            found += _texts(value, _DEPTH)
    return "".join(found)


def _texts(value: Any, depth: int) -> Iterator[str]:  # noqa: ANN401 - JSON is anything
    if isinstance(value, list) and depth:
        for each in value:
            yield from _texts(each, depth - 1)
    if not isinstance(value, dict) or not depth:
        return
    for name, each in value.items():
        if name in _TEXTS and isinstance(each, str):
            yield each
        elif name in _PARTS:
            yield from _texts(each, depth - 1)


def _cleaned(value: Any, key: str | None, depth: int) -> Any:  # noqa: ANN401 - JSON is anything
    """Return a value without media, without secrets, and with texts that are not longer than a limit."""
    if isinstance(value, str):
        return _text(value, key)
    if isinstance(value, list):
        return [_cleaned(each, key, depth - 1) for each in value] if depth else []
    if not isinstance(value, dict):
        return value
    media = ("images", "input_audio", "data", "file_data", "image_url", "audio_url", "video_url", "source")
    return {
        _text(name, key): f"({len(json.dumps(each))} bytes)" if name in media else _cleaned(each, key, depth - 1)
        for name, each in (value.items() if depth else ())
    }


def _text(text: str, key: str | None) -> str:
    if text.startswith("data:"):
        return f"({len(text)} bytes)"
    whole = len(text)
    text = text[: 2 * _LONGEST]  # a secret is not cut before it is found
    if key and len(key) >= _SECRET:
        text = text.replace(key, "…")
    text = redacted(text)
    return text if whole <= _LONGEST else f"{text[:_LONGEST]}… ({whole} characters)"
