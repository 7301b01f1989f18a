"""What happens, as data. The library never prints: it sends these to an injected sink.

``to_json`` gives the line that ``run --json`` prints: ``{"event": "step_finished", …}``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from llama_runner.core.plan import Reason
from llama_runner.core.value import Value


class Event(Value):
    """Something that happened."""

    @property
    def name(self) -> str:
        """The event's name on the outside: the class name in snake case."""
        return re.sub(r"(?<!^)(?=[A-Z])", "_", type(self).__name__).lower()

    def to_json(self) -> dict[str, Any]:
        """Return the event as one JSON object."""
        value: dict[str, Any] = {"event": self.name}
        for name, item in self.__dict__.items():
            if isinstance(item, tuple):
                value[name] = [part.to_json() if isinstance(part, Reason) else part for part in item]
            else:
                value[name] = item
        return value


Sink = Callable[[Event], None]


class Warned(Event):
    """Something is not as it should be and the run goes on; ``what`` is a word, ``text`` a clause."""

    what: str
    text: str


class Noticed(Event):
    """Something the user should know, and nothing is wrong; ``what`` is a word, ``text`` a clause."""

    what: str
    text: str


class Resolved(Event):
    """The Hub was asked what a name means: this commit. ``unchanged`` when it meant the same before."""

    repo: str
    revision: str
    commit: str
    unchanged: bool = False


class Drifted(Event):
    """A name on the Hub means another commit than here; these files differ."""

    repo: str
    revision: str
    old: str
    new: str
    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]


class Chosen(Event):
    """The files that will be fetched, before they are; ``why`` is a clause."""

    repo: str
    commit: str
    files: tuple[str, ...]
    bytes: int
    why: str


class StepSkipped(Event):
    """Nothing to do for this step. ``seconds`` is what making it cost once."""

    step: str
    seconds: float | None = None
    by_another: bool = False


class StepStarted(Event):
    """A step begins, for these reasons; ``log`` is relative to the root."""

    step: str
    reasons: tuple[Reason, ...]
    log: str


class StepProgress(Event):
    """How far a step is."""

    step: str
    done: int
    total: int
    unit: str


class StepFinished(Event):
    """A step has published its artifact."""

    step: str
    seconds: float
    digest: str
    bytes: int
    output: str


class StepUnchanged(Event):
    """A step ran again and gave the bytes that were there before: what rests on them does not run."""

    step: str
    digest: str


class LockWaiting(Event):
    """Another process makes what this step would make."""

    step: str
    holder: str


class Evicted(Event):
    """An intermediate was deleted; its record stays and nothing runs because of it."""

    output: str
    bytes: int


class ServerStarted(Event):
    """llama-server runs and loads the model."""

    pid: int
    argv: tuple[str, ...]
    log: str


class ServerReady(Event):
    """The server answers for our model."""

    url: str
    pid: int
    seconds: float


class ServerRestarting(Event):
    """The server has ended with ``status`` and is started again after a pause; the ``attempt``-th time in a row."""

    status: int
    attempt: int
    limit: int
    seconds: float


class ServerStopped(Event):
    """The server has ended; ``status`` is its exit status, negative for a signal."""

    status: int
