"""The nodes of a pipeline's graph: sources (bytes that exist) and steps (bytes that can be made).

Both are values that refer to each other as plain objects, so a graph has no cycles and needs no registry. A field of a
step that holds another node is an input; any other field is a parameter. Every field is part of the key unless it is
marked; a missing mark causes an unnecessary rerun, never a wrong skip.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from llama_runner.core.digest import Digest, Key, key_of
from llama_runner.core.immutable_values import Value, field
from llama_runner.core.source import Source

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from llama_runner.core.step_interfaces import Workspace

Resource = Literal["network", "disk", "compute"]
"""The resource that a step mainly uses. ``engine.executor.MAX_PARALLEL`` limits the parallel steps of each."""

Sharing = Literal["bytes", "record", "nothing"]
"""What a remote store may have of a step: artifact and record, the record alone, or nothing."""


def unkeyed(default: Any) -> Any:  # noqa: ANN401 - the type of a field specifier
    """Mark a parameter that cannot change the bytes, such as a number of threads."""
    return field(default=default, role="unkeyed")


def noted(default: Any) -> Any:  # noqa: ANN401 - as above
    """Mark an input whose digest is recorded but not part of the key: a tool that the step runs.

    So an upgrade of llama.cpp does not quantize a model again. The step's ``version`` is raised when a new tool gives
    other bytes.
    """
    return field(default=default, role="noted")


def keyed_unless_default(default: Any) -> Any:  # noqa: ANN401 - as above
    """Mark a parameter or input that is part of the key only when it differs from its default.

    For fields that are added to a step in use: the keys of existing artifacts do not change.
    """
    return field(default=default, role="keyed_unless_default")


class Place(Value):
    """Path of an artifact: a directory relative to the root, and a file in it or ``""`` for the directory itself."""

    directory: str
    name: str = ""

    @property
    def is_tree(self) -> bool:
        """Whether the artifact is the directory itself."""
        return not self.name

    def __str__(self) -> str:
        return f"{self.directory}/{self.name}"


class ResourceEstimate(Value):
    """Estimated bytes that a step downloads, and its peak disk usage in bytes."""

    fetch: int = 0
    disk: int = 0


class Step(Value, eq=False):
    """One artifact and how to make it: kind, version and fields, and ``run``, the only method with effects.

    Nodes compare by identity: hashing by value would walk the whole graph at each look-up.
    """

    kind: ClassVar[str]
    version: ClassVar[int] = 1
    resource: ClassVar[Resource] = "disk"

    def place(self, key: Key | None, digests: Mapping[str, Digest | None], places: Mapping[str, Place]) -> Place | None:
        """Return the place of the artifact; None if it depends on a digest or key that is not known yet.

        ``digests`` and ``places`` have those of the keyed inputs by field name.
        """
        raise NotImplementedError

    def run(self, workspace: Workspace) -> None:
        """Make the artifact in ``workspace.out``."""
        raise NotImplementedError

    @property
    def expected_digest(self) -> Digest | None:
        """The pinned digest of the output; None if it is not pinned."""
        return None

    @property
    def platform(self) -> dict[str, object] | None:
        """The keyed block ``platform`` of a step whose output depends on the machine; else None."""
        return None

    @property
    def source(self) -> dict[str, object]:
        """The origin of the artifact for its record, not keyed. A step that depends on a ``Source`` has that one's."""
        return {}

    @property
    def tools(self) -> dict[str, object]:
        """The identity of tools that are not steps, for the record's member ``noted``; not keyed."""
        return {}

    @property
    def transient(self) -> bool:
        """Whether the bytes may be deleted after the steps that read them are done."""
        return False

    @property
    def sharing(self) -> Sharing:
        """What a remote store may have of this step. Of a transient artifact that is the record alone."""
        return "record" if self.transient else "bytes"

    def check_fetched(self, workspace: Workspace) -> None:
        """Check in ``workspace.out`` an artifact that was made by another machine, and add its facts.

        Its digest is that of its record. Raises if it cannot be used here; then it is made here.
        """

    @property
    def entry(self) -> str:
        """The main file of an artifact that is a directory: the first shard of a model; else empty."""
        return ""

    def estimate(self) -> ResourceEstimate:
        """Return the bytes to download and the disk usage of a run."""
        return ResourceEstimate()


Node = Step | Source


def _nodes(step: Step, role: str | None) -> dict[str, Node]:
    """Return the nodes in a step's fields of one role; those in a tuple are named ``field.0``, ``field.1``…"""
    found: dict[str, Node] = {}
    for name, declared in step.fields.items():
        value = getattr(step, name)
        if (None if declared.role == "keyed_unless_default" else declared.role) != role:
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
    """Return the inputs whose digests are recorded but not keyed."""
    return _nodes(step, "noted")


def all_inputs(step: Step) -> dict[str, Node]:
    """Return all inputs of a step by field name."""
    return {**inputs(step), **noted_inputs(step)}


def params(step: Step) -> dict[str, object]:
    """Return the keyed parameters of a step by field name."""
    of_inputs = {name.partition(".")[0] for name in inputs(step)}
    found: dict[str, object] = {}
    for name, declared in step.fields.items():
        value = getattr(step, name)
        is_keyed = declared.role is None or (declared.role == "keyed_unless_default" and value != declared.default)
        if is_keyed and name not in of_inputs:
            found[name] = list(value) if isinstance(value, tuple) else value
    return found


def recipe_of(step: Step, digests: Mapping[str, Digest]) -> dict[str, object]:
    """Return the recipe of a step, which decides its bytes, given the output digests of its keyed inputs."""
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


def first_node(step: Step) -> Step | Source:
    """Return the node without inputs that is reached by following the first input of each step."""
    node: Step | Source = step
    while isinstance(node, Step) and (above := inputs(node)):
        node = next(iter(above.values()))
    return node


def topological_order(targets: Iterable[Step]) -> list[Node]:
    """Return the targets and every node that they depend on, each after all of its inputs."""
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
