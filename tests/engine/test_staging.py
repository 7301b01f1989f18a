"""Directories of the root that are links to another file system, or mounts."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from llama_runner.core.errors import StepError, StoreError
from llama_runner.core.step_interfaces import Workspace
from llama_runner.demo import MODEL_DIRECTORY
from llama_runner.serving.builds_in_use import open_builds
from llama_runner.store import staging
from tests.conftest import Command
from tests.engine.drive import link_elsewhere
from tests.engine.toys import File, Toy, ToyTree, World
from tests.llama_cpp.stored import HERE, lay, store_in


@pytest.fixture
def world(tmp_path: Path) -> World:
    root = tmp_path / "root"
    root.mkdir()
    (root / "source").write_text("a")
    return World(root)


def everything(world: World) -> list[Toy | ToyTree]:
    first = Toy("first", 0, (File(world.root / "source"),), world.journal)
    return [Toy("second", 0, (first,), world.journal), ToyTree(1, world.journal)]


def check(world: World, *elsewhere: Path) -> None:
    """Execute everything, and see that it is there, is recorded and leaves nothing else."""
    world.execute(everything(world))
    assert sorted(world.ran()) == ["first", "second", "tree"]
    os.utime(world.root / "models" / "toys" / "second", (1, 1))
    os.utime(next((world.root / "bins").glob("toy-*")) / "program", (1, 1))
    world.execute(everything(world))  # records both new stamps
    plan = world.plan(everything(world))
    assert not any(getattr(planned.decision, "restamp", False) for planned in plan.steps)
    assert world.ran() == []
    for directory in (world.root, *elsewhere):
        assert not [path for path in directory.rglob("*") if path.name.startswith(staging.PREFIX)]
    assert not list((world.store.private / "staging").iterdir())


@pytest.mark.parametrize("linked", [("models", "bins"), ("models/toys",), ("models",), ("bins",), (".llama_runner",)])
def test_11_23_any_directory_of_the_root_may_be_a_link_to_another_file_system(
    world: World, other_file_system: Path, linked: tuple[str, ...]
) -> None:
    for name in linked:
        (other_file_system / name).mkdir(parents=True)
        (world.root / name).parent.mkdir(exist_ok=True)
        (world.root / name).symlink_to(other_file_system / name)
    check(world, other_file_system)


def test_11_23_a_mount_of_the_same_file_system_is_one_too(world: World, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (world.root / "models").mkdir()
    words = [str(tmp_path / "models"), str(world.root / "models")]
    if subprocess.run(["mount", "--bind", *words], check=False, capture_output=True).returncode:
        pytest.skip("this user may not mount")
    try:
        check(world)
    finally:
        subprocess.run(["umount", words[1]], check=True)


def test_11_23_work_that_is_gone_on_with_stays_on_the_other_file_system(world: World, other_file_system: Path) -> None:
    class Resumed(Toy):
        def run(self, workspace: Workspace) -> None:
            part = workspace.work / "part"
            if not part.exists():
                part.write_text("7")
                raise StepError("on purpose")
            assert part.stat().st_dev == other_file_system.stat().st_dev
            part.rename(workspace.target)

    link_elsewhere(world.root, other_file_system)
    with pytest.raises(StepError, match="on purpose"):
        world.execute([Resumed("part")])
    (world.root / "models" / "toys").mkdir()
    world.execute([Resumed("part")])
    assert world.bytes_of("part") == "7"
    assert not list(other_file_system.rglob(f"{staging.PREFIX}*"))
    assert not list((world.store.private / "work").iterdir())


def test_11_23_a_link_to_nothing_is_found_before_any_work(world: World, tmp_path: Path) -> None:
    (world.root / "models").symlink_to(tmp_path / "not mounted")
    with pytest.raises(StoreError, match=r"models: it is a broken link"):
        world.execute(everything(world))
    assert world.ran() == []


def test_11_23_only_directories_of_ours_are_removed(tmp_path: Path, other_file_system: Path) -> None:
    (other_file_system / "file").write_text("of the user")
    home = tmp_path / "staging" / "0123"
    home.parent.mkdir()
    home.symlink_to(other_file_system)
    staging.discard(home)
    assert not home.is_symlink()
    assert (other_file_system / "file").exists()


def test_11_23_builds_on_another_file_system_are_removed(tmp_path: Path, other_file_system: Path) -> None:
    (tmp_path / "bins").symlink_to(other_file_system)
    shutil.copytree(lay(tmp_path / "there").parent, other_file_system / HERE)
    shelf = open_builds(store_in(tmp_path))
    (build,) = shelf.builds()
    shelf.remove(build.name)
    assert shelf.builds() == []
    assert not list(other_file_system.rglob(f"{staging.PREFIX}*"))


def test_11_23_a_model_is_converted_into_models_on_another_file_system(
    tmp_path: Path, other_file_system: Path, llama_runner: Command
) -> None:
    (tmp_path / "root").mkdir()
    link_elsewhere(tmp_path / "root", other_file_system)
    (made,) = llama_runner("convert", MODEL_DIRECTORY, "--root", tmp_path / "root", "--json").json
    assert Path(made["path"]).stat().st_dev == other_file_system.stat().st_dev
