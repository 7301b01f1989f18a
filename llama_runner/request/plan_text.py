"""The decisions of a plan as text for people: the reasons are data in the plan."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from llama_runner.core.sizes import size_text
from llama_runner.core.step import inputs

if TYPE_CHECKING:
    from llama_runner.core.plan import PlannedStep, Reason

_LONGEST = 60
"""Characters of a value."""


def reason_text(reason: Reason, step: str) -> str:
    """Return a reason why a step of this kind runs, as a clause."""
    old, new = _brief(reason.old), _brief(reason.new)
    gone = "it is gone"
    if reason.name == "intermediate":
        gone = "its file was removed after it was used" + ("; --keep-f16 keeps it" if step == "convert" else "")
    elif reason.name in ("removed", "freed"):
        gone = f"removed by `{'models remove' if reason.name == 'removed' else 'gc'}` ({time_text(old)})"
    return {
        "no_record": f"{reason.name} changed since {time_text(old)}" if reason.name else "not made yet",
        "payload_gone": gone,
        "payload_changed": "it was changed after it was made",
        "step_changed": "the way it is made changed",
        "version_changed": f"the step changed from version {old} to {new}",
        "param_changed": f"{reason.name} changed from {old} to {new}",
        "input_changed": f"its input {reason.name} changed",
        "platform_changed": f"the machine changed: {reason.name}",
        "tool_changed": f"its tool {reason.name} changed",
        "forced": "you asked for it",
    }[reason.kind]


def time_text(at: str) -> str:
    """Return a time in UTC as people here write it: the hour of today, the date of another day."""
    from datetime import datetime  # noqa: PLC0415 - only for what is out of date

    try:
        then = datetime.fromisoformat(at.replace("Z", "+00:00")).astimezone()
    except ValueError:
        return at
    return f"{then:%H:%M}" if then.date() == datetime.now().astimezone().date() else f"{then:%Y-%m-%d}"


def _brief(value: Any) -> str:  # noqa: ANN401 - JSON is anything
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "…"


def why_text(planned: PlannedStep) -> list[str]:
    """Return why a step runs, may run or does not."""
    found = [reason_text(reason, planned.step.kind) for reason in getattr(planned.decision, "reasons", ())]
    if planned.remote is not None:
        found.append(f"fetched from the remote store, {size_text(planned.remote.record.bytes)}")
    if on := getattr(planned.decision, "on", ()):
        kinds = [inputs(planned.step)[name].kind for name in on]
        found.append(f"runs if {' or '.join(kinds)} gives different bytes")
    if planned.action == "skip":
        found.append("up to date" if getattr(planned.decision, "needed", True) else "not needed")
    return found
