"""Starts a worker, one call of ``Runner`` in a process of its own, and passes on what it writes."""

from __future__ import annotations

import asyncio
import json
import subprocess
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from llama_runner.core.immutable_values import Value
from llama_runner.core.printable_text import printable
from llama_runner.gateway.errors import CallFailed
from llama_runner.system import processes
from llama_runner.system.platforms import KILL

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Json = dict[str, Any]

_PATIENCE = 20.0
"""Seconds that a worker has to stop before it is killed."""
_AT_ONCE = 4
"""Calls at the same time that a client waits for."""


class Question(Value):
    """A call of the library for a worker."""

    root: Path
    call: str
    """One of ``worker.CALLS``."""
    arguments: Json
    config: Path | None = None


class WorkerProcess:
    """One worker. ``on_event`` gets its events, ``on_end`` is called once: both in the event loop.

    After ``on_end`` there is either a ``value`` or an ``error``. Raises ``CallFailed`` where no process can be started.
    """

    def __init__(self, question: Question, on_event: Callable[[Json], None], on_end: Callable[[], None]) -> None:
        self.value: Any = None
        self.error: CallFailed | None = None
        self.is_stopping = self.has_ended = False
        self._on_event, self._on_end = on_event, on_end
        self._loop = asyncio.get_running_loop()
        self._has_value = False
        self._said = ""
        asked = {
            "root": str(question.root),
            "config": None if question.config is None else str(question.config),
            "call": question.call,
            "arguments": question.arguments,
        }
        try:
            self._child = processes.start(
                processes.python_module("llama_runner.gateway.runner_call_worker"), stdin=subprocess.PIPE
            )
        except OSError as error:
            raise CallFailed(f"a process could not be started: {error.strerror or error}") from error
        assert self._child.stdin is not None
        try:
            self._child.stdin.write(json.dumps(asked, default=str).encode() + b"\n")
            self._child.stdin.flush()
        except OSError:  # it has ended; what it wrote says why
            self._kill()
        threading.Thread(target=self._read, name="worker", daemon=True).start()

    def _read(self) -> None:
        """Pass the lines of the process to the event loop, in a thread."""
        assert self._child.stdout is not None
        with self._child.stdout:
            for text in self._child.stdout:
                self._later(self._take, text)
        self._later(self._end, self._child.wait())

    def _later(self, call: Callable[[Any], None], value: Any) -> None:  # noqa: ANN401 - of _take or _end
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(call, value)

    def _take(self, text: bytes) -> None:
        try:
            event = json.loads(text)
            kind = event.get("event")
        except (ValueError, AttributeError):  # a traceback
            self._said = text.decode("utf-8", "replace").strip() or self._said
            return
        if kind == "failed":
            self.error = CallFailed(
                str(event.get("message")),
                kind=str(event.get("type")),
                code=event.get("code"),
                hint=event.get("hint"),
                tail=map(str, event.get("tail") or ()),
            )
        elif kind == "result":
            self.value, self._has_value = event.get("value"), True
        else:
            self._on_event(event)

    def _end(self, status: int) -> None:
        if not self._has_value and self.error is None:
            why = "it was stopped" if self.is_stopping else f"its process ended with {status}. {printable(self._said)}"
            self.error = CallFailed(
                f"the work is not complete: {why}", kind="interrupted" if self.is_stopping else "call_failed"
            )
        assert self._child.stdin is not None
        with suppress(OSError):
            self._child.stdin.close()
        self.has_ended = True
        self._on_end()

    def stop(self) -> None:
        """End the process like on Ctrl-C; kill it if that takes too long."""
        if self.is_stopping or self.has_ended:
            return
        self.is_stopping = True
        assert self._child.stdin is not None
        with suppress(OSError):
            self._child.stdin.close()
        self._loop.call_later(_PATIENCE, self._kill)

    def _kill(self) -> None:
        if not self.has_ended:
            processes.signal_group(self._child, KILL)


class Workers:
    """Calls that a client waits for, a few at the same time."""

    def __init__(self) -> None:
        self._free = asyncio.Semaphore(_AT_ONCE)

    async def call(self, question: Question) -> Any:  # noqa: ANN401 - JSON
        """Make a call and return its result. Raises ``CallFailed``. A caller that is cancelled ends the process."""
        await self._free.acquire()
        ended = asyncio.Event()

        def on_end() -> None:
            self._free.release()  # only now: a process that is to stop may take a while
            ended.set()

        try:
            process = WorkerProcess(question, lambda _: None, on_end)
        except BaseException:
            self._free.release()
            raise
        try:
            await ended.wait()
        finally:
            process.stop()
        if process.error is not None:
            raise process.error
        return process.value
