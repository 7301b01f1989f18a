"""When a plan has the check of a converted model, and what its result means for a start.

A model is checked once it was converted by a version that checks; models of earlier stores are not, so that a start
that had nothing to do still has nothing to do. A check makes no other step run: it is left out where something that it
reads is not here, or where the libraries that read the original are not installed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llama_runner.core.errors import StepError
from llama_runner.core.plan import RecordAt, Skip
from llama_runner.core.step import Step, inputs

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from llama_runner.core.artifact_record import Record
    from llama_runner.core.events import Sink
    from llama_runner.core.plan import Plan, PlannedStep
    from llama_runner.engine.observer import Observer
    from llama_runner.engine.plan_outcome import Outcome
    from llama_runner.steps.compare_with_original import Check
    from llama_runner.store.artifacts import Store

MARK = "check"
"""The fact in the record of a conversion that a check follows."""


def differs_error(name: str, text: str) -> StepError:
    """Return the error for a file that does not do what its original does."""
    return StepError(
        f"{name} is not like its original: {text}",
        hint="llama-runner check shows the differences; --no-check uses the model all the same",
    )


def with_checks(
    observer: Observer, plan: Plan, targets: Iterable[Step], checks: Iterable[Check], store: Store, sink: Sink | None
) -> Plan:
    """Return the plan with the checks that are due; ``sink`` is told of one that cannot be made."""
    targets = list(targets)
    due = [check for check in checks if check not in targets and _is_due(plan, check)]
    if not due:
        return plan
    found = observer.plan([*targets, *due], plan.snapshot)
    if not any(planned.step in due for planned in found.pending):
        return found
    from llama_runner.fidelity.find_python_with_transformers import reference_python  # noqa: PLC0415 - only before a check

    python = reference_python(store.root)
    if python is None:
        if sink is not None and any(_runs(plan, conversion_of(check)) for check in due):
            from llama_runner.core.events import Noticed  # noqa: PLC0415 - as above

            text = "not checked: the Python packages tokenizers and jinja2 are not installed (llama-runner[check])"
            sink(Noticed("check", text))
        return plan
    if python:
        due = [check.replace(python=str(python)) for check in due]
    for check in list(due):
        found = observer.plan([*targets, check], plan.snapshot)
        if {planned.step for planned in found.pending} - {planned.step for planned in plan.pending} - {check}:
            due.remove(check)
    return observer.plan([*targets, *due], plan.snapshot) if due else plan


def _is_due(plan: Plan, check: Check) -> bool:
    conversion = conversion_of(check)
    planned = _planned(plan, conversion)
    if planned is None or planned.place is None or _planned(plan, check.model) is None:
        return False
    if _runs(plan, conversion) or MARK in plan.snapshot.force:
        return True
    record: Record | None = plan.snapshot.answers.get(RecordAt(planned.place))
    return record is not None and MARK in record.facts


def conversion_of(check: Check) -> Step | None:
    """Return the step that converts the model."""
    node = check.model
    while isinstance(node, Step) and node.kind != "convert":
        node = next(iter(inputs(node).values()), None)  # type: ignore[assignment]  # a step without inputs ends it
    return node if isinstance(node, Step) else None


def _planned(plan: Plan, step: object) -> PlannedStep | None:
    return next((planned for planned in plan.steps if planned.step is step), None)


def _runs(plan: Plan, step: Step | None) -> bool:
    planned = _planned(plan, step)
    return planned is not None and not isinstance(planned.decision, Skip)


def checked_models(plan: Plan, outcome: Outcome, store: Store) -> Iterable[tuple[Check, Path, Record]]:
    """Yield the checks of an executed plan, each with its report and its record."""
    for planned in plan.steps:
        if planned.step.kind != MARK:
            continue
        place = outcome.places.get(planned.step, planned.place)
        record = None if place is None else plan.snapshot.answers.get(RecordAt(place))
        if place is not None and (record is None or planned.step in outcome.seconds):
            record = store.record(place)
        if place is not None and record is not None:
            yield planned.step, store.path(place), record  # type: ignore[misc]  # the only step of this kind


def raise_differences(plan: Plan, outcome: Outcome, store: Store, name: str) -> None:
    """Raise ``StepError`` if a check of the plan says that the file is not like its original."""
    for _, _, record in checked_models(plan, outcome, store):
        found = record.facts.get("findings")
        wrong = [one for one in (found if isinstance(found, list) else ()) if isinstance(one, dict)]
        for one in wrong:
            if one.get("cause") == "file":
                raise differs_error(name, f"{one.get('part')}: {one.get('text')}")
