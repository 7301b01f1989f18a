"""Puts the artifacts and records of an executed plan into a remote store."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from llama_runner.core.artifact_record import STATE_FILE
from llama_runner.core.events import Sink, StepProgress, StepPushed

if TYPE_CHECKING:
    from pathlib import Path

    from llama_runner.core.plan import Plan
    from llama_runner.core.remote_store import RemoteStore
    from llama_runner.core.step import Step
    from llama_runner.engine.plan_outcome import Outcome
    from llama_runner.store.artifacts import Store


def push(plan: Plan, outcome: Outcome, store: Store, remote: RemoteStore, sink: Sink) -> None:
    """Put there what is not there yet: what just ran, and what was up to date.

    Of artifacts whose bytes are not here, or that are deleted after use, the record is put there.
    """
    for planned in plan.steps:
        step = planned.step
        key, place = outcome.keys.get(step), outcome.places.get(step)
        record = None if place is None else store.record(place)
        if step.sharing == "nothing" or place is None or record is None or record.key != key or step in outcome.fetched:
            continue
        path = store.path(place)
        bytes_at = path if step.sharing == "bytes" and _has_bytes(path) else None
        began = time.monotonic()

        def on_progress(done: int, total: int, step: Step = step) -> None:
            sink(StepProgress(f"push {step.kind}", done, total, "bytes"))

        sent = remote.push(step, bytes_at, record, on_progress)
        if sent is not None and bytes_at is not None:
            sink(StepPushed(step.kind, round(time.monotonic() - began, 3), record.digest, sent, remote.name))


def _has_bytes(path: Path) -> bool:
    if path.is_dir():
        return any(child.name != STATE_FILE for child in path.iterdir())
    return path.is_file()
