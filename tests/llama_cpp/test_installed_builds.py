"""Many builds side by side: which are there, which is in use, what goes and what stays."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from llama_runner.core.artifact_record import STATE_FILE
from llama_runner.core.digest import short_hash
from llama_runner.core.errors import StoreError, UsageError
from llama_runner.llama_cpp.find_installed_build import (
    DamagedChoice,
    choice_file,
    chosen_name,
    open_chosen,
    open_programs,
    read_choice,
)
from llama_runner.llama_cpp.installed_builds import BuildIsChosen, BuildStore
from llama_runner.serving.builds_in_use import open_builds
from llama_runner.serving.server_registry import register
from llama_runner.store import process_locks
from llama_runner.store.artifacts import Store
from tests.llama_cpp.stored import HERE, lay, store_in


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return store_in(tmp_path / "a röot")


@pytest.fixture
def shelf(store: Store) -> BuildStore:
    return open_builds(store)


def serve(store: Store, program: Path, pid: int | None = None) -> None:
    about = {"alias": "tiny", "url": "http://127.0.0.1:8080", "log": "x.log", "binary": str(program)}
    assert register(store.private / "servers", pid or os.getpid(), about) is not None


def test_builds_are_listed_as_their_records_say(shelf: BuildStore, store: Store) -> None:
    first, other = lay(store.root, build=7), lay(store.root, build=8, platform="plan9-vax")
    shelf.use(first.name)
    serve(store, first / "llama-server")
    mine, foreign = sorted(shelf.builds(), key=lambda build: build.platform)
    told = mine.to_json()
    (server,) = told.pop("servers")
    assert (server["alias"], server["pid"]) == ("tiny", os.getpid())
    assert str(told.pop("key")).startswith("k1:")
    assert told == {
        "name": first.name,
        "platform": HERE,
        "backend": "cpu",
        "build": 7,
        "commit": "5f0c1d2e3a4b",
        "version": None,
        "devices": None,
        "proven": "demo model",
        "origin": "built",
        "bytes": 9,
        "made": "2026-01-01T00:00:00Z",
        "in_use": True,
        "problem": None,
        "path": str(first),
    }
    assert (foreign.path, foreign.chosen, foreign.servers) == (other, False, ())


def test_damaged_builds_are_listed_and_never_used(shelf: BuildStore, store: Store) -> None:
    whole, changed, empty, bare = (lay(store.root, build=number) for number in (1, 2, 3, 4))
    (changed / "llama-server").write_text("something else")
    for path in (empty / "llama-server", empty / "libggml.so", bare / STATE_FILE):
        path.unlink()
    problems = {build.path: build.problem for build in shelf.builds()}
    assert problems == {
        whole: None,
        changed: "its files are not those that were made",
        empty: "its files are gone",
        bare: "it has no record",
    }
    for path in (changed, empty, bare):
        with pytest.raises(StoreError, match=path.name) as caught:
            shelf.use(path.name)
        assert "bins use auto" in str(caught.value.hint)
    assert chosen_name(store.private) is None


def test_a_build_that_was_moved_with_its_root_is_read_once_and_then_believed(store: Store, tmp_path: Path) -> None:
    lay(store.root)
    moved = store_in(tmp_path / "elsewhere")
    shutil.copytree(store.root, moved.root)
    opened = open_programs(moved, "cpu")
    assert opened.restamp
    assert open_programs(moved, "cpu").restamp, "looking writes nothing"
    opened.update_stamp(moved)
    assert not open_programs(moved, "cpu").restamp
    assert open_programs(moved, "cpu").digest == open_programs(store, "cpu").digest


def test_the_unique_beginning_of_a_name_selects_a_build(shelf: BuildStore, store: Store) -> None:
    one, two = lay(store.root, build=10), lay(store.root, build=11, backend="vulkan")
    lay(store.root, build=12, backend="metal", platform="macos-arm64")
    assert shelf.path("vul") == two
    assert shelf.path(one.name[-8:-4]) == one
    assert shelf.path(f"{HERE}/cpu") == one
    with pytest.raises(UsageError, match="'cuda'") as caught:
        shelf.path("cuda")
    assert caught.value.hint == f"there are {one.name}, {two.name}"
    three = lay(store.root, build=13)
    with pytest.raises(UsageError, match=f"{one.name}, {three.name}"):
        shelf.path("cpu-b1")
    with pytest.raises(UsageError, match="macos-arm64"):
        shelf.use("metal")
    for name in ("", ".", "..", "/", "../..", f"{HERE}/..", str(one)):
        with pytest.raises(UsageError, match="there are no programs called"):
            shelf.path(name)


def test_pain_20_a_choice_of_build_is_kept_and_rolled_back_step_by_step(shelf: BuildStore, store: Store) -> None:
    one, two, three = (lay(store.root, build=number) for number in (1, 2, 3))
    assert open_chosen(store) is None
    for path in (one, one, two, three):
        shelf.use(path.name)
    assert chosen_name(store.private) == three.name
    opened = open_chosen(store)
    assert opened is not None
    assert opened.path == shelf.path() == three
    assert shelf.rollback() == two.name
    shelf.remove(one.name)
    assert shelf.rollback() is None, "what was removed is passed over, and before it was auto"
    with pytest.raises(UsageError, match="before auto"):
        shelf.rollback()


def test_what_was_chosen_and_is_gone_is_an_error_with_a_way_out(shelf: BuildStore, store: Store) -> None:
    one = lay(store.root)
    shelf.use(one.name)
    shutil.rmtree(one)
    with pytest.raises(StoreError, match="it is gone") as caught:
        open_chosen(store)
    assert "`bins use auto`" in str(caught.value.hint)
    shelf.use("auto")
    assert open_chosen(store) is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"chosen": 1, "before": []}', '{"chosen": null}', "[" * 100_000])
def test_a_damaged_choice_is_reported_and_replaced_by_the_next(shelf: BuildStore, store: Store, text: str) -> None:
    one = lay(store.root)
    file = choice_file(store.private)
    file.parent.mkdir(parents=True)
    file.write_text(text)
    with pytest.raises(DamagedChoice, match=file.name):
        open_chosen(store)
    assert len(shelf.builds()) == 1
    shelf.use(one.name)
    assert chosen_name(store.private) == one.name


CHOOSE = """
import sys
from pathlib import Path
from llama_runner.serving.builds_in_use import open_builds
from llama_runner.store.artifacts import Store
shelf = open_builds(Store(Path(sys.argv[1]), print))
print("ready", flush=True)
sys.stdin.readline()
for turn in range(9):
    shelf.use(sys.argv[2 + turn % 2])
