"""Events of a run. The library does not print; it passes events to a sink that the caller supplies.

``to_json`` returns the object that ``run --json`` prints on one line: ``{"event": "step_finished", …}``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from llama_runner.core.immutable_values import Value
from llama_runner.core.plan import Reason


def snake_case(name: str) -> str:
    """Return the name of a class as JSON has it: ``StepFinished`` as ``step_finished``."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


class Event(Value):
    """Base class of the events."""

    @property
    def name(self) -> str:
        """The event's name in JSON: the class name in snake case."""
        return snake_case(type(self).__name__)

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
"""Receives the events."""


class Warned(Event):
    """A warning; the run continues. ``what`` is a keyword, ``text`` a clause."""

    what: str
    text: str


class Noticed(Event):
    """Information for the user; nothing is wrong. ``what`` is a keyword, ``text`` a clause."""

    what: str
    text: str


class Resolved(Event):
    """The Hub resolved a revision to a commit. ``unchanged``: the earlier pin has the same commit."""

    repo: str
    revision: str
    commit: str
    unchanged: bool = False


class Drifted(Event):
    """A revision on the Hub is now another commit (``new``) than the pinned one (``old``), with these changed files."""

    repo: str
    revision: str
    old: str
    new: str
    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]


class Chosen(Event):
    """The files that were selected for the download; ``why`` is a clause."""

    repo: str
    commit: str
    files: tuple[str, ...]
    bytes: int
    why: str


class StepSkipped(Event):
    """The step is up to date. ``seconds`` is the duration of the run that made its artifact.

    ``by_another``: another process made the artifact while this one waited for the lock.
    """

    step: str
    seconds: float | None = None
    by_another: bool = False


class StepStarted(Event):
    """A step starts, for these reasons; ``log`` is relative to the root."""

    step: str
    reasons: tuple[Reason, ...]
    log: str


class StepProgress(Event):
    """The progress of a running step, in ``unit``."""

    step: str
    done: int
    total: int
    unit: str


class TrainingProgress(StepProgress):
    """The progress of a training, with the loss of its last step; ``rate`` is the learning rate."""

    loss: float = 0.0
    rate: float = 0.0
    tokens_s: float = 0.0
    validation_loss: float | None = None


class StepFinished(Event):
    """A step has published its artifact."""

    step: str
    seconds: float
    digest: str
    bytes: int
    output: str


class StepFetched(Event):
    """The artifact of a step was fetched from the remote store ``remote`` and published; the step did not run."""

    step: str
    seconds: float
    digest: str
    bytes: int
    output: str
    remote: str


class StepPushed(Event):
    """An artifact was put into the remote store: ``sent`` bytes; the rest was there already."""

    step: str
    seconds: float
    digest: str
    sent: int
    remote: str


class StepUnchanged(Event):
    """A step ran again with the same output digest as before, so the steps that depend on it do not run."""

    step: str
    digest: str


class LockWaiting(Event):
    """Another process holds the lock of this step's key; ``holder`` describes it."""

    step: str
    holder: str


class Evicted(Event):
    """An intermediate artifact was deleted. Its record stays, so no step has to run again."""

    output: str
    bytes: int


class ServerStarted(Event):
    """llama-server was started and loads the model."""

    pid: int
    argv: tuple[str, ...]
    log: str


class ServerReady(Event):
    """The server answers requests for the model. ``seconds`` is the time since its start."""

    url: str
    pid: int
    seconds: float


class ServerRestarting(Event):
    """The server ended with ``status`` and restarts in ``seconds``; attempt ``attempt`` of ``limit`` in a row."""

    status: int
    attempt: int
    limit: int
    seconds: float


class ServerStopped(Event):
    """The server ended; ``status`` is its exit status, negative for a signal."""

    status: int
