"""Makes one graph of several: equal nodes of different graphs become one object, so that each step runs once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_runner.core.source import Source
from llama_runner.core.step import Node, Step, topological_order

if TYPE_CHECKING:
    from collections.abc import Iterable


def shared_targets(graphs: Iterable[Iterable[Step]]) -> list[list[Step]]:
    """Return the targets of each graph, with equal nodes as the same object.

    Nodes are equal if their classes and all of their fields are, marked ones too.
    """
    targets = [list(each) for each in graphs]
    known: dict[type[Node], list[tuple[list[Any], Node]]] = {}
    replaced: dict[Node, Node] = {}
    for node in topological_order(step for each in targets for step in each):
        fields = {name: _replaced(value, replaced) for name, value in node.__dict__.items() if name in node.fields}
        values, alike = list(fields.values()), known.setdefault(type(node), [])
        found = next((other for others, other in alike if others == values), None)
        if found is None:
            changed = any(value is not getattr(node, name) for name, value in fields.items())
            found = node.replace(**fields) if changed else node
            alike.append((values, found))
        replaced[node] = found
    return [[found for step in each if isinstance(found := replaced[step], Step)] for each in targets]


def _replaced(value: Any, replaced: dict[Node, Node]) -> Any:  # noqa: ANN401 - a field
    if isinstance(value, (Step, Source)):
        return replaced[value]
    if isinstance(value, tuple) and any(isinstance(each, (Step, Source)) for each in value):
        found = tuple(_replaced(each, replaced) for each in value)
        return value if all(one is other for one, other in zip(value, found, strict=True)) else found
    return value
