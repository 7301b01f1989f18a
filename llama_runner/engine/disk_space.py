"""Refuses a plan for whose artifacts a file system has too little space."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from llama_runner.store import staging
from llama_runner.store.errors import disk_full_error

if TYPE_CHECKING:
    from pathlib import Path

    from llama_runner.core.plan import Plan, PlannedStep
    from llama_runner.store.artifacts import Store


def check_disk_space(store: Store, plan: Plan) -> None:
    """Raise ``StoreError`` if a file system has too little space for the artifacts that the plan puts on it."""
    store.private.mkdir(parents=True, exist_ok=True)
    on_device: dict[int, tuple[Path, list[PlannedStep]]] = {}
    for planned in plan.pending:
        final = store.private if planned.place is None else store.path(planned.place)
        directory = staging.nearest_directory(final)
        on_device.setdefault(directory.stat().st_dev, (directory, []))[1].append(planned)
    for directory, steps in on_device.values():
        need, free = sum(planned.estimate.disk for planned in steps), shutil.disk_usage(directory).free
        if need > free:
            need -= _resumable_bytes(store, steps)
        if need > free:
            raise disk_full_error(store.root if len(on_device) == 1 else directory, need=need, free=free)


def _resumable_bytes(store: Store, steps: list[PlannedStep]) -> int:
    """Return the bytes of unfinished work that the steps resume, at most each step's own estimate."""
    total = 0
    for planned in steps:
        if planned.key is not None:
            work = store.work(planned.step.kind, planned.key)
            found = sum(file.stat().st_size for file in work.rglob("*") if file.is_file())
            total += min(found, planned.estimate.disk)
    return total
