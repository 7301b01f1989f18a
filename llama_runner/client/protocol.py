"""Builds requests to llama-server and parses its responses. Pure; ``sync_client`` and ``async_client`` send them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

from llama_runner.client.errors import RequestNotSent, StrangeAnswer, response_error
from llama_runner.client.replies import Json, Metrics, Props, Reply, ReplyChunk, Slot, Timings, ToolCall, Usage

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Literal, TypedDict

    class SamplingOptions(TypedDict, total=False):
        """Options of generation; the server's defaults apply to those left out."""

        max_tokens: int
        temperature: float
        """0: greedy decoding."""
        top_p: float
        top_k: int
        min_p: float
        seed: int
        stop: str | Sequence[str]
        """The reply ends before any of these texts."""
        schema: Mapping[str, Any] | None
        """A JSON schema for the reply."""
        more: Mapping[str, Any]
        """Further members of llama-server's request: ``{"cache_prompt": False}``."""

    class ChatOptions(SamplingOptions, total=False):
        """``SamplingOptions``, and options of a chat."""

        system: str | None
        """The system message."""
        tools: Sequence[Mapping[str, Any]]
        """Functions that the model may call, in the form of the OpenAI API."""
        tool_choice: Literal["auto", "none", "required"] | Mapping[str, Any]


T = TypeVar("T")
Messages: TypeAlias = "str | Sequence[Mapping[str, Any]]"
"""A conversation, ``[{"role": "user", "content": "…"}, …]``; a single text is a user message."""

OK = 200

JSON_HEADERS = {"Content-Type": "application/json"}
STREAM_HEADERS = {**JSON_HEADERS, "Connection": "close"}
"""llama-server closes the connection after a streamed response without announcing it, so that another request on the
same connection may get no response; so the connection is not kept."""

_DONE = "[DONE]"
_PREFIX = "llamacpp:"


@dataclass(frozen=True)
class Call(Generic[T]):
    """One request, and the parser of its response."""

    method: str
    path: str
    body: Json | None
    read: Callable[[Any], T]
    """Parses the response: JSON, or text if it is not JSON. ``LookupError`` and the like mean ``StrangeAnswer``."""

    @property
    def content(self) -> bytes | None:
        """The body in bytes, None without one. Raises ``RequestNotSent`` for values that JSON does not have."""
        if self.body is None:
            return None
        try:
            # a lone surrogate is sent as its escape; the server may refuse it
            return json.dumps(self.body, allow_nan=False, separators=(",", ":")).encode("ascii")
        except (ValueError, RecursionError) as error:
            raise RequestNotSent(str(error)) from None

    def result(self, url: str, status: int, content: bytes) -> T:
        """Return the parsed response, or raise the error for it."""
        text = content.decode("utf-8", "replace")
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            found = text
        if status != OK:
            raise response_error(url, status, found if isinstance(found, dict) else None, text)
        try:
            return self.read(found)
        except (LookupError, TypeError, ValueError, AttributeError):
            raise StrangeAnswer(url, text) from None


def chat(messages: Messages, *, stream: bool = False, **options: Any) -> Call[Reply]:  # noqa: ANN401 - see ``ChatOptions``
    """Return the request for the next message of a conversation."""
    conversation = [{"role": "user", "content": messages}] if isinstance(messages, str) else [*messages]
    if (system := options.pop("system", None)) is not None:
        conversation.insert(0, {"role": "system", "content": system})
    body = {"messages": conversation, **_sampling(options, stream=stream)}
    if (schema := body.pop("json_schema", None)) is not None:
        body["response_format"] = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    return Call("POST", "/v1/chat/completions", body, _reply)


def complete(prompt: str, *, stream: bool = False, **options: Any) -> Call[Reply]:  # noqa: ANN401 - see ``SamplingOptions``
    """Return the request for the continuation of a text, without a chat template."""
    return Call("POST", "/v1/completions", {"prompt": prompt, **_sampling(options, stream=stream)}, _reply)


def embed(texts: Sequence[str]) -> Call[list[list[float]]]:
    """Return the request for one embedding vector for each text, in their order."""
    if isinstance(texts, str):
        texts = [texts]
    return Call("POST", "/v1/embeddings", {"input": [*texts]}, _vectors)


def props() -> Call[Props]:
    """Return the request for the server's properties."""
    return Call("GET", "/props", None, _props)


def metrics() -> Call[Metrics]:
    """Return the request for the counters; the server needs ``--metrics``."""
    return Call("GET", "/metrics", None, _metrics)


def slots() -> Call[list[Slot]]:
    """Return the request for the state of the slots."""
    return Call("GET", "/slots", None, lambda found: [Slot(s["id"], s["n_ctx"], s["is_processing"], s) for s in found])


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
                raise response_error(self._url, _code(event["error"]), event, data)
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
            _usage(self._last),
            _timings(self._last),
            self._last,
        )


def _sampling(options: Json, *, stream: bool) -> Json:
    """Return the members of the request. Raises ``TypeError`` for an unknown option."""
    more = options.pop("more", None) or {}
    schema = options.pop("schema", None)
    known = {"max_tokens", "temperature", "top_p", "top_k", "min_p", "seed", "stop", "tools", "tool_choice"}
    if unknown := options.keys() - known:
        raise TypeError(f"unexpected keyword: {', '.join(sorted(unknown))}")
    body = {name: value for name, value in options.items() if value is not None}
    if schema is not None:
        body["json_schema"] = schema
    if stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return {**body, **more}


def _reply(found: Json) -> Reply:
    choice = found["choices"][0]
    message = choice.get("message") or {"content": choice.get("text")}
    calls = [(call.get("id") or "", call["function"]) for call in message.get("tool_calls") or ()]
    return Reply(
        message.get("content") or "",
        message.get("reasoning_content") or "",
        tuple(ToolCall(name, function["name"], function["arguments"]) for name, function in calls),
        choice["finish_reason"],
        found["model"],
        _usage(found),
        _timings(found),
        found,
    )


def _usage(found: Json) -> Usage | None:
    usage = found.get("usage")
    if not usage:
        return None
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    return Usage(usage["prompt_tokens"], usage.get("completion_tokens", 0), cached)


def _timings(found: Json) -> Timings | None:
    t = found.get("timings")
    if not t:
        return None
    return Timings(t["prompt_n"], t["prompt_ms"] / 1e3, t["predicted_n"], t["predicted_ms"] / 1e3)


def _vectors(found: Json) -> list[list[float]]:
    return [item["embedding"] for item in sorted(found["data"], key=lambda item: int(item["index"]))]


def _props(found: Json) -> Props:
    return Props(
        found["model_alias"],
        found["model_path"],
        found["default_generation_settings"]["n_ctx"],
        found["total_slots"],
        found["build_info"],
        found.get("chat_template", ""),
        found,
    )


def _metrics(found: str) -> Metrics:
    """Read the text format of Prometheus: ``name value`` lines between comments."""
    lines = [line.rsplit(" ", 1) for line in found.splitlines() if line and not line.startswith("#")]
    values = {name.removeprefix(_PREFIX): float(value) for name, value in lines}
    if not values:
        raise ValueError("no metrics")
    return Metrics(values)


def _code(error: object) -> int:
    code = error.get("code") if isinstance(error, dict) else None
    return code if isinstance(code, int) else 500
