"""The root that survives test runs stays whole, and no test run compiles what is there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from llama_runner.store.digest_cache import hash_tree
from tests.conftest import NO_PLUGINS, REPOSITORY, programs_of
from tests.shared_root import DamagedBuild, check_builds, link_builds, prepare_shared


def copied(build: Path, root: Path) -> Path:
    return shutil.copytree(build, root / "bins" / build.parent.name / build.name)


def test_one_bit_that_changed_in_a_build_is_found_before_a_test_uses_it(tmp_path: Path, binaries: Path) -> None:
    build = copied(programs_of(binaries), tmp_path)
    check_builds(tmp_path)
    program = build / "llama-quantize"
    before = program.stat()
    with program.open("r+b") as file:
        file.seek(1 << 20)
        byte = file.read(1)[0]
        file.seek(1 << 20)
        file.write(bytes([byte ^ 4]))
    os.utime(program, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(DamagedBuild, match=rf"{build.name} was changed after it was made\nhint: rm -r '{build}'"):
        check_builds(tmp_path)


def test_a_build_that_run_server_made_in_the_checkout_is_taken(tmp_path: Path, binaries: Path) -> None:
    checkout, root = tmp_path / "checkout", tmp_path / "tests"
    link_builds(binaries, checkout)
    shutil.copytree(binaries / "vendor", checkout / "vendor", symlinks=True, copy_function=os.link)
    build = prepare_shared(root, checkout)
    assert not list((root / "logs").glob("compile-*")), "nothing was compiled"
    assert hash_tree(build) == hash_tree(programs_of(binaries))
    assert (build / "llama-server").stat().st_ino != (programs_of(checkout) / "llama-server").stat().st_ino
    assert list((root / "vendor").glob("llama.cpp-b*/CMakeLists.txt"))
    assert prepare_shared(root, tmp_path / "another checkout") == build


def test_a_changed_build_in_the_checkout_is_not_taken(tmp_path: Path, binaries: Path) -> None:
    checkout = tmp_path / "checkout"
    (copied(programs_of(binaries), checkout) / "llama-bench").write_bytes(b"no program")
    shutil.copytree(binaries / "vendor", checkout / "vendor", symlinks=True, copy_function=os.link)
    link_builds(binaries, tmp_path / "tests")
    taken = prepare_shared(tmp_path / "tests", checkout)
    assert (taken / "llama-bench").stat().st_size > 1000


def test_what_one_root_adds_to_its_builds_is_not_in_another(tmp_path: Path, binaries: Path, root: Path) -> None:
    (root / "bins" / "linux-x86_64" / "system-1").mkdir(parents=True)
    (programs_of(root) / ".state.json").unlink()
    assert not list(binaries.glob("bins/*/system-*"))
    assert (programs_of(binaries) / ".state.json").exists()


ADOPTS = """
from tests.conftest import programs_of

def test_that_adopts(binaries):
    (binaries / "bins" / "elsewhere" / "system-1").mkdir(parents=True)

def test_that_writes(binaries):
    with (programs_of(binaries) / "llama-bench").open("r+b") as file:
        file.write(b"!")

def test_after_it(binaries):
    pass
"""


def test_a_test_that_changes_what_all_tests_share_fails(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(ADOPTS)
    words: list[str | Path] = [sys.executable, "-m", "pytest", "-q", "-p", "tests.conftest", "-p", "no:cacheprovider"]
    words += [tmp_path, "--rootdir", tmp_path, "--basetemp", tmp_path / "base"]
    environment = {name: text for name, text in os.environ.items() if not name.startswith("PYTEST_")}
    environment |= NO_PLUGINS
    done = subprocess.run(words, check=False, capture_output=True, text=True, cwd=REPOSITORY, env=environment)
    assert "3 passed, 3 errors" in done.stdout, done.stdout
    assert "while test_it.py::test_that_adopts ran, this changed, which all tests share" in done.stdout
    assert "while test_it.py::test_that_writes ran" in done.stdout
    assert "while test_it.py::test_after_it ran" not in done.stdout
    assert "was changed after it was made" in done.stdout, "at the end the digest is compared"
