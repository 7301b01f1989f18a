"""Jobs: downloads, preparations and builds that go on without the client that began them.

A job is one call of ``Runner`` in a process of its own (``runner_call_worker``). Two requests for the same work share a
job. One that is cancelled, or ends with the gateway, keeps what arrived; the next one goes on from there.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal

from llama_runner.core.immutable_values import Value
from llama_runner.core.printable_text import printable
from llama_runner.gateway.errors import CallFailed, GatewayError, error_json
from llama_runner.gateway.start_runner_call_worker import Question, WorkerProcess
from llama_runner.system.utc_time import utc_text

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

Json = dict[str, Any]
State = Literal["running", "stopping", "done", "failed", "cancelled"]
Kind = Literal["download", "prepare", "build", "install"]

_INTERVAL = 0.06
"""Seconds between two events of progress for one follower."""
_TELL_S = 0.25
"""Seconds between two changes of progress that are told."""
_KEPT_JOBS = 200
_KEPT_EVENTS = 500
_KEPT_MESSAGES = 50
_MOST_RUNNING = 16
_RATE_S = 5.0
"""The time over which a rate is measured."""
_ENDED = ("done", "failed", "cancelled")


class UnknownJob(GatewayError):
    """No job has this id."""

    status = 404
    kind = "job_not_found"
    permanent = True

    def __init__(self, id: str) -> None:  # noqa: A002 - as the API calls it
        super().__init__(f"there is no job {printable(repr(id), limit=80)}", hint="GET /api/v1/jobs lists them")


class TooManyJobs(GatewayError):
    """As many jobs run as may run."""

    status = 429
    kind = "too_many_jobs"
    retry_after = 10

    def __init__(self) -> None:
        super().__init__(f"{_MOST_RUNNING} jobs run", hint="wait until one has ended, or cancel one")


class JobRuns(GatewayError):
    """A job that runs cannot be removed."""

    status = 409
    kind = "job_runs"

    def __init__(self, id: str) -> None:  # noqa: A002 - as above
        super().__init__(f"job {id} runs", hint="cancel it first")


class Work(Value, eq=False):
    """What a job does."""

    kind: Kind
    name: str
    """The model or the programs that it makes, for people."""
    question: Question
    finish: Callable[[Any], Awaitable[None]] | None = None
    """Called in the event loop with the result of the call, before the job counts as done."""

    @property
    def key(self) -> str:
        """Equal for two requests for the same work: the same call with the same arguments."""
        return json.dumps([self.kind, self.question.call, self.question.arguments], sort_keys=True, default=str)


class Job:
    """One job and what it has said. Everything is for the event loop."""

    def __init__(self, work: Work, changed: Callable[[Job], None]) -> None:
        self.id = secrets.token_hex(6)
        self.work = work
        self.state: State = "running"
        self.began = time.time()
        self.ended_at: float | None = None
        self.error: GatewayError | None = None
        self.followers, self.is_kept = 0, False
        self.ended = asyncio.Event()
        self.log: str | None = None
        """The log of the step that runs, or ran last, below the root."""
        self._on_change, self._told = changed, 0.0
        self._events: dict[tuple[str, str], Json] = {}
        """The newest of each kind and step: steps that run side by side report in turn."""
        self._messages: deque[Json] = deque(maxlen=_KEPT_MESSAGES)
        self._steps: dict[str, Json] = {}
        self._progress: Json | None = None
        self._samples: deque[tuple[float, str, int]] = deque()
        self._changed = asyncio.Event()
        self._finishing: asyncio.Task[None] | None = None
        self._process = WorkerProcess(work.question, self._take, self._end)
        changed(self)

    def to_json(self) -> Json:
        """Return it for the management API."""
        return {
            "id": self.id,
            "kind": self.work.kind,
            "name": self.work.name,
            "state": self.state,
            "began": utc_text(self.began),
            "ended": None if self.ended_at is None else utc_text(self.ended_at),
            "progress": self._progress,
            "steps": list(self._steps.values()),
            "messages": list(self._messages),
            "log": self.log,
            "result": self._process.value if self.state == "done" else None,
            "error": None if self.error is None else error_json(self.error),
        }

    def _take(self, event: Json) -> None:
        kind, step = str(event.get("event")), str(event.get("step", ""))
        if kind == "step_progress":
            self._count(step, event)
        elif kind in ("step_started", "step_finished", "step_skipped", "step_fetched"):
            self._steps[step] = {"step": step, "state": kind.removeprefix("step_"), "seconds": event.get("seconds")}
            self.log = event.get("log") or self.log
            self._progress = None if kind == "step_started" else self._progress
        elif kind in ("warned", "noticed", "lock_waiting"):
            text = str(event.get("text") or f"waiting for {event.get('holder')}")
            self._messages.append({"level": "warning" if kind == "warned" else "notice", "text": printable(text)})
        self._events.pop(next(iter(self._events)) if len(self._events) >= _KEPT_EVENTS else ("", ""), None)
        self._events[kind, str(event.get("text", step))] = event
        self._wake(is_progress=kind == "step_progress")

    def _count(self, step: str, event: Json) -> None:
        """Note progress; the rate is that of the last seconds."""
        done, total, now = int(event.get("done") or 0), int(event.get("total") or 0), time.monotonic()
        if self._samples and (self._samples[-1][1] != step or self._samples[-1][2] > done):
            self._samples.clear()
        self._samples.append((now, step, done))
        while len(self._samples) > 2 and now - self._samples[1][0] >= _RATE_S:  # noqa: PLR2004 - two make a rate
            self._samples.popleft()
        since, _, before = self._samples[0]
        rate = (done - before) / (now - since) if now > since else None
        left = (total - done) / rate if rate and total >= done else None
        self._progress = {
            "step": step,
            "done": done,
            "total": total,
            "unit": str(event.get("unit", "")),
            "rate": None if rate is None else round(rate, 1),
            "seconds_left": None if left is None else round(left, 1),
        }

    def _end(self) -> None:
        self._finishing = asyncio.ensure_future(self._finish())

    async def _finish(self) -> None:
        error: GatewayError | None = self._process.error
        try:
            if error is None and self.work.finish is not None:
                await self.work.finish(self._process.value)
        except GatewayError as failed:
            error = failed
        except Exception as failed:  # noqa: BLE001 - a job ends in every case
            error = CallFailed(f"{type(failed).__name__}: {failed}")
        self.error = error
        self.state = "done" if error is None else "cancelled" if self._process.is_stopping else "failed"
        self.ended_at = time.time()
        self.ended.set()
        self._wake()

    def _wake(self, *, is_progress: bool = False) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        now = time.monotonic()
        if not is_progress or now - self._told >= _TELL_S:
            self._told = now
            self._on_change(self)

    def stop(self) -> None:
        """End its process like on Ctrl-C; kill it if that takes too long."""
        if self.state == "running" and not self._process.has_ended:
            self.state = "stopping"
            self._process.stop()
            self._wake()

    async def follow(self) -> AsyncGenerator[Json, None]:
        """Yield the newest event of each kind and step, and those to come; raises the error of the job at the end."""
        sent: dict[tuple[str, str], Json] = {}
        while True:
            changed, ended = self._changed, self.ended.is_set()
            for key, event in list(self._events.items()):
                if sent.get(key) is not event:
                    sent[key] = event
                    yield event
            if ended:
                break
            await changed.wait()
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self.ended.wait(), _INTERVAL)
        if self.error is not None:
            raise self.error


class Jobs:
    """The jobs of one gateway, the newest last."""

    def __init__(self) -> None:
        self.on_change: Callable[[Job], None] = lambda _: None
        """Called when one has changed; of progress, a few times a second."""
        self.on_remove: Callable[[str], None] = lambda _: None
        """Called with the id of one that is forgotten."""
        self._jobs: dict[str, Job] = {}

    def list(self) -> list[Job]:
        """Return the jobs, the oldest first."""
        return [*self._jobs.values()]

    def get(self, id: str) -> Job:  # noqa: A002 - as the API calls it
        """Return a job; ``UnknownJob``."""
        if (job := self._jobs.get(id)) is None:
            raise UnknownJob(id)
        return job

    def remove(self, id: str) -> None:  # noqa: A002 - as above
        """Forget a job that has ended; ``JobRuns``, ``UnknownJob``."""
        if not self.get(id).ended.is_set():
            raise JobRuns(id)
        self._forget(id)

    def _forget(self, id: str) -> None:  # noqa: A002 - as above
        del self._jobs[id]
        self.on_remove(id)

    async def start(self, work: Work, *, keep: bool = True) -> Job:
        """Return the job that does a work: one that runs, or a new one. ``keep``: it goes on without followers.

        Raises ``TooManyJobs``, and ``CallFailed`` where no process can be started.
        """
        while (job := self._running(work.key)) is not None and job.state == "stopping":
            await job.ended.wait()
        if job is None:
            running = [each for each in self._jobs.values() if not each.ended.is_set()]
            if len(running) >= _MOST_RUNNING:
                raise TooManyJobs
            job = Job(work, self._tell)
            self._jobs[job.id] = job
            over = max(0, len(self._jobs) - _KEPT_JOBS)
            for each in [each for each in self._jobs.values() if each.ended.is_set()][:over]:
                self._forget(each.id)
        job.is_kept = job.is_kept or keep
        return job

    def _tell(self, job: Job) -> None:
        self.on_change(job)

    def _running(self, key: str) -> Job | None:
        return next((each for each in self._jobs.values() if each.work.key == key and not each.ended.is_set()), None)

    async def follow(self, job: Job) -> AsyncGenerator[Json, None]:
        """Yield the events of a job. It ends when its last follower leaves, unless it was started with ``keep``.

        Raises the error of the job.
        """
        job.followers += 1
        try:
            async for event in job.follow():
                yield event
        finally:
            job.followers -= 1
            if not job.followers and not job.is_kept:
                job.stop()

    async def close(self) -> None:
        """Stop all jobs and wait until they have ended."""
        for job in (jobs := self.list()):
            job.stop()
        for job in jobs:
            await job.ended.wait()
