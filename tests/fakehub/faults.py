"""What may go wrong, by name. A fault applies to requests whose path matches, a number of times."""

from __future__ import annotations

import threading
from fnmatch import fnmatchcase
from typing import Any

ANSWERS = ("401", "403", "404", "407", "408", "416", "429", "451", "500", "502", "503", "504")
"""Faults that answer with their status."""
BODIES = ("drop", "stall", "trickle", "wrong_bytes", "wrong_length", "range_ignored")
"""Faults of the body of a file."""
LISTINGS = ("lying_size", "extra_names")
"""Faults of what a listing tells: ``sizes`` by name, ``names`` of files that are none."""
EVENTS = ("moving_branch", "vanish", "redirect_loop", "html")


class Fault:
    """One fault; ``facts`` depend on its kind: ``after`` (bytes), ``retry_after`` (seconds), ``headers``…"""

    def __init__(self, kind: str, path: str, times: int | None, facts: dict[str, Any]) -> None:
        if kind not in (*ANSWERS, *BODIES, *LISTINGS, *EVENTS):
            raise ValueError(f"no fault is called {kind}")
        self.kind, self.path, self.times, self.facts = kind, path, times, facts
        self.happened = threading.Event()


class Faults:
    """All that are waiting to happen."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._lock = threading.Lock()

    def add(self, fault: Fault) -> Fault:
        with self._lock:
            self._faults.append(fault)
        return fault

    def clear(self) -> None:
        with self._lock:
            self._faults.clear()

    def take(self, path: str, kinds: tuple[str, ...]) -> Fault | None:
        """Return the first fault of these kinds for a path, and count it."""
        with self._lock:
            for fault in self._faults:
                if fault.kind in kinds and fnmatchcase(path, fault.path) and fault.times != 0:
                    fault.times = None if fault.times is None else fault.times - 1
                    fault.happened.set()
                    return fault
        return None
