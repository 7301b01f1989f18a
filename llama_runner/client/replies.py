"""What a server answers, as values. ``raw`` is its own JSON, for what is not a field here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_runner.core.value import Value, field

if TYPE_CHECKING:
    from collections.abc import Mapping

Json = dict[str, Any]


class Answer(Value):
    """What a server said, and ``raw``, which is too long to be shown."""

    def __repr__(self) -> str:
        shown = (f"{name}={value!r}" for name, value in self.__dict__.items() if name != "raw")
        return f"{type(self).__name__}({', '.join(shown)})"


class Usage(Value):
    """Tokens of one request."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    """Of the prompt: those that the server still had from an earlier one."""


class Timings(Value):
    """What llama-server measured in one request. Seconds; other servers do not tell."""

    prompt_tokens: int
    """Those that were computed: without the cached ones."""
    prompt_seconds: float
    tokens: int
    seconds: float

    @property
    def tokens_per_second(self) -> float:
        """How fast the answer was generated, the prompt not counted."""
        return self.tokens / self.seconds if self.seconds else 0.0


class ToolCall(Value):
    """A function that the model wants to be called."""

    id: str
    name: str
    arguments: str
    """JSON, as the model wrote it: it may be anything."""


class Piece(Value):
    """A part of an answer that is streamed: usually one token."""

    text: str
    reasoning: str = ""


class Reply(Answer):
    """A whole answer."""

    text: str
    reasoning: str
    """What a model that thinks first thought."""
    tool_calls: tuple[ToolCall, ...]
    finish_reason: str
    """``stop``: it came to its end; ``length``: it was cut; ``tool_calls``."""
    model: str
    usage: Usage | None
    timings: Timings | None
    raw: Json = field(default_factory=dict)
    """Of a streamed answer: the last part."""

    @property
    def message(self) -> Json:
        """The answer as a message, to go on with a conversation."""
        calls = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in self.tool_calls
        ]
        return {"role": "assistant", "content": self.text} | ({"tool_calls": calls} if calls else {})


class Props(Answer):
    """What a server says of itself."""

    model: str
    path: str
    context: int
    """Tokens of one slot."""
    slots: int
    build: str
    template: str
    """The chat template, in Jinja."""
    raw: Json = field(default_factory=dict)


class Slot(Answer):
    """One of the conversations that a server can hold at once."""

    id: int
    context: int
    busy: bool
    raw: Json = field(default_factory=dict)


class Metrics(Value):
    """The counters of a server since its start."""

    values: Mapping[str, float]
    """By their names without ``llamacpp:``."""

    def __getitem__(self, name: str) -> float:
        return self.values[name]

    @property
    def prompt_tokens(self) -> int:
        """Tokens of prompts that were computed."""
        return round(self.values.get("prompt_tokens_total", 0))

    @property
    def tokens(self) -> int:
        """Tokens that were generated."""
        return round(self.values.get("tokens_predicted_total", 0))

    @property
    def tokens_per_second(self) -> float:
        """Of one generation, on average."""
        return self.values.get("predicted_tokens_seconds", 0.0)

    @property
    def running(self) -> int:
        """Requests that are computed now."""
        return round(self.values.get("requests_processing", 0))

    @property
    def waiting(self) -> int:
        """Requests that wait for a slot."""
        return round(self.values.get("requests_deferred", 0))
