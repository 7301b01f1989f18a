"""What is there without running anything: the skipped steps of a plan. All that a warm start needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llama_runner.core.events import Sink, StepSkipped
from llama_runner.core.plan import Plan, RecordAt, Skip

if TYPE_CHECKING:
    from llama_runner.core.digest import Digest, Key
    from llama_runner.core.record import Record
    from llama_runner.core.step import Node, Place, Step
    from llama_runner.engine.store import Store


class Outcome:
    """What executing a plan came to: the key, place and digest of every step, and which ones ran."""

    def __init__(self) -> None:
        self.keys: dict[Step, Key] = {}
        self.digests: dict[Node, Digest] = {}
        self.places: dict[Node, Place] = {}
        self.seconds: dict[Step, float] = {}
        """Of the steps that ran, in the order of their end."""


def settle(plan: Plan, store: Store, sink: Sink) -> Outcome:
    """Return the outcome of the steps that the plan skips, and record new stamps where it found some."""
    outcome = Outcome()
    for planned in plan.steps:
        decision, place = planned.decision, planned.place
        if not isinstance(decision, Skip):
            continue
        if planned.key is not None and place is not None:
            outcome.keys[planned.step], outcome.places[planned.step] = planned.key, place
        if decision.digest is not None:
            outcome.digests[planned.step] = decision.digest
        if place is None:
            continue
        record: Record | None = plan.snapshot.answers.get(RecordAt(place))
        if record is not None and not planned.step.transient and record.made.get("kept") is False:
            record = store.keep(place, record)
        if decision.needed:
            assert record is not None, "a step is up to date by its record"
            if decision.restamp:
                store.restamp(place, record)
            sink(StepSkipped(planned.step.kind, record.made.get("seconds")))
    return outcome
