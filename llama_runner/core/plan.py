"""Decides which steps have to run, and why. Pure: no I/O, no clock, no environment.

``decide`` is the only function that decides whether a step must run. ``plan``, ``status``, a dry run and the executor
all call it, so they always agree.

All observations are in one ``Snapshot`` value. ``Plan.questions`` lists the observations that a plan still needs;
``engine.observer`` answers them and plans again. So only what a decision depends on is observed: on a warm start the
plan does not ask for the digest of the source tree that the binaries were built from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from llama_runner.core.immutable_values import Value, field
from llama_runner.core.source import Source
from llama_runner.core.step import (
    Place,
    ResourceEstimate,
    Step,
    all_inputs,
    inputs,
    noted_inputs,
    recipe_of,
    step_key,
    topological_order,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from llama_runner.core.artifact_record import Record
    from llama_runner.core.digest import Digest, Key
    from llama_runner.core.remote_store import RemoteArtifact

PayloadState = Literal["present", "restamp", "absent", "changed"]
"""The bytes of an artifact compared with its record: same stamp; same bytes with a new stamp; deleted; other bytes."""


class DigestOf(Value):
    """Question: the digest of a source's bytes."""

    source: Source


class RecordAt(Value):
    """Question: the record of the artifact at a place, or None."""

    place: Place


class PayloadAt(Value):
    """Question: the ``PayloadState`` of the artifact at a place that has a record."""

    place: Place


class EarlierArtifactOf(Value):
    """Question: the artifact made from an earlier state of the same source, for a place without a record."""

    step: Step
    place: Place


class RemoteArtifactOf(Value):
    """Question: the ``RemoteArtifact`` of a key in the remote store, or None."""

    step: Step
    key: Key
    place: Place


Question = DigestOf | RecordAt | PayloadAt | EarlierArtifactOf | RemoteArtifactOf


class Snapshot(Value):
    """All observations so far, and the user's options that force steps to run."""

    answers: Mapping[Question, Any] = field(default_factory=dict)
    force: frozenset[str] = frozenset()
    """Step kinds that run even if they are up to date."""
    fresh_tools: bool = False
    """Whether a record made by another tool counts as out of date."""
    remote: bool = False
    """Whether a remote store is asked for what is not here."""

    def with_answers(self, answers: Mapping[Question, Any]) -> Snapshot:
        """Return a snapshot with these answers added; they replace older answers to the same questions."""
        return self.replace(answers={**self.answers, **answers})


class Reason(Value):
    """One reason why a step runs, as data. The command line makes a sentence of it.

    Kinds: ``no_record``, ``payload_gone``, ``payload_changed``, ``step_changed``, ``version_changed``,
    ``param_changed``, ``input_changed``, ``platform_changed``, ``tool_changed``, ``forced``. For ``no_record``,
    ``name`` is a file, or ``commit``, that changed since ``old``, the time at which an earlier state was made. For
    ``payload_gone``, ``name`` is ``intermediate`` for a file that is deleted after use, and ``removed`` or ``freed``
    for what the user or gc removed at the time ``old``.
    """

    kind: str
    name: str = ""
    old: Any = None
    new: Any = None

    def to_json(self) -> dict[str, Any]:
        """Return the reason as a JSON object without empty members."""
        value: dict[str, Any] = {"kind": self.kind}
        if self.name:
            value["name"] = self.name
        if self.old is not None or self.new is not None:
            value |= {"old": self.old, "new": self.new}
        return value


class EarlierArtifact(Value):
    """An artifact made from an earlier state of the same source, and the differences to the current state."""

    made: str
    """The time in UTC: ``2026-11-21T09:41:03Z``."""
    changed: tuple[str, ...]
    """The names of changed files of a directory, or ``commit`` for a repository."""


class Skip(Value):
    """The step does not run: its artifact is up to date, or no step needs it (``needed`` is False).

    ``restamp``: the bytes are unchanged but have a new stamp, which the record should get.
    """

    digest: Digest | None
    needed: bool = True
    restamp: bool = False


