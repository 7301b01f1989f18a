"""A request of a session, and what is known of the session while its process runs."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any, Protocol

from llama_runner.core.immutable_values import Value

if TYPE_CHECKING:
    from llama_runner.gateway.sessions.response_reader import AnswerReader
    from llama_runner.sessions.session_name import SessionName

Json = dict[str, Any]


class Conversation(Value, eq=False):
    """What a session said last, until it is saved."""

    path: str
    body: Json
    answer: list[Json] | bytes
    """Messages of the protocol, or the events of a stream, which are read once they are needed."""
    at: float
    """When it was said, in seconds of the monotonic clock."""
    size: int = 0
    """Bytes of memory."""
    attempts: int = 0


class Held:
    """A session whose state is in the process."""

    def __init__(self, use: SessionUse) -> None:
        self.name, self.key, self.state, self.is_unusable = use.name, use.key, use.state, use.is_unusable
        self.more = use.more
        """Members of requests of ours to the process: the scales of its adapters."""
        self.tokens = 0
        self.unsaved: Conversation | None = None
        self.in_use = 0
        """Requests in progress."""


class Holder(Protocol):
    """What a request tells of its end: ``ProcessSessions``."""

    def count(self, use: SessionUse, cached: int | None) -> None:
        """Tell what came of a request."""
        ...

    def hold(self, use: SessionUse, said: Conversation, tokens: int) -> None:
        """Note that the process has the state of a session."""
        ...


class SessionUse:
    """A request of a session: what was found of its state, and what came of it."""

    def __init__(self, process: Holder, name: SessionName, key: str, more: Json) -> None:
        self.process, self.name, self.key, self.more = process, name, key, more
        self.state = f"{name.digest} {key}"
        """Identifies the state that it uses."""
        self.known = 0
        """Tokens of the state that was found."""
        self.source = "none"
        """Where the state was: ``memory`` of the process, ``disk``, or ``none``."""
        self.slot: int | None = None
        """The slot that its state was restored to, where llama-server might choose another one."""
        self.is_unusable = False
        """Whether there is a state on disk that could not be restored."""
        self.outcome = "new"
        """``hit``, ``miss``, or ``new`` where there was no state."""

    def counted(self, cached: int | None, prompt: int | None) -> None:
        """Take what the process said of the prompt: a state of which little was reused is a miss."""
        if self.source != "none" and cached is not None and prompt:
            self.outcome = "hit" if 2 * cached >= min(self.known, prompt) else "miss"

    def answered(self, path: str, body: Json, reader: AnswerReader, events: bytes) -> None:
        """Take over the conversation once it has its answer: what was read of it, or the events of a stream."""
        if events:
            reader.feed_ends(events)
        items = (events if reader.is_complete else None) if events else reader.items()
        self.counted(reader.cached, reader.prompt)
        self.process.count(self, reader.cached)
        if items is not None:
            self.process.hold(self, Conversation(path, body, items, time.monotonic()), reader.prompt or 0)

    def headers(self, cached: int | None = None) -> dict[str, str]:
        """Return the headers of the answer."""
        found = {"X-Session": self.outcome, "X-Session-Source": self.source}
        return found if cached is None else {**found, "X-Session-Reused-Tokens": str(cached)}


def memory_of(value: object) -> int:
    """Return the bytes of memory of a JSON value."""
    found, left = 0, [value]
    while left:
        each = left.pop()
        found += sys.getsizeof(each)
        if isinstance(each, dict):
            left += each
            left += each.values()
        elif isinstance(each, list):
            left += each
    return found
