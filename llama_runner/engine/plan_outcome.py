"""The outcome of a plan, and the part of it that needs no execution: the steps that are up to date.

A warm start imports this module and not the executor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llama_runner.core.events import Sink, StepSkipped
from llama_runner.core.plan import Plan, PlannedStep, RecordAt, RemoteArtifactOf, Skip
from llama_runner.core.source import Source
from llama_runner.core.step import first_node
from llama_runner.store.digest_cache import payload_stamp

if TYPE_CHECKING:
    from pathlib import Path

    from llama_runner.core.artifact_record import Record
    from llama_runner.core.digest import Digest, Key
    from llama_runner.core.remote_store import RemoteArtifact, RemoteStore
    from llama_runner.core.step import Node, Place, Step
    from llama_runner.core.step_interfaces import Sources
    from llama_runner.store.artifacts import Store


class Outcome:
    """The key, place and digest of every step of an executed plan, and the steps that ran."""

    def __init__(self) -> None:
        self.keys: dict[Step, Key] = {}
        self.digests: dict[Node, Digest] = {}
        self.places: dict[Node, Place] = {}
        self.seconds: dict[Step, float] = {}
        """Durations of the steps that ran, in the order in which they ended."""
        self.fetched: dict[Step, float] = {}
        """Durations of the steps whose artifacts were fetched from the remote store."""


def skip_up_to_date(
    plan: Plan, store: Store, sources: Sources, sink: Sink, remote: RemoteStore | None = None
) -> Outcome:
    """Return the outcome of the steps that the plan skips, and update their records where needed."""
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
        if remote is not None and place is not None and (record is None or record.key != planned.key):
            _adopt_record(planned, place, plan, store, sources, remote)
        elif record is not None and place is not None:
            updated = _updated_record(planned.step, decision, record, sources, store.path(place))
            if updated != record:
                store.update(place, updated)
        if decision.needed:
            sink(StepSkipped(planned.step.kind, record.made.get("seconds") if record is not None else None))
    return outcome


def _adopt_record(
    planned: PlannedStep, place: Place, plan: Plan, store: Store, sources: Sources, remote: RemoteStore
) -> None:
    """Write the remote store's record of a step whose bytes are not needed: the next plan needs its digest."""
    if planned.key is None:
        return
    found: RemoteArtifact | None = plan.snapshot.answers.get(RemoteArtifactOf(planned.step, planned.key, place))
    if found is None:
        return
    from llama_runner.engine.new_record import fetched_record  # noqa: PLC0415 - not on the warm path

    digests = {name: digest for name, digest in planned.digests.items() if digest is not None}
    theirs = found.record
    record = fetched_record(
        planned.step,
        planned.key,
        digests,
        theirs,
        theirs.facts,
        sources,
        remote=remote.name,
        kept=not planned.step.transient,
    )
    store.adopt(place, record)


def _updated_record(step: Step, decision: Skip, record: Record, sources: Sources, path: Path) -> Record:
    """Return the record with a new stamp, a new origin of the source, or the mark to keep the bytes, as needed."""
    if not step.transient and record.made.get("kept") is False:
        record = record.replace(made={**record.made, "kept": True})
    if decision.restamp:
        record = record.replace(stamp=payload_stamp(path))
    source = first_node(step)
    if decision.needed and isinstance(source, Source):
        origin = sources.unrecorded_origin(source)
        if origin is not None:
            record = record.replace(source=origin)
    return record
