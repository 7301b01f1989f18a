"""Which CMake file a build includes: the earlier one where a build, a lock file or another machine has it."""

from __future__ import annotations

import os
import shutil
from hashlib import sha256
from pathlib import Path

import pytest

from llama_runner.core.artifact_record import TREE
from llama_runner.core.digest import Digest
from llama_runner.core.step import inputs
from llama_runner.llama_cpp import cmake
from llama_runner.request.binaries_graph import build
from llama_runner.request.choose_binaries import BinariesOptions, find_program_facts
from llama_runner.request.lock_differences import differences
from llama_runner.request.lock_entry import build_form
from llama_runner.steps.compile import CompileLlama
from llama_runner.store.artifacts import Store

NATIVE = BinariesOptions(device="cpu", binaries="build")
CURRENT = sha256(cmake.PROJECT_INCLUDE.read_bytes()).hexdigest()


def compiled(root: Path, wanted: BinariesOptions = NATIVE, **facts: object) -> CompileLlama:
    """Return the step that builds what is wanted in a store."""
    found = find_program_facts(wanted, environment=os.environ, store=Store(root, print), **facts)  # type: ignore[arg-type]
    node = build(wanted, found).node
    assert isinstance(node, CompileLlama)
    return node


def test_the_earlier_file_is_kept_as_it_was() -> None:
    assert sha256(cmake.EARLIER_INCLUDE.read_bytes()).hexdigest() == cmake.EARLIER_DIGEST != CURRENT
    assert cmake.project_include(cmake.EARLIER_DIGEST) == cmake.EARLIER_INCLUDE
    assert cmake.project_include(CURRENT) == cmake.PROJECT_INCLUDE


def test_an_empty_store_builds_with_the_current_file(tmp_path: Path) -> None:
    assert compiled(tmp_path).project_include == CURRENT


@pytest.mark.parametrize(("made", "expected"), [("earlier", cmake.EARLIER_DIGEST), ("current", CURRENT)])
def test_a_build_that_is_there_is_not_built_again_for_another_file(
    binaries: Path, tmp_path: Path, made: str, expected: str
) -> None:
    [state] = (binaries / "bins").glob("*/*/.state.json")
    target = tmp_path / state.parent.relative_to(binaries)
    target.mkdir(parents=True)
    text = state.read_text(encoding="utf-8")
    for digest in (cmake.EARLIER_DIGEST, CURRENT):
        text = text.replace(digest, {"earlier": cmake.EARLIER_DIGEST, "current": CURRENT}[made])
    (target / state.name).write_text(text, encoding="utf-8")
    record = Store(tmp_path, print).directories("bins/*", "*")
    [(_, records)] = record
    step = compiled(tmp_path)
    assert step.project_include == expected
    assert records[TREE].recipe["params"]["project_include"] == expected
    assert compiled(tmp_path, NATIVE.replace(device="cpu-portable")).project_include == cmake.EARLIER_DIGEST
    shutil.rmtree(target)
    assert compiled(tmp_path).project_include == CURRENT


def test_what_other_machines_look_for_is_built_with_the_earlier_file(tmp_path: Path) -> None:
    assert compiled(tmp_path, known_compilers=lambda *_: None).project_include == cmake.EARLIER_DIGEST
    assert compiled(tmp_path, NATIVE.replace(device="cpu-portable")).project_include == cmake.EARLIER_DIGEST


def test_a_build_that_was_rejected_with_the_earlier_file_is_not_tried_with_the_current_one(tmp_path: Path) -> None:
    wanted = BinariesOptions(binaries="build")
    found = find_program_facts(wanted, environment=os.environ, store=Store(tmp_path, print))
    assert found.build is not None
    portable = found.build.replace(backend="cpu-portable", project_include=cmake.EARLIER_DIGEST)
    earlier = found.replace(build=found.build.replace(project_include=cmake.EARLIER_DIGEST))
    identity = build(wanted, earlier).identity
    assert identity is not None
    chosen = build(wanted, found.replace(rejected={identity: "it crashed"}, portable=portable)).node
    assert isinstance(chosen, CompileLlama)
    assert chosen.backend == "cpu-portable"


def test_a_lock_file_with_the_earlier_file_admits_a_native_build_with_the_current_one(tmp_path: Path) -> None:
    step = compiled(tmp_path)

    def locked(include: str) -> dict[str, object]:
        params = {name: getattr(step, name) for name in ("backend", "build", "options", "targets", "compilers")}
        recipe = {
            "step": "compile",
            "version": 1,
            "params": params | {"project_include": include},
            "inputs": dict.fromkeys(inputs(step), "tree1:0"),
        }
        return {"build": {"linux-x86_64": build_form(recipe, Digest("tree1:" + "0" * 64))}}

    assert list(differences(locked(cmake.EARLIER_DIGEST), locked(CURRENT))) == []
