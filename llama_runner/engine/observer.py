"""Observes sources and the store to answer the questions of a plan."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_runner.core.plan import (
    DigestOf,
    EarlierArtifact,
    EarlierArtifactOf,
    Observe,
    PayloadAt,
    Plan,
    RecordAt,
    RemoteArtifactOf,
    Snapshot,
    decide,
    make_plan,
)
from llama_runner.core.source import Source
from llama_runner.core.step import first_node

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from llama_runner.core.digest import Digest
    from llama_runner.core.plan import Decision, Question
    from llama_runner.core.remote_store import RemoteStore
    from llama_runner.core.step import Place, Step
    from llama_runner.core.step_interfaces import Sources
    from llama_runner.store.artifacts import Store


class Observer:
    """Answers the questions of plans from the disk. Writes nothing."""

    def __init__(self, store: Store, sources: Sources, remote: RemoteStore | None = None) -> None:
        self._store, self.sources, self._remote = store, sources, remote

    def plan(self, targets: Iterable[Step], snapshot: Snapshot) -> Plan:
        """Return a plan without questions: plan, answer the questions, and plan again until there are none."""
        targets = list(targets)
        while (plan := make_plan(targets, snapshot)).questions:
            snapshot = snapshot.with_answers(
                {question: self._answer(question, snapshot) for question in plan.questions}
            )
        return plan

    def decide_again(
        self, step: Step, place: Place, digests: Mapping[str, Digest | None], snapshot: Snapshot
    ) -> Decision:
        """Decide about one step after reading its record and payload again, whatever the snapshot has for them."""
        stale = (RecordAt(place), PayloadAt(place))
        answers = {question: answer for question, answer in snapshot.answers.items() if question not in stale}
        snapshot = snapshot.replace(answers=answers)
        while isinstance(decision := decide(step, place, digests, snapshot), Observe):
            snapshot = snapshot.with_answers({asked: self._answer(asked, snapshot) for asked in decision.questions})
        return decision

    def _answer(self, question: Question, snapshot: Snapshot) -> Any:  # noqa: ANN401 - as the question asks
        match question:
            case DigestOf(source):
                return self.sources.digest(source)
            case RecordAt(place):
                return self._store.record(place)
            case PayloadAt(place):
                return self._store.payload_state(place, snapshot.answers[RecordAt(place)])
            case EarlierArtifactOf(step, place):
                return self._earlier_artifact(step, place)
            case RemoteArtifactOf(step, key, place):
                return None if self._remote is None else self._remote.find(step, key, place)

    def _earlier_artifact(self, step: Step, place: Place) -> EarlierArtifact | None:
        record = self._store.earlier_record(place)
        if record is None or record.recipe.get("step") != step.kind:
            return None
        first = first_node(step)
        changed: list[str] | None = None
        if isinstance(first, Source):
            changed = self.sources.changed(first, record.source)
        elif first.source.get("ref") == record.source.get("ref"):
            changed = ["commit"]
        return EarlierArtifact(str(record.made.get("at", "")), tuple(changed)) if changed else None
