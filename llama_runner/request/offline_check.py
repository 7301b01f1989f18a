"""Refuses a plan that would fetch something while there is to be no network (``--offline``)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llama_runner.core.errors import ToolError
from llama_runner.steps.download import Download

if TYPE_CHECKING:
    from llama_runner.core.plan import Plan
    from llama_runner.core.step import Step


def check_offline(plan: Plan) -> None:
    """Raise if something would have to be fetched: ``SourceError`` for a model, else ``ToolError``."""
    if fetching := fetching_steps(plan):
        from llama_runner.sources.hub.errors import offline_error  # noqa: PLC0415 - not on the warm path

        error = offline_error(", ".join(missing(plan)))
        if not any(isinstance(step, Download) for step in fetching):
            raise ToolError(str(error.args[0]), hint=error.hint)
        raise error


def missing(plan: Plan) -> tuple[str, ...]:
    """Return what a plan would fetch, in words."""
    return tuple(map(_what, fetching_steps(plan)))


def fetching_steps(plan: Plan) -> list[Step]:
    """Return the steps of a plan that would fetch something, other than from a remote store."""
    return [planned.step for planned in plan.pending if planned.remote is None and planned.step.estimate().fetch]


def _what(step: Step) -> str:
    """Say what a step would fetch."""
    if isinstance(step, Download):
        more = f" and {len(step.remote) - 1} more" if len(step.remote) > 1 else ""
        return f"{step.remote[0].name}{more} of {step.hub.pin.repo}"
    return str(step.source.get("ref", step.kind))
