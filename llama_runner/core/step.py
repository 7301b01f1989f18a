"""What a pipeline is made of: sources (bytes that exist) and steps (bytes that can be made).

Both are values that refer to each other as plain objects, so a graph cannot have a cycle and needs
no registry. A step's fields say all there is to say about it: a field that holds another node is an input, any
other field is a parameter. Every field is part of the key unless its author marks it; forgetting the mark costs
a needless rerun, never a wrong skip.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from llama_runner.core.digest import Digest, Key, key_of
from llama_runner.core.source import Source
from llama_runner.core.value import Value, field

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from llama_runner.core.workspace import Workspace

Resource = Literal["network", "disk", "compute"]
"""What a step mostly uses. Steps of different classes run side by side; two of ``compute`` never do."""


def unkeyed(default: Any) -> Any:  # noqa: ANN401 - the type of a field specifier
    """Mark a parameter that cannot change the bytes, such as a number of threads."""
    return field(default=default, role="unkeyed")


def noted(default: Any) -> Any:  # noqa: ANN401 - as above
    """Mark an input whose identity is recorded but not hashed: the tool that does the work.

    A weekly llama.cpp upgrade must not quantize a 70B model again; the step's ``version`` is raised when a
    new tool would give other bytes.
    """
    return field(default=default, role="noted")


def later(default: Any) -> Any:  # noqa: ANN401 - as above
    """Mark a keyed field that came after the step was in use: at its default it is not in the recipe.

    So what was made before stays valid, as it was made without it.
    """
    return field(default=default, role="later")


class Place(Value):
    """Where an artifact lives: a directory relative to the root, and a file in it, or ``""`` for all of it."""

    directory: str
    name: str = ""

    @property
    def is_tree(self) -> bool:
        """Whether the artifact is the directory itself."""
        return not self.name

    def __str__(self) -> str:
        return f"{self.directory}/{self.name}"


class Needs(Value):
    """What a step will take: bytes over the network, and bytes of disk at its peak. Estimates."""

    fetch: int = 0
    disk: int = 0


class Step(Value, eq=False):
    """One artifact and how to make it: the kind, the version, the fields; and one method with effects.

    Nodes compare by identity: a graph is a handful of objects, and hashing them by value would walk the whole
    graph at each look-up.
    """

    kind: ClassVar[str]
    version: ClassVar[int] = 1
    resource: ClassVar[Resource] = "disk"

    def place(self, key: Key | None, digests: Mapping[str, Digest | None], places: Mapping[str, Place]) -> Place | None:
        """Return where the artifact lives; None while that rests on something that is not yet known.

        ``digests`` and ``places`` are those of the keyed inputs by field name.
        """
        raise NotImplementedError

    def run(self, workspace: Workspace) -> None:
        """Make the artifact in ``workspace.out``. The only effect of a step."""
        raise NotImplementedError

    @property
    def promise(self) -> Digest | None:
        """The digest that the output must have, where it is pinned beforehand; else None."""
        return None

    @property
    def platform(self) -> dict[str, object] | None:
        """The keyed ``platform`` block of a step whose bytes depend on the machine; else None."""
        return None

    @property
    def source(self) -> dict[str, object]:
        """Where the artifact comes from, for its record; not keyed. Steps on a ``Source`` have its origin."""
        return {}

    @property
    def tools(self) -> dict[str, object]:
        """The identity of tools that are not steps themselves, for the record's ``noted``; not keyed."""
        return {}

    @property
    def transient(self) -> bool:
        """Whether the bytes may go once every step that reads them is done."""
        return False

    @property
    def entry(self) -> str:
        """The file of a directory that stands for all of it, where there is one: the first of a model's shards."""
        return ""

    def needs(self) -> Needs:
        """Estimate what running will take."""
        return Needs()


Node = Step | Source


def _nodes(step: Step, role: str | None) -> dict[str, Node]:
    """Return the nodes in a step's fields of one role; those in a tuple are called ``field.0``, ``field.1``…"""
    found: dict[str, Node] = {}
    for name, declared in step.fields.items():
        value = getattr(step, name)
        if (None if declared.role == "later" else declared.role) != role:
            continue
        if isinstance(value, (Step, Source)):
            found[name] = value
        elif isinstance(value, tuple):
            several = {f"{name}.{i}": item for i, item in enumerate(value)}
            found |= {one: item for one, item in several.items() if isinstance(item, (Step, Source))}
    return found


def inputs(step: Step) -> dict[str, Node]:
    """Return the keyed inputs of a step by field name."""
    return _nodes(step, None)


def noted_inputs(step: Step) -> dict[str, Node]:
    """Return the inputs whose identity is recorded but not hashed."""
    return _nodes(step, "noted")


def all_inputs(step: Step) -> dict[str, Node]:
    """Return everything that must be there before the step can run."""
    return {**inputs(step), **noted_inputs(step)}


def params(step: Step) -> dict[str, object]:
    """Return the keyed parameters of a step by field name."""
    of_inputs = {name.partition(".")[0] for name in inputs(step)}
    found: dict[str, object] = {}
    for name, declared in step.fields.items():
        value = getattr(step, name)
        is_keyed = declared.role is None or (declared.role == "later" and value != declared.default)
        if is_keyed and name not in of_inputs:
            found[name] = list(value) if isinstance(value, tuple) else value
    return found


def recipe_of(step: Step, digests: Mapping[str, Digest]) -> dict[str, object]:
    """Return the whole of what decides a step's bytes, given the output digests of its keyed inputs."""
    recipe: dict[str, object] = {
        "step": step.kind,
        "version": step.version,
        "params": params(step),
        "inputs": {name: digests[name] for name in inputs(step)},
    }
    if step.platform is not None:
        recipe["platform"] = step.platform
    return recipe


def step_key(step: Step, digests: Mapping[str, Digest]) -> Key:
    """Return the key of a step, given the output digests of its keyed inputs."""
    return key_of(recipe_of(step, digests))


def origin_of(step: Step) -> Step | Source:
    """Return what a step's artifact is made from: the first input of the first input, and so on, to where it begins."""
    node: Step | Source = step
    while isinstance(node, Step) and (above := inputs(node)):
        node = next(iter(above.values()))
    return node


def topological(targets: Iterable[Step]) -> list[Node]:
    """Return every node that the targets rest on, each after all of its inputs."""
    order: dict[Node, None] = {}
    stack: list[tuple[Node, bool]] = [(target, False) for target in reversed(list(targets))]
    while stack:
        node, ready = stack.pop()
        if node in order:
            continue
        if ready or isinstance(node, Source):
            order[node] = None
        else:
            stack.append((node, True))
            stack.extend((above, False) for above in reversed(list(all_inputs(node).values())))
    return list(order)
