"""The decisions of a plan as text for people: the reasons are data in the plan."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from llama_runner.core.step import inputs

if TYPE_CHECKING:
    from llama_runner.core.plan import Planned, Reason

_LONGEST = 60
"""Characters of a value."""


def reason_text(reason: Reason) -> str:
    """Return a reason as a clause."""
    old, new = _brief(reason.old), _brief(reason.new)
    return {
        "no_record": "not made yet",
        "payload_gone": "the file is gone and something needs it",
        "payload_changed": "the file is not what was made",
        "step_changed": "the way it is made changed",
        "version_changed": f"the step changed from version {old} to {new}",
        "param_changed": f"{reason.name} changed from {old} to {new}",
        "input_changed": f"its input {reason.name} changed",
        "platform_changed": f"the machine changed: {reason.name}",
        "tool_changed": f"its tool {reason.name} changed",
        "forced": "you asked for it",
    }[reason.kind]


def _brief(value: Any) -> str:  # noqa: ANN401 - JSON is anything
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "…"


def why_text(planned: Planned) -> list[str]:
    """Return why a step runs, may run or does not."""
    found = [reason_text(reason) for reason in getattr(planned.decision, "reasons", ())]
    if on := getattr(planned.decision, "on", ()):
        kinds = [inputs(planned.step)[name].kind for name in on]
        found.append(f"runs if {' or '.join(kinds)} gives different bytes")
    if planned.action == "skip":
        found.append("up to date" if getattr(planned.decision, "needed", True) else "not needed")
    return found