"""


def test_concurrent_choices_leave_one_choice_and_the_whole_history(shelf: BuildStore, store: Store) -> None:
    names = [lay(store.root, build=number).name for number in (1, 2, 3, 4)]
    words = [sys.executable, "-c", CHOOSE, str(store.root)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    both = [subprocess.Popen([*words, *their], **pipes) for their in (names[:2], names[2:])]
    for process in both:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in both:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    assert [process.communicate() and process.returncode for process in both] == [0, 0]
    now = read_choice(store.private)
    assert now.name in names
    assert len(now.before) == 18, "each choice of both is there to go back to"
    assert [path.name for path in choice_file(store.private).parent.iterdir()] == [f"{HERE}.json"]


def test_a_build_that_a_server_uses_is_never_removed(shelf: BuildStore, store: Store) -> None:
    one = lay(store.root)
    shelf.use(one.name)
    serve(store, one / "llama-server")
    for force in (False, True):
        with pytest.raises(StoreError, match=f"tiny \\(process {os.getpid()}, http") as caught:
            shelf.remove(one.name, force=force)
        assert "llama-runner stop" in str(caught.value.hint)
    assert (one / "llama-server").exists()
    assert chosen_name(store.private) == one.name


def test_a_server_that_was_written_down_before_programs_were_is_known_by_its_process(
    shelf: BuildStore, store: Store
) -> None:
    sleep = shutil.which("sleep")
    assert sleep
    one = lay(store.root)
    shutil.copy(os.path.realpath(sleep), one / "llama-server")
    with subprocess.Popen([one / "llama-server", "60"]) as process:
        about = {"alias": "old", "url": "http://127.0.0.1:1", "log": "x.log"}
        register(store.private / "servers", process.pid, about)
        with pytest.raises(StoreError, match="old"):
            shelf.remove(one.name)
        process.kill()
    shelf.remove(one.name)
    assert not one.exists()


def test_removing_the_build_in_use_needs_force_and_selects_auto(shelf: BuildStore, store: Store) -> None:
    one, two = lay(store.root, build=1), lay(store.root, build=2)
    shelf.use(one.name)
    with pytest.raises(BuildIsChosen, match=one.name):
        shelf.remove(one.name)
    assert shelf.remove(one.name, force=True).name == one.name
    assert not one.exists()
    assert two.exists()
    assert open_chosen(store) is None
    assert not any((store.private / "staging").iterdir()), "nothing of it is left"


def test_a_build_that_another_process_makes_is_not_removed(shelf: BuildStore, store: Store) -> None:
    one = lay(store.root)
    record = store.records(one)["."]
    lock = store.private / "locks" / f"{short_hash(record.key, 16)}.lock"
    with process_locks.hold(lock, "compile", timeout=0), pytest.raises(StoreError, match=f"process {os.getpid()} on"):
        shelf.remove(one.name)
    shelf.remove(one.name)
    assert shelf.builds() == []


def test_unused_builds_are_those_that_are_safe_to_remove(shelf: BuildStore, store: Store) -> None:
    old, used, run, new = (lay(store.root, build=n, at=f"2026-01-0{n}T00:00:00Z") for n in (1, 2, 3, 4))
    only = lay(store.root, build=1, backend="vulkan", at="2025-01-01T00:00:00Z")
    foreign = lay(store.root, build=1, platform="macos-arm64")
    broken = lay(store.root, build=9, at="2026-02-01T00:00:00Z")
    (broken / "llama-server").write_text("no longer what it was")
    shelf.use(used.name)
    serve(store, run / "llama-server")
    assert {build.path for build in shelf.unused()} == {old, broken}
    assert all(path.exists() for path in (new, only, foreign))
