"""What happens, as data. The library never prints: it sends these to an injected sink.

``to_json`` gives the line that ``run --json`` prints: ``{"event": "step_finished", …}``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from llama_runner.core.plan import Reason


@dataclass(frozen=True)
class Event:
    """Something that happened."""

    @property
    def name(self) -> str:
        """The event's name on the outside: the class name in snake case."""
        return re.sub(r"(?<!^)(?=[A-Z])", "_", type(self).__name__).lower()

    def to_json(self) -> dict[str, Any]:
        """Return the event as one JSON object."""
        value: dict[str, Any] = {"event": self.name}
        for field in fields(self):
            item = getattr(self, field.name)
            if isinstance(item, tuple):
                item = [part.to_json() if isinstance(part, Reason) else part for part in item]
            value[field.name] = item
        return value


Sink = Callable[[Event], None]


@dataclass(frozen=True)
class Warned(Event):
    """Something is not as it should be and the run goes on; ``what`` is a word, ``text`` a clause."""

    what: str
    text: str


@dataclass(frozen=True)
class StepSkipped(Event):
    """Nothing to do for this step. ``seconds`` is what making it cost once."""

    step: str
    seconds: float | None = None
    by_another: bool = False


@dataclass(frozen=True)
class StepStarted(Event):
    """A step begins, for these reasons; ``log`` is relative to the root."""

    step: str
    reasons: tuple[Reason, ...]
    log: str


@dataclass(frozen=True)
class StepProgress(Event):
    """How far a step is."""

    step: str
    done: int
    total: int
    unit: str


@dataclass(frozen=True)
class StepFinished(Event):
    """A step has published its artifact."""

    step: str
    seconds: float
    digest: str
    bytes: int
    output: str


@dataclass(frozen=True)
class StepUnchanged(Event):
    """A step ran again and gave the bytes that were there before: what rests on them does not run."""

    step: str
    digest: str


@dataclass(frozen=True)
class LockWaiting(Event):
    """Another process makes what this step would make."""

    step: str
    holder: str


@dataclass(frozen=True)
class Evicted(Event):
    """An intermediate was deleted; its record stays and nothing runs because of it."""

    output: str
    bytes: int


@dataclass(frozen=True)
class ServerStarted(Event):
    """llama-server runs and loads the model."""

    pid: int
    argv: tuple[str, ...]
    log: str


@dataclass(frozen=True)
class ServerReady(Event):
    """The server answers for our model."""

    url: str
    pid: int
    seconds: float


@dataclass(frozen=True)
class ServerStopped(Event):
    """The server has ended; ``status`` is its exit status, negative for a signal."""

    status: int
