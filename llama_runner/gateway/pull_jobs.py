"""Downloads that clients ask for: one job for each model, which several clients may follow.

A job is a process (``pull_worker``). It ends when its last follower leaves, unless it is ``kept``; what arrived stays,
and the next job goes on from there.
"""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from llama_runner.core.digest import short_hash
from llama_runner.core.printable_text import printable
from llama_runner.gateway.errors import BadRequest, GatewayError
from llama_runner.system import processes

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

Json = dict[str, Any]

_INTERVAL = 0.06
"""Seconds between two lines of progress for one client."""
_PATIENCE = 20.0
"""Seconds that a job has to stop before it is killed."""
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w./-]+)?(:[\w.-]+)?", re.ASCII)


class PullFailed(GatewayError):
    """A download, conversion or quantization failed."""

    status = 500
    kind = "pull_failed"
    permanent = True


def check_repository(name: str) -> None:
    """Raise ``BadRequest`` unless a name is that of a repository on the Hub: clients must not name paths or URLs."""
    if not _REPOSITORY.fullmatch(name):
        raise BadRequest(
            f"{printable(repr(name), limit=200)} is no name of a repository on the Hub",
            field="model",
            hint="use ORG/MODEL, ORG/MODEL:QUANTIZATION, or hf.co/ before one of these",
        )


class ProgressTranslator:
    """Events of the pipeline as statuses of Ollama's API. Pure."""

    def __init__(self) -> None:
        self._digest = ""

    def statuses(self, event: Json) -> list[Json]:
        """Return the statuses for an event, often none."""
        kind, step = event.get("event"), str(event.get("step", ""))
        if kind == "chosen":
            self._digest = str(event.get("digest") or f"sha256:{event.get('commit', '')}")
            return []
        if kind == "step_progress":
            return [self._progress(step, event)]
        if kind == "step_started":
            return [] if step == "download" else [{"status": f"running {printable(step)}"}]
        if kind == "step_finished" and step == "download":
            return [{"status": "verifying sha256 digest"}]
        if kind in ("noticed", "warned", "lock_waiting"):
            return [{"status": printable(str(event.get("text") or f"waiting for {event.get('holder')}"), limit=400)}]
        return []

    def _progress(self, step: str, event: Json) -> Json:
        total, done = int(event.get("total") or 0), int(event.get("done") or 0)
        counted = {"total": total, "completed": min(done, total)}
        if step == "download" and self._digest:
            return {"status": f"pulling {short_hash(self._digest, 12)}", "digest": self._digest, **counted}
        return {"status": f"running {printable(step)}", **counted}


class _Job:
    """One process that pulls a model, with what it has said."""

    def __init__(self, root: Path, name: str, keywords: Json, largest: int | None) -> None:
        self._statuses: dict[str, Json] = {}
        """The newest of each text: steps that run side by side report in turn."""
        self.error: PullFailed | None = None
        self.ended = asyncio.Event()
        self.followers, self.kept, self.stopping = 0, False, False
        self._changed = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._translator = ProgressTranslator()
        self._pulled = False
        self._said = ""
        job = {"root": str(root), "name": name, "keywords": keywords, "largest": largest}
        argv = processes.python_module("llama_runner.gateway.pull_worker")
        try:
            self._child = processes.start(argv, stdin=subprocess.PIPE)
            assert self._child.stdin is not None
            self._child.stdin.write(json.dumps(job, default=str).encode() + b"\n")
            self._child.stdin.flush()
        except OSError as error:
            raise PullFailed(f"the download could not be started: {error.strerror or error}") from error
        self._say({"status": "pulling manifest"})
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        """Pass the lines of the process to the event loop, in a thread."""
        assert self._child.stdout is not None
        with self._child.stdout:
            for text in self._child.stdout:
                self._later(self._take, text)
        self._later(self._end, self._child.wait())

    def _later(self, call: Any, value: Any) -> None:  # noqa: ANN401 - of _take or _end
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
            self.error = PullFailed(str(event.get("message")), hint=event.get("hint"))
        self._pulled = self._pulled or kind == "pulled"
        self._say(*self._translator.statuses(event))

    def _end(self, status: int) -> None:
        if self._pulled:
            self._say({"status": "writing manifest"}, {"status": "success"})
        elif self.error is None:
            why = "it was stopped" if self.stopping else f"its process ended with {status}. {printable(self._said)}"
            self.error = PullFailed(f"the download is not complete: {why}")
        assert self._child.stdin is not None
        with suppress(OSError):
            self._child.stdin.close()
        self.ended.set()
        self._wake()

    def _say(self, *statuses: Json) -> None:
        self._statuses |= {status["status"]: status for status in statuses}
        self._wake()

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def stop(self) -> None:
        """End the process like on Ctrl-C; kill it if that takes too long."""
        if not self.stopping and not self.ended.is_set():
            self.stopping = True
            assert self._child.stdin is not None
            with suppress(OSError):
                self._child.stdin.close()
            self._loop.call_later(_PATIENCE, self._kill)

    def _kill(self) -> None:
        if not self.ended.is_set():
            processes.signal_group(self._child, signal.SIGKILL)

    async def follow(self) -> AsyncGenerator[Json, None]:
        """Yield the statuses so far and those to come, the newest of each text; raises ``PullFailed`` at the end."""
        sent: dict[str, Json] = {}
        while True:
            changed, ended = self._changed, self.ended.is_set()
            for text, status in list(self._statuses.items()):
                if sent.get(text) is not status:
                    sent[text] = status
                    yield status
            if ended:
                break
            await changed.wait()
            await asyncio.sleep(0 if self.ended.is_set() else _INTERVAL)
        if self.error is not None:
            raise self.error


class PullJobs:
    """The jobs of one gateway."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._jobs: dict[str, _Job] = {}

    async def follow(
        self, name: str, keywords: Json, *, largest: int | None = None, keep: bool = False
    ) -> AsyncGenerator[Json, None]:
        """Pull a model, or join the job that pulls it, and yield its statuses.

        ``largest`` is the maximum number of bytes to download. The job ends when the last follower leaves; with
        ``keep`` it goes on. Raises ``PullFailed``.
        """
        key = name.lower()
        while (job := self._jobs.get(key)) is not None and job.stopping and not job.ended.is_set():
            await job.ended.wait()
        if job is None or job.ended.is_set():
            job = self._jobs[key] = _Job(self._root, name, keywords, largest)
        job.kept = job.kept or keep
        job.followers += 1
        try:
            async for status in job.follow():
                yield status
        finally:
            job.followers -= 1
            if not job.followers and not job.kept:
                job.stop()
            if job.ended.is_set() and self._jobs.get(key) is job:
                del self._jobs[key]

    async def close(self) -> None:
        """Stop all jobs and wait until they have ended."""
        for job in (jobs := list(self._jobs.values())):
            job.stop()
        for job in jobs:
            await job.ended.wait()
