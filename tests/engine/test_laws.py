"""The laws of the design, on random graphs of toy steps.

Each test says what a user may rely on, and counts executions.
"""

from __future__ import annotations

import dataclasses
import socket
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llama_runner.core.plan import Run, Skip, Wait, make_plan
from llama_runner.core.step import Node, topological_order
from tests.engine.toys import File, Toy, World

if TYPE_CHECKING:
    from collections.abc import Iterator

relaxed = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@dataclasses.dataclass
class Shape:
    """A graph before it has a root: for each step its salt and the indices of what it reads."""

    sources: list[str]
    steps: list[tuple[int, list[int], bool]]
    targets: list[int]


@st.composite
def shapes(draw: st.DrawFn, *, transient: bool = False) -> Shape:
    sources = draw(st.lists(st.sampled_from("abc"), min_size=1, max_size=3))
    steps: list[tuple[int, list[int], bool]] = []
    for index in range(draw(st.integers(1, 6))):
        above = draw(st.lists(st.integers(0, len(sources) + index - 1), min_size=1, max_size=3, unique=True))
        steps.append((draw(st.integers(0, 5)), above, transient and draw(st.booleans())))
    targets = draw(st.lists(st.integers(0, len(steps) - 1), min_size=1, max_size=2, unique=True))
    return Shape(sources, steps, targets)


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def worlds() -> Iterator[World]:
    with tempfile.TemporaryDirectory() as root:
        yield World(Path(root))


def build(world: World, shape: Shape, *, salts: dict[int, int] | None = None, comment: str = "") -> list[Toy]:
    """Make the files and the steps of a shape; return the targets."""
    nodes: list[Node] = []
    for index, text in enumerate(shape.sources):
        path = world.root / f"source{index}"
        if not path.exists():
            path.write_text(text)
        nodes.append(File(path))
    toys = []
    for index, (salt, above, going) in enumerate(shape.steps):
        toy = Toy(
            f"step{index}",
            (salts or {}).get(index, salt),
            tuple(nodes[i] for i in above),
            world.journal,
            comment,
            going=going and index not in shape.targets,
        )
        toys.append(toy)
        nodes.append(toy)
    return [toys[i] for i in shape.targets]


def names(targets: list[Toy]) -> set[str]:
    return {node.name for node in topological_order(targets) if isinstance(node, Toy)}


@relaxed
@given(shapes(transient=True))
def test_after_a_run_nothing_is_left_to_do_and_a_second_run_does_nothing(shape: Shape) -> None:
    for world in worlds():
        world.execute(build(world, shape))
        assert sorted(world.ran()) == sorted(names(build(world, shape)))
        plan = world.plan(build(world, shape))
        assert all(isinstance(planned.decision, Skip) for planned in plan.steps)
        world.execute(build(world, shape))
        assert world.ran() == []


@relaxed
@given(shapes(), st.data())
def test_what_the_plan_says_is_what_runs_and_no_skip_ever_runs(shape: Shape, data: st.DataObject) -> None:
    for world in worlds():
        world.execute(build(world, shape))
        world.ran()
        salts = data.draw(st.dictionaries(st.integers(0, len(shape.steps) - 1), st.integers(0, 5)))
        for lost in data.draw(st.sets(st.integers(0, len(shape.steps) - 1))):
            (world.root / "models" / "toys" / f"step{lost}").unlink(missing_ok=True)
        targets = build(world, shape, salts=salts)
        plan = world.plan(targets)
        said = {
            kind: {p.step.name for p in plan.steps if isinstance(p.decision, kind) and isinstance(p.step, Toy)}
            for kind in (Run, Wait, Skip)
        }
        world.execute(targets)
        ran = world.ran()
        assert len(ran) == len(set(ran)), "a step ran twice"
        assert said[Run] <= set(ran) <= said[Run] | said[Wait]
        assert not said[Skip] & set(ran)
        assert all(isinstance(planned.decision, Skip) for planned in world.plan(targets).steps)


@relaxed
@given(shapes(), st.data())
def test_the_result_is_the_same_as_that_of_a_run_from_nothing(shape: Shape, data: st.DataObject) -> None:
    salts = data.draw(st.dictionaries(st.integers(0, len(shape.steps) - 1), st.integers(0, 5)))
    for world in worlds():
        world.execute(build(world, shape))
        world.execute(build(world, shape, salts=salts))
        for fresh in worlds():
            targets = build(fresh, shape, salts=salts)
            fresh.execute(targets)
            assert [world.bytes_of(t.name) for t in targets] == [fresh.bytes_of(t.name) for t in targets]


@relaxed
@given(shapes())
def test_a_field_that_is_not_keyed_changes_nothing(shape: Shape) -> None:
    for world in worlds():
        world.execute(build(world, shape))
        world.ran()
        world.execute(build(world, shape, comment="another number of threads"))
        assert world.ran() == []


@relaxed
@given(shapes(), st.data())
def test_the_same_bytes_after_a_rerun_leave_everything_below_alone(shape: Shape, data: st.DataObject) -> None:
    for world in worlds():
        world.execute(build(world, shape))
        index = data.draw(st.integers(0, len(shape.steps) - 1))
        changed = f"step{index}"
        targets = build(world, shape)
        if changed not in names(targets):
            continue
        world.ran()
        before = world.bytes_of(changed)
        salts = {index: shape.steps[index][0] + data.draw(st.integers(1, 9))}
        world.execute(build(world, shape, salts=salts))
        ran = world.ran()
        assert changed in ran
        if world.bytes_of(changed) == before:
            assert ran == [changed], "early cutoff: the dependents have the inputs they had"


@relaxed
@given(shapes())
def test_plan_writes_nothing_and_the_pure_part_reads_nothing(shape: Shape) -> None:
    for world in worlds():
        targets = build(world, shape)
        before = world.tree()
        plan = world.plan(targets)
        assert world.tree() == before
        for gone in ("source0", "models"):
            (world.root / gone).rename(world.root / f"{gone}.away") if (world.root / gone).exists() else None
        assert [p.decision for p in make_plan(targets, plan.snapshot).steps] == [p.decision for p in plan.steps]


@relaxed
@given(shapes(transient=True), st.data())
def test_a_changed_source_file_is_seen_whatever_its_size_and_time(shape: Shape, data: st.DataObject) -> None:
    for world in worlds():
        targets = build(world, shape)
        world.execute(targets)
        world.ran()
        (world.root / "source0").write_text(data.draw(st.sampled_from("xyz")))
        fresh_targets = build(world, shape)
        world.execute(fresh_targets)
        readers = {
            node.name
            for node in topological_order(fresh_targets)
            if isinstance(node, Toy) and any(isinstance(a, File) and a.path.name == "source0" for a in node.above)
        }
        assert readers <= set(world.ran())
