"""Prompts and answers for the access log, where the configuration asks for them. Pure.

Only members of a request that hold text of the user are taken. Images and sounds are left out. Credentials in URLs,
and the key of the client, are removed. What is looked at is limited, as this runs in the event loop: of a long
conversation the newest messages are kept.
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
_MEDIA = ("images", "input_audio", "data", "file_data", "image_url", "audio_url", "video_url", "source")
_WHOLE = (".done", ".completed", ".created", ".in_progress", ".added")
"""Ends of the types of events that repeat text of other events."""
_LONGEST = 1 << 16
"""Characters of one text."""
_MOST = 1 << 18
"""Characters of all texts of a prompt, or of an answer."""
_EACH = 16
"""Characters that a value counts at least."""
_DEPTH = 64
_SECRET = 8
"""Characters that a key has at least: shorter ones would remove parts of words."""


def logged_texts(body: dict[str, Any], answer: bytes, key: str | None) -> dict[str, Any]:
    """Return the members ``prompt`` and ``answer`` of a line of the log. ``key`` is that of the client."""
    prompt = _Cleaner(key)
    found = {name: prompt.cleaned(body[name], _DEPTH) for name in _PROMPT if name in body}
    return {"prompt": found, "answer": _Cleaner(key).cleaned(answer_text(answer), _DEPTH)}


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


class _Cleaner:
    """Returns values without media and secrets, with texts that are not longer than a limit; all of them within one."""

    def __init__(self, key: str | None) -> None:
        self._key, self._left = key, _MOST

    def cleaned(self, value: Any, depth: int) -> Any:  # noqa: ANN401 - JSON is anything
        """Return a value of JSON. What is over the limit is counted instead."""
        self._left -= _EACH
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, list):
            return self._newest(value, depth - 1) if depth else []
        if not isinstance(value, dict):
            return value
        found: dict[str, Any] = {}
        for name, each in value.items() if depth else ():
            if self._left <= 0:
                found["…"] = f"({len(value) - len(found)} more)"
                break
            found[self._text(name)] = _size(each) if name in _MEDIA else self.cleaned(each, depth - 1)
        return found

    def _newest(self, values: list[Any], depth: int) -> list[Any]:
        found: list[Any] = []
        for each in reversed(values):
            if self._left <= 0:
                found.append(f"… ({len(values) - len(found)} more)")
                break
            found.append(self.cleaned(each, depth))
        return found[::-1]

    def _text(self, text: str) -> str:
        if text.startswith("data:"):
            return _size(text)
        most = max(0, min(_LONGEST, self._left))
        seen = text[: most + _LONGEST] if most else ""  # a secret is not cut before it is found
        self._left -= len(seen)
        if self._key and len(self._key) >= _SECRET:
            seen = seen.replace(self._key, "…")
        seen = redacted(seen)
        return seen if len(text) <= most else f"{seen[:most]}… ({len(text)} characters)"


def _size(media: Any) -> str:  # noqa: ANN401 - JSON is anything
    return f"({len(media if isinstance(media, str) else json.dumps(media))} bytes)"
