"""Independent steps run side by side by what they use; a failure or Ctrl-C stops the others."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import ClassVar

import pytest

from llama_runner.core.errors import StepError
from llama_runner.core.step import Resource, unkeyed
from llama_runner.core.step_interfaces import Workspace
from tests.engine.toys import Toy, World

WAIT_S = 30.0


class Meeting(Toy):
    """Ends only once the other one runs too, or finds that it never does."""

    here: threading.Event = unkeyed(threading.Event())
    there: threading.Event = unkeyed(threading.Event())

    def run(self, workspace: Workspace) -> None:
        self.here.set()
        assert self.there.wait(WAIT_S), "the other step did not run at the same time"
        super().run(workspace)


class Downloading(Meeting):
    resource: ClassVar[Resource] = "network"


class Compiling(Meeting):
    resource: ClassVar[Resource] = "compute"


def test_a_download_overlaps_a_compilation(tmp_path: Path) -> None:
    world = World(tmp_path)
    one, two = threading.Event(), threading.Event()
    world.execute(
        [
            Downloading("download", journal=world.journal, here=one, there=two),
            Compiling("compile", journal=world.journal, here=two, there=one),
        ]
    )
    assert sorted(world.ran()) == ["compile", "download"]


class Alone(Toy):
    """Fails when another one of its kind runs."""

    resource: ClassVar[Resource] = "compute"
    busy: threading.Lock = unkeyed(threading.Lock())

    def run(self, workspace: Workspace) -> None:
        assert self.busy.acquire(blocking=False), "two compilations at once"
        super().run(workspace)
        self.busy.release()


def test_two_compilations_never_overlap(tmp_path: Path) -> None:
    world = World(tmp_path)
    busy = threading.Lock()
    world.execute([Alone(f"compile{i}", i, journal=world.journal, busy=busy) for i in range(8)])
    assert len(world.ran()) == 8


class Failing(Toy):
    """Fails once the other one runs."""

    resource: ClassVar[Resource] = "network"
    there: threading.Event = unkeyed(threading.Event())

    def run(self, workspace: Workspace) -> None:
        assert self.there.wait(WAIT_S)
        raise StepError("failed on purpose")


class Endless(Toy):
    """Works until it is told to stop."""

    resource: ClassVar[Resource] = "compute"
    here: threading.Event = unkeyed(threading.Event())

    def run(self, workspace: Workspace) -> None:
        self.here.set()
        while True:
            workspace.check_cancelled()


def test_the_first_failure_stops_the_others_and_is_the_one_that_is_raised(tmp_path: Path) -> None:
    world = World(tmp_path)
    running = threading.Event()
    below = Toy("below", 0, (Toy("fine", journal=world.journal),), world.journal)
    with pytest.raises(StepError, match="failed on purpose"):
        world.execute([Failing("failing", there=running), Endless("endless", here=running), below])
    assert not list((world.root / ".llama_runner" / "staging").iterdir())
    assert not (world.root / "models" / "toys" / "endless").exists()
