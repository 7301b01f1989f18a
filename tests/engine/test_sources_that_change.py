"""What a step makes of a source that changes is discarded, unless the step had read it to its end before."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import pytest

from llama_runner.core.step import Node, Place, Step, unkeyed
from tests.engine.toys import File, World

if TYPE_CHECKING:
    from llama_runner.core.digest import Key
    from llama_runner.core.step_interfaces import Workspace


class Reader(Step):
    """Reads a source, which disappears before or after it says so."""

    data: Node
    disappears: str = unkeyed("")
    kind: ClassVar[str] = "reader"

    def place(self, key: Key | None, digests: object, places: object) -> Place:
        return Place("models/toys", "read")

    def run(self, workspace: Workspace) -> None:
        path: Path = workspace.input("data")
        (workspace.out / "read").write_text(path.read_text())
        if self.disappears == "before":
            path.unlink()
        if self.disappears:
            workspace.finish_reading("data")
        path.unlink(missing_ok=True)


@pytest.mark.parametrize("disappears", ["", "before", "after"])
def test_a_source_may_change_once_it_was_read(tmp_path: Path, disappears: str) -> None:
    data = tmp_path / "data"
    data.write_text("text")
    world = World(tmp_path / "root")
    step = Reader(File(data), disappears)
    if disappears != "after":
        with pytest.raises(AssertionError):  # that of ``World.verify``
            world.execute([step])
        assert not (world.root / "models" / "toys" / "read").exists()
        return
    world.execute([step])
    assert world.bytes_of("read") == "text"