class Run(Value):
    """The step runs, for at least one reason; with ``remote`` its artifact is fetched from the remote store instead."""

    reasons: tuple[Reason, ...]
    remote: RemoteArtifact | None = None


class Wait(Value):
    """The decision is not possible yet: the inputs named in ``on`` are outputs of steps that have not run."""

    on: tuple[str, ...]


class Observe(Value):
    """The decision needs answers to these questions, which the snapshot lacks."""

    questions: tuple[Question, ...]


Decision = Skip | Run | Wait | Observe


def decide(step: Step, place: Place | None, digests: Mapping[str, Digest | None], snapshot: Snapshot) -> Decision:
    """Decide whether a step whose bytes are needed must run.

    ``digests`` has the output digest of each input by field name, None where it is not known yet.
    """
    found = _decide_here(step, place, digests, snapshot)
    if not isinstance(found, Run) or step.sharing != "bytes" or step.kind in snapshot.force or not snapshot.remote:
        return found
    assert place is not None, "a step that runs has a place"
    question = RemoteArtifactOf(step, step_key(step, {name: each for name, each in digests.items() if each}), place)
    if question not in snapshot.answers:
        return Observe((question,))
    remote: RemoteArtifact | None = snapshot.answers[question]
    return found if remote is None or not remote.has_bytes else found.replace(remote=remote)


def _decide_here(step: Step, place: Place | None, digests: Mapping[str, Digest | None], snapshot: Snapshot) -> Decision:
    """Decide from what is on this machine."""
    known = {name: digest for name, digest in digests.items() if digest is not None}
    waiting = tuple(name for name in inputs(step) if name not in known)
    if waiting:
        return Wait(waiting)
    if place is None:
        raise ValueError(f"{step.kind} has no place although its key is known")
    if step.kind in snapshot.force:
        return Run((Reason("forced"),))
    if RecordAt(place) not in snapshot.answers:
        return Observe((RecordAt(place),))
    record: Record | None = snapshot.answers[RecordAt(place)]
    if record is None:
        return _not_made(EarlierArtifactOf(step, place), snapshot)
    if record.key != step_key(step, known):
        return Run(tuple(_differences(record.recipe, recipe_of(step, known))))
    if snapshot.fresh_tools and (changed := tuple(_tools_changed(step, record, digests))):
        return Run(changed)
    if PayloadAt(place) not in snapshot.answers:
        return Observe((PayloadAt(place),))
    return _by_payload(record, snapshot.answers[PayloadAt(place)])


def _by_payload(record: Record, payload: PayloadState) -> Decision:
    if payload == "changed":
        return Run((Reason("payload_changed"),))
    if payload == "absent":
        for how in ("removed", "freed"):
            if at := record.made.get(how):
                return Run((Reason("payload_gone", how, at),))
        return Run((Reason("payload_gone", "intermediate" if record.made.get("kept") is False else ""),))
    return Skip(record.digest, restamp=payload == "restamp")


def _not_made(question: EarlierArtifactOf, snapshot: Snapshot) -> Decision:
    """Decide about a step without a record: it runs; an earlier artifact of the same source gives the reasons."""
    if question not in snapshot.answers:
        return Observe((question,))
    earlier: EarlierArtifact | None = snapshot.answers[question]
    if earlier is None:
        return Run((Reason("no_record"),))
    return Run(tuple(Reason("no_record", name, earlier.made) for name in earlier.changed))


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterable[Reason]:
    """Compare two different recipes field by field; yields at least one reason."""
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
    if not found:  # the recipe in the record was edited, so that it does not match the key
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


