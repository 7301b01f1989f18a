"""The latest events of the gateway, numbered, for readers that follow them and may be slow.

Every reader reads from the same bounded log, so that a slow one costs nothing: it misses what was forgotten meanwhile
and is told so. What the scheduler does is kept as it is and described when somebody reads it; only a refusal is
described at once.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from llama_runner.core.immutable_values import Value
from llama_runner.gateway import scheduler_state as state
from llama_runner.gateway.errors import error_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from llama_runner.gateway.scheduler_state import Effect, Event

Json = dict[str, Any]

_KEPT = 2048

_NAMES: dict[type, str] = {
    state.Request: "request_queued",
    state.Cancelled: "request_cancelled",
    state.Finished: "request_finished",
    state.Grant: "request_granted",
    state.Refuse: "request_refused",
    state.Prepare: "model_preparing",
    state.Prepared: "model_prepared",
    state.Start: "model_loading",
    state.Ready: "model_ready",
    state.LoadFailed: "model_failed",
    state.Died: "model_failed",
    state.Stop: "model_stopping",
    state.Stopped: "model_stopped",
    state.Unload: "model_unloading",
    state.MemoryMeasured: "memory_measured",
    state.Shutdown: "gateway_closing",
    state.Quit: "gateway_closed",
}
"""Names of the scheduler's events and effects; those that are not here are of no interest outside of it."""
_MEMBERS = ("id", "model", "ok", "seconds", "need", "available", "instance")
_OTHERS = (
    *("models_changed", "job", "job_removed", "running", "machine"),
    *("config_changed", "programs_changed", "sessions_changed", "reset"),
)
TYPES = tuple(dict.fromkeys((*_NAMES.values(), *_OTHERS)))
"""The types of all events."""


class Numbered(Value, eq=False):
    """One event of the log."""

    number: int
    at: float
    """Seconds since the epoch."""
    type: str
    what: Any
    """A JSON object, or an event or effect of the scheduler."""

    def data(self) -> Json:
        """Return what readers get."""
        found = self.what if isinstance(self.what, dict) else _described(self.what)
        return {"type": self.type, "time": round(self.at, 3), **found}


class EventLog:
    """The latest events. Not thread-safe: the event loop owns it."""

    def __init__(self) -> None:
        self.run = secrets.token_hex(4)
        """Part of the ids of events: those of another run of the gateway mean nothing here."""
        self.readers = 0
        self.on_reader: Callable[[], None] = lambda: None
        """Called when a reader begins."""
        self.is_closed = False
        self._events: deque[Numbered] = deque(maxlen=_KEPT)
        self._last = 0
        self._news = asyncio.Event()

    def add(self, kind: str, what: Json) -> None:
        """Add an event."""
        self._last += 1
        self._events.append(Numbered(self._last, time.time(), kind, what))
        self._wake()

    def note(self, what: Event | Effect) -> None:
        """Add an event or effect of the scheduler."""
        if isinstance(what, state.Reload):  # not kept: it has every declared model
            self.add("models_changed", {"models": len(what.policies)})
        elif isinstance(what, state.Refuse):  # its error is not kept: its traceback has the request with its body
            self.add(_NAMES[state.Refuse], _described(what))
        elif (kind := _NAMES.get(type(what))) is not None:
            self._last += 1
            self._events.append(Numbered(self._last, time.time(), kind, what))
            self._wake()

    def note_session(self, model: str, event: str, **_: Any) -> None:  # noqa: ANN401 - JSON
        """Add an event where the states on disk have changed."""
        if event in {"session_saved", "sessions_removed"}:
            self.add("sessions_changed", {"model": model})

    def _wake(self) -> None:
        if self.readers:
            news, self._news = self._news, asyncio.Event()
            news.set()

    def close(self) -> None:
        """Let all readers end."""
        self.is_closed = True
        self._wake()

    @property
    def last(self) -> int:
        """The number of the newest event."""
        return self._last

    def after(self, number: int) -> tuple[list[Numbered], int]:
        """Return the events after a number, and how many of them are forgotten."""
        first = self._events[0].number if self._events else self._last + 1
        skip = max(0, number + 1 - first)
        return [self._events[at] for at in range(skip, len(self._events))], max(0, first - number - 1)

    async def wait(self, number: int, timeout: float) -> bool:
        """Wait until there is an event after a number; False if none came in time."""
        if self._last > number or self.is_closed:
            return True
        try:
            await asyncio.wait_for(self._news.wait(), timeout)
        except asyncio.TimeoutError:
            return False
        return True

    def number_of(self, id: str) -> int | None:  # noqa: A002 - as the API calls it
        """Return the number of an event id of this run; None for any other text."""
        run, _, number = id.partition("-")
        return int(number) if run == self.run and number.isdecimal() and len(number) < 20 else None  # noqa: PLR2004


def _described(what: Event | Effect) -> Json:
    found = {name: getattr(what, name) for name in _MEMBERS if hasattr(what, name)}
    if isinstance(what, state.Refuse):
        found["error"] = error_json(what.error)
    if isinstance(what, (state.LoadFailed, state.Died)):
        found["error"] = error_json(what.failure.error(what.model))
    return found
