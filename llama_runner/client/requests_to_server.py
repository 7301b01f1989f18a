"""Builds the requests to llama-server: path and JSON body of each. Pure.

``reply_parsing`` parses the responses into the values of ``reply_types``; ``sync_client`` and ``async_client`` send.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

from llama_runner.client.errors import RequestNotSent, StrangeAnswer, response_error
from llama_runner.client.reply_parsing import metrics_of, props_of, reply_of, vectors_of
from llama_runner.client.reply_types import Json, Metrics, Props, Reply, Slot
from llama_runner.core.adapter_scales import GENERATING, AdapterScales, scale_list

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
        adapter: str | Mapping[str, float] | None
        """LoRA adapters of the server: ``"a"``, ``"a+b"``, ``{"a": 0.5}``; ``""``: none; None: as it was started."""
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


@dataclass(frozen=True)
class Call(Generic[T]):
    """One request, and the parser of its response."""

    method: str
    path: str
    body: Any
    """JSON; None: without one."""
    read: Callable[[Any], T]
    """Parses the response: JSON, or text if it is not JSON. ``LookupError`` and the like mean ``StrangeAnswer``."""
    adapter: str | Mapping[str, float] | None = None
    """The adapters that were chosen; None: none were."""

    def adapted(self, adapters: AdapterScales) -> Call[T]:
        """Return the request with the full list of a server's adapters. ``UsageError`` for an unknown adapter."""
        if not isinstance(self.body, dict) or self.path not in GENERATING or "lora" in self.body:
            return self
        if not adapters.names and self.adapter is None:
            return self
        return replace(self, body={**self.body, **adapters.members(self.adapter)})

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
    adapter = options.pop("adapter", None)
    conversation = [{"role": "user", "content": messages}] if isinstance(messages, str) else [*messages]
    if (system := options.pop("system", None)) is not None:
        conversation.insert(0, {"role": "system", "content": system})
    body = {"messages": conversation, **_sampling(options, stream=stream)}
    if (schema := body.pop("json_schema", None)) is not None:
        body["response_format"] = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    return Call("POST", "/v1/chat/completions", body, reply_of, adapter)


def complete(prompt: str, *, stream: bool = False, **options: Any) -> Call[Reply]:  # noqa: ANN401 - see ``SamplingOptions``
    """Return the request for the continuation of a text, without a chat template."""
    adapter = options.pop("adapter", None)
    return Call("POST", "/v1/completions", {"prompt": prompt, **_sampling(options, stream=stream)}, reply_of, adapter)


def embed(texts: Sequence[str]) -> Call[list[list[float]]]:
    """Return the request for one embedding vector for each text, in their order."""
    if isinstance(texts, str):
        texts = [texts]
    return Call("POST", "/v1/embeddings", {"input": [*texts]}, vectors_of)


def props() -> Call[Props]:
    """Return the request for the server's properties."""
    return Call("GET", "/props", None, props_of)


def metrics() -> Call[Metrics]:
    """Return the request for the counters; the server needs ``--metrics``."""
    return Call("GET", "/metrics", None, metrics_of)


def set_adapters(adapters: AdapterScales) -> Call[None]:
    """Return the request that sets the scales of requests that choose no adapters. Valid before any other request."""
    return Call("POST", "/lora-adapters", scale_list(adapters.scales), lambda _found: None)


def slots() -> Call[list[Slot]]:
    """Return the request for the state of the slots."""
    return Call("GET", "/slots", None, lambda found: [Slot(s["id"], s["n_ctx"], s["is_processing"], s) for s in found])


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