class PlannedStep(Value):
    """A step with its decision, key, place and the digests of its inputs as far as they are known."""

    step: Step
    decision: Decision
    key: Key | None
    place: Place | None
    digests: Mapping[str, Digest | None]

    @property
    def action(self) -> Literal["skip", "run", "fetch", "wait"]:
        """The decision as a word."""
        match self.decision:
            case Skip():
                return "skip"
            case Run(remote=remote):
                return "run" if remote is None else "fetch"
            case _:
                return "wait"

    @property
    def remote(self) -> RemoteArtifact | None:
        """The artifact in the remote store that is fetched; None if the step does not run, or runs here."""
        return self.decision.remote if isinstance(self.decision, Run) else None

    @property
    def estimate(self) -> ResourceEstimate:
        """The bytes to download and the disk space needed if the step runs."""
        if self.remote is None:
            return self.step.estimate()
        return ResourceEstimate(fetch=self.remote.record.bytes, disk=self.remote.record.bytes)


class Plan(Value):
    """The targets and all steps that they depend on, inputs first, each with its decision."""

    steps: tuple[PlannedStep, ...]
    questions: tuple[Question, ...] = ()
    snapshot: Snapshot = field(default_factory=Snapshot)

    def of(self, step: Step) -> PlannedStep:
        """Return the planned step of a step of the graph."""
        return next(planned for planned in self.steps if planned.step is step)

    @property
    def pending(self) -> tuple[PlannedStep, ...]:
        """The steps that run or may run, inputs first."""
        return tuple(planned for planned in self.steps if not isinstance(planned.decision, Skip))

    @property
    def estimate(self) -> ResourceEstimate:
        """The bytes to download and the disk space needed, summed over the pending steps."""
        each = [planned.estimate for planned in self.pending]
        return ResourceEstimate(sum(estimate.fetch for estimate in each), sum(estimate.disk for estimate in each))


def make_plan(targets: Iterable[Step], snapshot: Snapshot) -> Plan:
    """Decide about the targets, whose bytes are needed, and about every step that they depend on.

    The first pass goes from inputs to targets and finds the digest that each output has or will have. The second pass
    goes from targets to inputs and decides about the steps whose bytes are needed. A step whose bytes are not needed is
    skipped even if it is out of date.
    """
    targets = list(targets)
    order = topological_order(targets)
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
    planned: list[PlannedStep] = []
    for node in reversed(order):
        if isinstance(node, Source):
            continue
        known = {name: digests[id(above)] for name, above in all_inputs(node).items()}
        decision: Decision = Skip(digests[id(node)], needed=False)
        if id(node) in needed:
            decision = decide(node, places[id(node)], known, snapshot)
            if isinstance(decision, Observe):
                questions.update(dict.fromkeys(decision.questions))
            elif not isinstance(decision, Skip) and not (isinstance(decision, Run) and decision.remote is not None):
                needed |= {id(above) for above in all_inputs(node).values()}
        planned.append(PlannedStep(node, decision, keys[id(node)], places[id(node)], known))
    return Plan(tuple(reversed(planned)), tuple(questions), snapshot)


def _key(step: Step, digests: Mapping[str, Digest | None]) -> Key | None:
    known = {name: digest for name, digest in digests.items() if digest is not None}
    return step_key(step, known) if all(name in known for name in inputs(step)) else None


def _output_digest(
    step: Step, key: Key | None, place: Place | None, snapshot: Snapshot
) -> tuple[Digest | None, tuple[Question, ...]]:
    """Return the digest of a step's output if it is pinned or recorded, and the questions to answer to find it."""
    if step.expected_digest is not None:
        return step.expected_digest, ()
    if key is None or place is None or step.kind in snapshot.force:
        return None, ()
    if RecordAt(place) not in snapshot.answers:
        return None, (RecordAt(place),)
    record: Record | None = snapshot.answers[RecordAt(place)]
    if record is not None and record.key == key:
        return record.digest, ()
    question = RemoteArtifactOf(step, key, place)
    if not snapshot.remote or step.sharing == "nothing":
        return None, ()
    if question not in snapshot.answers:
        return None, (question,)
    remote: RemoteArtifact | None = snapshot.answers[question]
    return (None if remote is None else remote.record.digest), ()
