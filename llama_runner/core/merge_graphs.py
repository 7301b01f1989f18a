"""Makes one graph of several: equal nodes of different graphs become one object, so that each step runs once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_runner.core.source import Source
from llama_runner.core.step import Node, Step, topological_order

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


def merged_nodes(targets: Iterable[Step]) -> dict[Node, Node]:
    """Return for each node of several graphs the one that stands for it and for all equal ones.

    Nodes are equal if their classes and all of their fields are, marked ones too.
    """
    known: dict[type[Node], list[tuple[list[Any], Node]]] = {}
    merged: dict[Node, Node] = {}
    for node in topological_order(targets):
        fields = {name: with_merged(value, merged) for name, value in node.__dict__.items() if name in node.fields}
        values, alike = list(fields.values()), known.setdefault(type(node), [])
        found = next((other for others, other in alike if others == values), None)
        if found is None:
            changed = any(value is not getattr(node, name) for name, value in fields.items())
            found = node.replace(**fields) if changed else node
            alike.append((values, found))
        merged[node] = found
    return merged


def with_merged(value: Any, merged: Mapping[Node, Node]) -> Any:  # noqa: ANN401 - a field
    """Return a field with the nodes that stand for those in it; nodes that were not merged stay."""
    if isinstance(value, (Step, Source)):
        return merged.get(value, value)
    if isinstance(value, tuple) and any(isinstance(each, (Step, Source)) for each in value):
        found = tuple(with_merged(each, merged) for each in value)
        return value if all(one is other for one, other in zip(value, found, strict=True)) else found
    return value
