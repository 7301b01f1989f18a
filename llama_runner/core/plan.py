"""Deciding what has to run, and why. Pure: no I/O, no clock, no environment.

``decide`` is the only place that says whether a step must run; ``plan``, ``status``, a dry run and the executor
all call it, so none of them can tell another story than the run.

Everything observed arrives in one ``Snapshot`` value. What it lacks, the plan asks for (``Plan.questions``);
whoever can look answers and plans again (``engine.observe``). So nothing is looked at that no decision rests
on: on a warm start the plan never asks about the source tree that the binaries were built from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from llama_runner.core.source import Source
from llama_runner.core.step import (
    Needs,
    Place,
    Step,
    all_inputs,
    inputs,
    noted_inputs,
    recipe_of,
    step_key,
    topological,
)
from llama_runner.core.value import Value, field

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from llama_runner.core.digest import Digest, Key
    from llama_runner.core.record import Record

Payload = Literal["present", "restamp", "absent", "changed"]
"""The bytes of a record: as recorded; the same under a new stamp; gone; other than recorded."""


class DigestOf(Value):
    """Question: which digest do the bytes of this source have?"""

    source: Source


class RecordAt(Value):
    """Question: what does the state file say of this place?"""

    place: Place


class PayloadAt(Value):
    """Question: are the bytes there, and are they the recorded ones?"""

    place: Place


class EarlierOf(Value):
    """Question: what was made of an earlier state of the same source, beside a place that has no record?"""

    step: Step
    place: Place


Question = DigestOf | RecordAt | PayloadAt | EarlierOf


class Snapshot(Value):
    """Everything observed so far, and what the user insists on."""

    answers: Mapping[Question, Any] = field(default_factory=dict)
    force: frozenset[str] = frozenset()
    """Step kinds that run whatever their records say."""
    fresh_tools: bool = False
    """Whether a record made by another tool counts as out of date."""

    def having(self, answers: Mapping[Question, Any]) -> Snapshot:
        """Return a snapshot that also holds these answers; newer ones win."""
        return Snapshot({**self.answers, **answers}, self.force, self.fresh_tools)


class Reason(Value):
    """One reason why a step runs, as data; sentences are the command line's business.

    Kinds: ``no_record``, ``payload_gone``, ``payload_changed``, ``step_changed``, ``version_changed``,
    ``param_changed``, ``input_changed``, ``platform_changed``, ``tool_changed``, ``forced``. Of ``no_record``, ``name``
    is a file or ``commit`` that changed since the time ``old``, where an earlier state was made. Of ``payload_gone``,
    ``name`` is ``intermediate`` for a file that is removed once it was used.
    """

    kind: str
    name: str = ""
    old: Any = None
    new: Any = None

    def to_json(self) -> dict[str, Any]:
        """Return the reason without the members that say nothing."""
        value: dict[str, Any] = {"kind": self.kind}
        if self.name:
            value["name"] = self.name
        if self.old is not None or self.new is not None:
            value |= {"old": self.old, "new": self.new}
        return value


class Earlier(Value):
    """An artifact that was made of an earlier state of the same source, and what changed since."""

    made: str
    """When, in UTC: ``2026-11-21T09:41:03Z``."""
    changed: tuple[str, ...]
    """Files of a directory, or the commit of a repository."""


class Skip(Value):
    """Nothing to do: the record holds and the bytes are there, or nothing needs the bytes."""

    digest: Digest | None
    needed: bool = True
    restamp: bool = False


class Run(Value):
    """The step runs, for these reasons; at least one."""

    reasons: tuple[Reason, ...]


class Wait(Value):
    """Not yet knowable: the digests of these inputs come from steps that have not run."""

    on: tuple[str, ...]


class Look(Value):
    """Not yet observed: the decision rests on answers that the snapshot lacks."""

    questions: tuple[Question, ...]


Decision = Skip | Run | Wait | Look


def decide(step: Step, place: Place | None, digests: Mapping[str, Digest | None], snapshot: Snapshot) -> Decision:
    """Say whether a step whose bytes are needed must run.

    ``digests`` holds the output digest of each input by field name, None where it is not known yet.
    """
    known = {name: digest for name, digest in digests.items() if digest is not None}
    waiting = tuple(name for name in inputs(step) if name not in known)
    if waiting:
        return Wait(waiting)
    if place is None:
        raise ValueError(f"{step.kind} has no place although its key is known")
    if step.kind in snapshot.force:
        return Run((Reason("forced"),))
    if RecordAt(place) not in snapshot.answers:
        return Look((RecordAt(place),))
    record: Record | None = snapshot.answers[RecordAt(place)]
    if record is None:
        return _not_made(EarlierOf(step, place), snapshot)
    if record.key != step_key(step, known):
        return Run(tuple(_differences(record.recipe, recipe_of(step, known))))
    if snapshot.fresh_tools and (changed := tuple(_tools_changed(step, record, digests))):
        return Run(changed)
    if PayloadAt(place) not in snapshot.answers:
        return Look((PayloadAt(place),))
    return _by_payload(record, snapshot.answers[PayloadAt(place)])


def _by_payload(record: Record, payload: Payload) -> Decision:
    if payload == "changed":
        return Run((Reason("payload_changed"),))
    if payload == "absent":
        return Run((Reason("payload_gone", "intermediate" if record.made.get("kept") is False else ""),))
    return Skip(record.digest, restamp=payload == "restamp")


def _not_made(question: EarlierOf, snapshot: Snapshot) -> Decision:
    """Decide about a step without a record: it runs, and what was made before says why."""
    if question not in snapshot.answers:
        return Look((question,))
    earlier: Earlier | None = snapshot.answers[question]
    if earlier is None:
        return Run((Reason("no_record"),))
    return Run(tuple(Reason("no_record", name, earlier.made) for name in earlier.changed))


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterable[Reason]:
    """Compare two recipes field by field. They differ, so there is at least one reason."""
    found = False
    for name, kind in (("step", "step_changed"), ("version", "version_changed")):
        if old.get(name) != new.get(name):
            found = True
            yield Reason(kind, "", old.get(name), new.get(name))
    for block, kind in (("params", "param"), ("inputs", "input"), ("platform", "platform")):
        before, after = old.get(block) or {}, new.get(block) or {}
        for name in sorted({*before, *after}):
            if before.get(name) != after.get(name):
                found = True
                yield Reason(f"{kind}_changed", name, before.get(name), after.get(name))
    if not found:  # a record whose recipe was edited by hand: the key is right about it being wrong
        yield Reason("step_changed")


def _tools_changed(step: Step, record: Record, digests: Mapping[str, Digest | None]) -> Iterable[Reason]:
    for name in noted_inputs(step):
        new = digests.get(name)
        old = (record.noted.get(name) or {}).get("digest")
        if new is None or old != new:
            yield Reason("tool_changed", name, old, new)
    for name, value in step.tools.items():
        if record.noted.get(name) != value:
            yield Reason("tool_changed", name, record.noted.get(name), value)


class Planned(Value):
    """A step with the decision about it and what is known of its artifact."""

    step: Step
    decision: Decision
    key: Key | None
    place: Place | None
    digests: Mapping[str, Digest | None]

    @property
    def action(self) -> Literal["skip", "run", "wait"]:
        """The decision in one word."""
        match self.decision:
            case Skip():
                return "skip"
            case Run():
                return "run"
            case _:
                return "wait"


class Plan(Value):
    """Every step that the targets rest on, inputs first, each with its decision."""

    steps: tuple[Planned, ...]
    questions: tuple[Question, ...] = ()
    snapshot: Snapshot = field(default_factory=Snapshot)

    def of(self, step: Step) -> Planned:
        """Return what is planned for a step of the graph."""
        return next(planned for planned in self.steps if planned.step is step)

    @property
    def pending(self) -> tuple[Planned, ...]:
        """The steps that run or may run, in order."""
        return tuple(planned for planned in self.steps if not isinstance(planned.decision, Skip))

    @property
    def needs(self) -> Needs:
        """Bytes to fetch and disk to have free, summed over what will or may run."""
        each = [planned.step.needs() for planned in self.pending]
        return Needs(sum(needs.fetch for needs in each), sum(needs.disk for needs in each))


def make_plan(targets: Iterable[Step], snapshot: Snapshot) -> Plan:
    """Decide for every step that the targets rest on; the bytes of the targets are what is needed.

    The first pass goes down the stream and finds which digest each output has or would have; the second goes
    up it and decides for the steps whose bytes something needs. A step that nothing needs is skipped whatever
    its record says.
    """
    targets = list(targets)
    order = topological(targets)
    digests: dict[int, Digest | None] = {}
    keys: dict[int, Key | None] = {}
    places: dict[int, Place | None] = {}
    questions: dict[Question, None] = {}
    for node in order:
        if isinstance(node, Source):
            question = DigestOf(node)
            digests[id(node)] = snapshot.answers.get(question)
            if question not in snapshot.answers:
                questions[question] = None
            continue
        known = {name: digests[id(above)] for name, above in all_inputs(node).items()}
        key = keys[id(node)] = _key(node, known)
        upstream = {name: place for name, above in inputs(node).items() if (place := places.get(id(above))) is not None}
        place = places[id(node)] = node.place(key, known, upstream)
        digests[id(node)], asked = _output_digest(node, key, place, snapshot)
        questions.update(dict.fromkeys(asked))
    forced = {node for node in order if isinstance(node, Step) and node.kind in snapshot.force}
    needed = {id(node) for node in (*targets, *forced)}
    planned: list[Planned] = []
    for node in reversed(order):
        if isinstance(node, Source):
            continue
        known = {name: digests[id(above)] for name, above in all_inputs(node).items()}
        decision: Decision = Skip(digests[id(node)], needed=False)
        if id(node) in needed:
            decision = decide(node, places[id(node)], known, snapshot)
            if isinstance(decision, Look):
                questions.update(dict.fromkeys(decision.questions))
            elif not isinstance(decision, Skip):
                needed |= {id(above) for above in all_inputs(node).values()}
        planned.append(Planned(node, decision, keys[id(node)], places[id(node)], known))
    return Plan(tuple(reversed(planned)), tuple(questions), snapshot)


def _key(step: Step, digests: Mapping[str, Digest | None]) -> Key | None:
    known = {name: digest for name, digest in digests.items() if digest is not None}
    return step_key(step, known) if all(name in known for name in inputs(step)) else None


def _output_digest(
    step: Step, key: Key | None, place: Place | None, snapshot: Snapshot
) -> tuple[Digest | None, tuple[Question, ...]]:
    """Return the digest of a step's output where it is pinned or recorded, and what to ask to know it."""
    if step.promise is not None:
        return step.promise, ()
    if key is None or place is None or step.kind in snapshot.force:
        return None, ()
    if RecordAt(place) not in snapshot.answers:
        return None, (RecordAt(place),)
    record: Record | None = snapshot.answers[RecordAt(place)]
    if record is None or record.key != key:
        return None, ()
    return record.digest, ()
