"""Random load on a gateway: requests of two protocols, clients that leave, processes that die, unloads and reloads.

Every request has to end with a status that is right at that moment. After each round, when nothing is asked any more,
memory, open files and processes are written down; a gateway that leaks has more of them at the end than at the start.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import signal
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import psutil

from tests.gateway.streams import Stream

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.gateway.conftest import Running

NAMES = ("one", "two", "three")
CONFIG = """
[gateway.memory]
host = "58M"
prompt_cache = 0
[defaults]
threads = 1
[models.one]
demo = true
[models.two]
demo = true
[models.three]
demo = true
ctx_size = {size}
"""
"""Three models of which two fit."""
_CAUSES = ("server_lost", "load_failed", "stopped while it answered", "could not be loaded")
"""What an error says where a process was killed while it answered, or twice while it loaded."""
CLIENTS = 6


class Soak:
    """Loads a gateway with requests and faults that a seed decides."""

    def __init__(self, running: Running, seed: int) -> None:
        self.running, self.random = running, random.Random(seed)
        self.outcomes: Counter[str] = Counter()
        self.wrong: list[str] = []
        """Requests that ended otherwise than they may."""
        self.states: list[dict[str, int]] = []
        """What the gateway had after each round, when nothing was asked."""
        self._lock = threading.Lock()

    def run(self, seconds: float, pause: float) -> None:
        """Ask and disturb for so long, in rounds of ``pause`` seconds."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.round(min(end, time.monotonic() + pause))

    def round(self, until: float) -> None:
        """Ask and disturb until a time, then wait until all is quiet and write down what the gateway has."""
        seeds = [self.random.random() for _ in range(CLIENTS)]
        with ThreadPoolExecutor(CLIENTS + 1) as pool:
            clients = [pool.submit(self._ask, random.Random(seed), until) for seed in seeds]
            pool.submit(self._disturb, random.Random(self.random.random()), until).result()
            for client in clients:
                client.result()
        self._quiet()
        self.states.append(self.state())

    def state(self) -> dict[str, int]:
        """Return what the gateway has."""
        process = psutil.Process(self.running.process.pid)
        return {
            "resident_kb": process.memory_info().rss >> 10,
            "files": process.num_fds(),
            "threads": process.num_threads(),
            "processes": len(process.children(recursive=True)),
        }

    def _quiet(self) -> None:
        """Wait until the gateway has neither requests nor processes."""
        for name in NAMES:
            self.running.post(f"/models/{name}/unload", {})
        self.running.wait_for(lambda: not self.running.running())
        # but for the process that waits to become the next server
        self.running.wait_for(lambda: len(psutil.Process(self.running.process.pid).children()) <= 1)
        self.running.wait_for(lambda: not self.running.children())
        time.sleep(0.2)  # connections that clients have closed

    def _note(self, what: str, status: int, wrong: object = None) -> None:
        with self._lock:
            self.outcomes[f"{what} {status}"] += 1
            if wrong is not None:
                self.wrong.append(f"{what} {status}: {wrong}")

    def _ask(self, chance: random.Random, until: float) -> None:
        ways: list[Callable[[random.Random], None]] = [self._chat, self._ollama, self._stream, self._leave]
        while time.monotonic() < until:
            chance.choice(ways)(chance)

    def _chat(self, chance: random.Random) -> None:
        status, answer = self.running.chat(chance.choice(NAMES), max_tokens=chance.randrange(1, 20))
        self._note("chat", status, None if status == 200 or is_of_a_kill(answer) else answer)

    def _ollama(self, chance: random.Random) -> None:
        body = {"model": chance.choice(NAMES), "prompt": "hi", "stream": chance.random() < 0.5}
        status, answer = self.running.post("/api/generate", body | {"options": {"num_predict": 8}})
        if isinstance(answer, bytes):  # a stream: its last line tells how it ended
            answer = json.loads(answer.splitlines()[-1])
        ended = status == 200 and answer.get("done")
        self._note("generate", status, None if ended or is_of_a_kill(answer) else answer)

    def _stream(self, chance: random.Random) -> None:
        with Stream(self.running.url, chance.choice(NAMES), max_tokens=chance.randrange(1, 60)) as stream:
            text = stream.rest()
            assert stream.answer is not None
            status = stream.answer.status
        ended = status == 200 and text.endswith(b"data: [DONE]\n\n")
        self._note("stream", status, None if ended or is_of_a_kill(text[-1000:].decode()) else text[-500:].decode())

    def _leave(self, chance: random.Random) -> None:
        """Leave at once, or after the first event."""
        with (
            contextlib.suppress(AssertionError, OSError, http.client.HTTPException),
            Stream(self.running.url, chance.choice(NAMES), max_tokens=60) as stream,
        ):
            if chance.random() < 0.5:
                stream.first()
        self._note("left", 0)

    def _disturb(self, chance: random.Random, until: float) -> None:
        ways: list[Callable[[random.Random], None]] = [self._kill, self._unload, self._reload]
        while (left := until - time.monotonic()) > 0:
            time.sleep(min(left, chance.uniform(0.2, 1.5)))
            chance.choice(ways)(chance)

    def _kill(self, chance: random.Random) -> None:
        if children := self.running.children():
            with contextlib.suppress(ProcessLookupError):
                os.kill(chance.choice(children).pid, signal.SIGKILL)
            self._note("killed", 0)

    def _unload(self, chance: random.Random) -> None:
        status, _ = self.running.post(f"/models/{chance.choice(NAMES)}/unload", {})
        self._note("unload", status, None if status == 200 else status)

    def _reload(self, chance: random.Random) -> None:
        size = chance.choice((512, 768, 1024))
        self.running.config.write_text(CONFIG.format(size=size), encoding="utf-8")
        self.running.process.send_signal(signal.SIGHUP)
        self.running.until("reloaded")
        self._note("reload", 0)

    def report(self) -> dict[str, Any]:
        """Return what happened and what the gateway had, for JSON."""
        lost = self.outcomes["chat 502"] + self.outcomes["generate 502"] + self.outcomes["stream 502"]
        return {
            "outcomes": dict(sorted(self.outcomes.items())),
            "lost_requests_per_kill": round(lost / max(1, self.outcomes["killed 0"]), 2),
            "wrong": self.wrong[:20],
            "first": self.states[0],
            "middle": self.states[len(self.states) // 2],
            "last": self.states[-1],
        }


def is_of_a_kill(answer: object) -> bool:
    """Return whether an answer is the error of a request whose process was killed."""
    return any(cause in str(answer) for cause in _CAUSES)
