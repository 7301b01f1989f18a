"""Answering the plan's questions from the disk, until it has none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_runner.core.plan import (
    DigestOf,
    Earlier,
    EarlierOf,
    Look,
    PayloadAt,
    Plan,
    RecordAt,
    Snapshot,
    decide,
    make_plan,
)
from llama_runner.core.source import Source
from llama_runner.core.step import origin_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from llama_runner.core.digest import Digest
    from llama_runner.core.plan import Decision, Question
    from llama_runner.core.step import Place, Step
    from llama_runner.core.workspace import Sources
    from llama_runner.store.artifacts import Store


class Observer:
    """Looks at what the plan asks about. Reads only."""

    def __init__(self, store: Store, sources: Sources) -> None:
        self._store, self.sources = store, sources

    def plan(self, targets: Iterable[Step], snapshot: Snapshot) -> Plan:
        """Plan, look at what the plan asks for, and plan again until nothing is asked."""
        targets = list(targets)
        while (plan := make_plan(targets, snapshot)).questions:
            snapshot = snapshot.having({question: self._answer(question, snapshot) for question in plan.questions})
        return plan

    def decide_again(
        self, step: Step, place: Place, digests: Mapping[str, Digest | None], snapshot: Snapshot
    ) -> Decision:
        """Decide about one step on a fresh look at its place, whatever the snapshot said of it."""
        stale = (RecordAt(place), PayloadAt(place))
        answers = {question: answer for question, answer in snapshot.answers.items() if question not in stale}
        snapshot = Snapshot(answers, snapshot.force, snapshot.fresh_tools)
        while isinstance(decision := decide(step, place, digests, snapshot), Look):
            snapshot = snapshot.having({asked: self._answer(asked, snapshot) for asked in decision.questions})
        return decision

    def _answer(self, question: Question, snapshot: Snapshot) -> Any:  # noqa: ANN401 - as the question asks
        match question:
            case DigestOf(source):
                return self.sources.digest(source)
            case RecordAt(place):
                return self._store.record(place)
            case PayloadAt(place):
                return self._store.payload(place, snapshot.answers[RecordAt(place)])
            case EarlierOf(step, place):
                return self._earlier(step, place)

    def _earlier(self, step: Step, place: Place) -> Earlier | None:
        record = self._store.earlier(place)
        if record is None or record.recipe.get("step") != step.kind:
            return None
        first = origin_of(step)
        changed: list[str] | None = None
        if isinstance(first, Source):
            changed = self.sources.changed(first, record.source)
        elif first.source.get("ref") == record.source.get("ref"):
            changed = ["commit"]
        return Earlier(str(record.made.get("at", "")), tuple(changed)) if changed else None
