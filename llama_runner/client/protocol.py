"""What is asked of a server, and what its answers mean. Pure: who sends it, and how, is another's business."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

from llama_runner.client.errors import RequestNotSent, StrangeAnswer, refusal
from llama_runner.client.replies import Json, Metrics, Piece, Props, Reply, Slot, Timings, ToolCall, Usage

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Literal, TypedDict

    class Sampling(TypedDict, total=False):
        """How an answer is generated; what is left out is the server's choice."""

        max_tokens: int
        temperature: float
        """0: always the likeliest token."""
        top_p: float
        top_k: int
        min_p: float
        seed: int
        stop: str | Sequence[str]
        """Texts before which the answer ends."""
        schema: Mapping[str, Any] | None
        """A JSON schema that the answer keeps."""
        more: Mapping[str, Any]
        """Further fields of the request, as llama-server knows them: ``{"cache_prompt": False}``."""

    class Chatting(Sampling, total=False):
        """``Sampling``, and what only a chat has."""

        system: str | None
        """What the model is told first."""
        tools: Sequence[Mapping[str, Any]]
        """Functions that the model may ask for, as the OpenAI API describes them."""
        tool_choice: Literal["auto", "none", "required"] | Mapping[str, Any]


T = TypeVar("T")
Messages: TypeAlias = "str | Sequence[Mapping[str, Any]]"
"""A conversation, ``[{"role": "user", "content": "…"}, …]``; a text alone is what the user says."""

OK = 200

JSON = {"Content-Type": "application/json"}
FOR_STREAMS = {**JSON, "Connection": "close"}
"""llama-server closes the connection after a streamed answer without having said so. Who asks again at once on the
same connection may get no answer, so it is not kept."""

_DONE = "[DONE]"
_PREFIX = "llamacpp:"


@dataclass(frozen=True)
class Call(Generic[T]):
    """One request, and how its answer is read."""

    method: str
    path: str
    body: Json | None
    read: Callable[[Any], T]
    """Takes the JSON of the answer, or its text if that is no JSON; ``KeyError`` and the like: it is strange."""

    @property
    def content(self) -> bytes | None:
        """The body as it is sent, None for none. Raises ``RequestNotSent`` for what JSON has no word for."""
        if self.body is None:
            return None
        try:
            # half a surrogate pair is sent as its escape, and the server says what it thinks of it
            return json.dumps(self.body, allow_nan=False, separators=(",", ":")).encode("ascii")
        except (ValueError, RecursionError) as error:
            raise RequestNotSent(str(error)) from None

    def result(self, url: str, status: int, content: bytes) -> T:
        """Return what was answered, or raise why not."""
        text = content.decode("utf-8", "replace")
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            found = text
        if status != OK:
            raise refusal(url, status, found if isinstance(found, dict) else None, text)
        try:
            return self.read(found)
        except (LookupError, TypeError, ValueError, AttributeError):
            raise StrangeAnswer(url, text) from None


def chat(messages: Messages, *, stream: bool = False, **options: Any) -> Call[Reply]:  # noqa: ANN401 - see ``Chatting``
    """Ask for the next message of a conversation."""
    conversation = [{"role": "user", "content": messages}] if isinstance(messages, str) else [*messages]
    if (system := options.pop("system", None)) is not None:
        conversation.insert(0, {"role": "system", "content": system})
    body = {"messages": conversation, **_sampling(options, stream=stream)}
    if (schema := body.pop("json_schema", None)) is not None:
        body["response_format"] = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    return Call("POST", "/v1/chat/completions", body, _reply)


def complete(prompt: str, *, stream: bool = False, **options: Any) -> Call[Reply]:  # noqa: ANN401 - see ``Sampling``
    """Ask how a text goes on; no template is laid around it."""
    return Call("POST", "/v1/completions", {"prompt": prompt, **_sampling(options, stream=stream)}, _reply)


def embed(texts: Sequence[str]) -> Call[list[list[float]]]:
    """Ask for one vector for each text, in their order."""
    if isinstance(texts, str):
        texts = [texts]
    return Call("POST", "/v1/embeddings", {"input": [*texts]}, _vectors)


def props() -> Call[Props]:
    """Ask what is served and how."""
    return Call("GET", "/props", None, _props)


def metrics() -> Call[Metrics]:
    """Ask for the counters; the server must have been started with ``--metrics``."""
    return Call("GET", "/metrics", None, _metrics)


def slots() -> Call[list[Slot]]:
    """Ask which conversations are held."""
    return Call("GET", "/slots", None, lambda found: [Slot(s["id"], s["n_ctx"], s["is_processing"], s) for s in found])


class Gathered:
    """A streamed answer as it grows: each event goes in, a piece of text comes out."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._texts: list[str] = []
        self._thoughts: list[str] = []
        self._calls: dict[int, dict[str, str]] = {}
        self._finish = ""
        self._last: Json = {}
        self.whole = False

    @property
    def text(self) -> str:
        """What has come."""
        return "".join(self._texts)

    def feed(self, data: str) -> Piece | None:
        """Take what one server-sent event carries; raise the error that it tells."""
        if data.strip() == _DONE:
            self.whole = True
            return None
        try:
            event = json.loads(data)
            if "error" in event:
                raise refusal(self._url, _code(event["error"]), event, data)
            self._last |= event
            choice: Json = next(iter(event["choices"]), {})
            delta = choice.get("delta") or {"content": choice.get("text")}
            self._finish = choice.get("finish_reason") or self._finish
            for call in delta.get("tool_calls") or ():
                self._call(call)
            piece = Piece(delta.get("content") or "", delta.get("reasoning_content") or "")
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
        """What came, as if it had come at once."""
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
    """Return the fields of the request; ``TypeError`` for what is none of ours, as for any keyword."""
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
