"""The steps of a plan and the artifacts of a lineage as a graph: nodes and edges, for programs that draw it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_runner.core.step import Step, inputs, noted_inputs
from llama_runner.request.plan_text import why_text

if TYPE_CHECKING:
    from llama_runner.core.plan import Plan, PlannedStep


def plan_graph(plan: Plan) -> dict[str, Any]:
    """Return the steps of a plan and their sources as ``{"nodes", "edges"}``, inputs first.

    A node has ``id``, ``kind`` (a step, or a source), ``action``, ``key``, ``output``, ``reasons`` and ``fetch`` and
    ``disk`` in bytes. An edge has ``from``, ``to``, ``input`` (the field of the step), and ``keyed``: whether a change
    of these bytes makes the step run again.
    """
    ids: dict[Any, str] = {}
    nodes: list[dict[str, Any]] = []
    edges: list[dict[str, Any]] = []
    for planned in plan.steps:
        kept = {**inputs(planned.step), **noted_inputs(planned.step)}
        keyed = inputs(planned.step).keys()
        for node in kept.values():
            if not isinstance(node, Step) and node not in ids:
                ids[node] = f"n{len(ids)}"
                nodes.append(_source(ids[node], node))
        ids[planned.step] = f"n{len(ids)}"
        nodes.append(_step(ids[planned.step], planned))
        for name, node in kept.items():
            if node in ids:
                edges.append({"from": ids[node], "to": ids[planned.step], "input": name, "keyed": name in keyed})
    return {"nodes": nodes, "edges": edges}


def _source(own: str, node: Any) -> dict[str, Any]:  # noqa: ANN401 - a source of any kind
    pin: Any = getattr(node, "pin", None)
    place = f"{pin.repo}@{pin.commit}" if hasattr(pin, "repo") else str(getattr(node, "path", ""))
    empty: dict[str, Any] = {"action": "source", "key": None, "reasons": [], "fetch": 0, "disk": 0}
    return {"id": own, "kind": str(node.kind), "output": place or None, **empty}


def _step(own: str, planned: PlannedStep) -> dict[str, Any]:
    pending = planned.action != "skip"
    return {
        "id": own,
        "kind": planned.step.kind,
        "action": planned.action,
        "key": planned.key,
        "output": None if planned.place is None else str(planned.place).rstrip("/"),
        "reasons": list(why_text(planned)),
        "fetch": planned.estimate.fetch if pending else 0,
        "disk": planned.estimate.disk if pending else 0,
    }
