"""What is there without running anything: the skipped steps of a plan. All that a warm start needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llama_runner.core.events import Sink, StepSkipped
from llama_runner.core.plan import Plan, RecordAt, Skip
from llama_runner.core.source import Source
from llama_runner.core.step import origin_of
from llama_runner.store.stamps import stamp_of

if TYPE_CHECKING:
    from pathlib import Path

    from llama_runner.core.digest import Digest, Key
    from llama_runner.core.record import Record
    from llama_runner.core.step import Node, Place, Step
    from llama_runner.core.workspace import Sources
    from llama_runner.store.artifacts import Store


class Outcome:
    """What executing a plan came to: the key, place and digest of every step, and which ones ran."""

    def __init__(self) -> None:
        self.keys: dict[Step, Key] = {}
        self.digests: dict[Node, Digest] = {}
        self.places: dict[Node, Place] = {}
        self.seconds: dict[Step, float] = {}
        """Of the steps that ran, in the order of their end."""


def settle(plan: Plan, store: Store, sources: Sources, sink: Sink) -> Outcome:
    """Return the outcome of the steps that the plan skips, and bring their records up to date."""
    outcome = Outcome()
    for planned in plan.steps:
        decision, place = planned.decision, planned.place
        if not isinstance(decision, Skip):
            continue
        if planned.key is not None and place is not None:
            outcome.keys[planned.step], outcome.places[planned.step] = planned.key, place
        if decision.digest is not None:
            outcome.digests[planned.step] = decision.digest
        record: Record | None = None if place is None else plan.snapshot.answers.get(RecordAt(place))
        if record is not None and place is not None:
            newer = _newer(planned.step, decision, record, sources, store.path(place))
            if newer != record:
                store.update(place, newer)
        if decision.needed:
            sink(StepSkipped(planned.step.kind, record.made.get("seconds") if record is not None else None))
    return outcome


def _newer(step: Step, decision: Skip, record: Record, sources: Sources, path: Path) -> Record:
    """Return what the record should say now: a new stamp, another place of the source, a wish to keep the bytes."""
    if not step.transient and record.made.get("kept") is False:
        record = record.but(made={**record.made, "kept": True})
    if decision.restamp:
        record = record.but(stamp=stamp_of(path))
    source = origin_of(step)
    if decision.needed and isinstance(source, Source):
        origin = sources.unrecorded_origin(source)
        if origin is not None:
            record = record.but(source=origin)
    return record
