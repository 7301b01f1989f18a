"""Fetching, unpacking and compiling, with the real pip, CMake, Ninja and compiler, on a tree that is small."""

from __future__ import annotations

import json
import os
import resource
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from llama_runner.core import events
from llama_runner.core.digest import Digest
from llama_runner.core.errors import DownloadError, LlamaRunnerError, StepError, StoreError
from llama_runner.core.plan import Snapshot
from llama_runner.core.source import Source
from llama_runner.demo import ANSWER
from llama_runner.engine.errors import ProgramFailed
from llama_runner.engine.executor import Executor
from llama_runner.engine.observer import Observer
from llama_runner.llama_cpp.toolchain import NoCompiler, find_toolchain
from llama_runner.serving.smoke_test import PROVEN
from llama_runner.serving.smoke_test_errors import WrongSentence, WrongVersion
from llama_runner.steps.fetch_wheel import FetchPackage
from llama_runner.steps.unpack import UnpackSource
from llama_runner.store.digest_cache import hash_file, hash_tree
from llama_runner.system.archive_member_paths import BadArchive
from tests.llama_cpp.tiny_llama import OPTIONS, SERVER_C, Bench, Sources, Tree, compile_step, write_tree, write_wheel

if TYPE_CHECKING:
    from llama_runner.core.step import Step


def test_a_tree_becomes_programs_and_is_not_compiled_twice(bench: Bench, tmp_path: Path) -> None:
    step = compile_step(write_tree(tmp_path / "tree"))
    outcome = bench.execute(step)
    directory = bench.store.path(outcome.places[step])
    assert directory.name.startswith("cpu-b7-")
    assert {path.name for path in directory.iterdir()} == {"llama-server", "llama-quantize", ".state.json"}
    record = bench.store.record(outcome.places[step])
    assert record is not None
    expected = {"version": "0.0.0 (build 7, commit x)", "build": 7, "commit": "x", "backend": "cpu", "proven": PROVEN}
    assert record.facts.items() >= expected.items()
    assert record.noted["cxx"]["identity"] == step.compilers[1]
    assert any(isinstance(e, events.StepProgress) and e.unit == "objects" for e in bench.events)
    assert bench.ran() == ["compile"]
    bench.execute(compile_step(tmp_path / "tree", jobs=1))
    assert bench.ran() == [], "the number of jobs is not part of the key"
    assert not any((bench.root / ".llama_runner" / "work").iterdir())


@pytest.mark.parametrize(
    "changed",
    [
        {"environment": ("CFLAGS=-O1",)},
        {"compilers": ("another", "compiler")},
        {"cpu": "avx512"},
        {"options": (*OPTIONS[:2], "-DLLAMA_BUILD_NUMBER=7", "-DLLAMA_BUILD_COMMIT=y")},
        {"project_include": "y"},
    ],
)
def test_whatever_could_change_the_bytes_is_another_build_beside_the_first(
    bench: Bench, tmp_path: Path, changed: dict[str, Any]
) -> None:
    tree = write_tree(tmp_path / "tree")
    bench.execute(compile_step(tree))
    bench.execute(compile_step(tree, **changed))
    assert bench.ran() == ["compile", "compile"]
    assert len(list((bench.root / "bins" / "test").iterdir())) == 2


def test_a_compile_error_shows_the_last_lines_and_the_log(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(ProgramFailed, match=r"ninja exited with 1") as caught:
        bench.execute(compile_step(write_tree(tmp_path / "tree", server_c="int main(void) { return oops; }")))
    assert "oops" in str(caught.value)
    log = bench.root / caught.value.log
    assert "oops" in log.read_text()
    assert caught.value.code == 6
    assert not (bench.root / "bins").exists()
    assert bench.nothing_is_left()


def test_a_cmake_error_shows_the_last_lines_and_the_log(bench: Bench, tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "tree", cmakelists_txt='message(FATAL_ERROR "no such thing here")')
    with pytest.raises(ProgramFailed, match="no such thing here") as caught:
        bench.execute(compile_step(tree))
    assert (bench.root / caught.value.log).exists()


def test_a_tree_without_cmake_files_is_an_error(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ProgramFailed, match=r"CMakeLists\.txt"):
        bench.execute(compile_step(tmp_path / "empty"))


def test_an_option_that_cmake_does_not_know_is_an_error(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(StepError, match="CMake does not know GGML_CUDA_CUBLAS"):
        bench.execute(compile_step(write_tree(tmp_path / "tree"), options=(*OPTIONS, "-DGGML_CUDA_CUBLAS=ON")))


def test_another_llama_cpp_may_lack_what_it_would_be_told_to_leave_out(bench: Bench, tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "tree")
    bench.execute(compile_step(tree, options=(*OPTIONS, "-DGGML_OPENMP=OFF")))
    noticed = [event.text for event in bench.events if isinstance(event, events.Noticed)]
    assert noticed == ["this llama.cpp has no GGML_OPENMP"]
    with pytest.raises(StepError, match="GGML_OPENMP"):
        bench.execute(compile_step(tree, options=(*OPTIONS, "-DGGML_OPENMP=ON")))


def test_a_program_with_another_build_number_is_not_kept(bench: Bench, tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "tree", server_c=SERVER_C.replace("NUMBER, COMMIT", "6, COMMIT"))
    with pytest.raises(WrongVersion, match="build 6"):
        bench.execute(compile_step(tree))
    assert not (bench.root / "bins").exists()


def test_a_program_that_serves_another_sentence_is_not_kept(bench: Bench, tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "tree", server_c=SERVER_C.replace(json.dumps(ANSWER)[1:9], "Nonsense"))
    with pytest.raises(WrongSentence):
        bench.execute(compile_step(tree))
    assert not (bench.root / "bins").exists()


def test_pain_16_an_interrupted_build_continues_where_it_stopped(bench: Bench, tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "tree", server_c="int main(void) { return oops; }")
    with pytest.raises(ProgramFailed):
        bench.execute(compile_step(tree))
    [work] = (bench.root / ".llama_runner" / "work").iterdir()
    [made] = (work / "build" / "CMakeFiles" / "llama-quantize.dir").rglob("*.o")
    before = made.stat().st_mtime_ns
    step = compile_step(tree)
    # the same key: the file system holds the tree that the digest promises, as after a crash in mid-build
    promised = hash_tree(tree)[0]
    (tree / "server.c").write_text(SERVER_C)

    class Same(Sources):
        def digest(self, source: Source) -> Digest:
            return promised

    observer = Observer(bench.store, Same(bench.store, remember=True, inspect=lambda _: None))
    executor = Executor(bench.store, observer, bench.events.append, lock_timeout=10)
    outcome = executor.execute(observer.plan([step], Snapshot()))
    assert list(outcome.seconds) == [step]
    assert not made.exists(), "what was kept to resume is removed once the build is done"
    counts = [e for e in bench.events if isinstance(e, events.StepProgress) and e.unit == "objects"]
    assert counts[-1].total < 4, "the object that was there was not compiled again"
    assert before


def test_only_declared_variables_reach_the_compiler(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNDECLARED", "secret")
    monkeypatch.setenv("CFLAGS", "-DLEAKED")
    lists = 'project(tiny C)\nmessage(FATAL_ERROR "[$ENV{UNDECLARED}|$ENV{CFLAGS}|$ENV{CXXFLAGS}]")\n'
    tree = write_tree(tmp_path / "tree", cmakelists_txt=f"cmake_minimum_required(VERSION 3.14)\n{lists}")
    with pytest.raises(ProgramFailed, match=r"\[\|\|-O1\]"):
        bench.execute(compile_step(tree, environment=("CXXFLAGS=-O1",)))


def test_no_compiler_is_reported_with_the_command_that_installs_one(tmp_path: Path) -> None:
    with pytest.raises(NoCompiler, match=r"no C compiler found \(tried cc, gcc, clang\)") as caught:
        find_toolchain({"PATH": str(tmp_path)})
    assert caught.value.code == 5
    assert "apt-get install" in str(caught.value.hint)
    with pytest.raises(NoCompiler, match="tried nothere"):
        find_toolchain({"PATH": os.environ["PATH"], "CC": "nothere"})


def test_a_compiler_that_is_known_by_its_stamp_is_not_asked(tmp_path: Path) -> None:
    for name in ("cc", "c++"):
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\necho >>{tmp_path}/asked\necho {name} 1.2.3\n")
        program.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    first = find_toolchain(environment)
    assert first.identity == ("1.2.3 cc 1.2.3", "1.2.3 c++ 1.2.3")
    asked = (tmp_path / "asked").read_text()
    assert find_toolchain(environment, [first.to_json()]) == first
    assert (tmp_path / "asked").read_text() == asked
    (tmp_path / "cc").write_text("#!/bin/sh\necho cc 2.0\n")
    assert find_toolchain(environment, [first.to_json()]).c.identity == "2.0 cc 2.0"


def test_11_04_a_compiler_of_the_same_size_and_time_is_asked_and_older_records_hold(tmp_path: Path) -> None:
    for name in ("cc", "c++"):
        (tmp_path / name).write_text(f"#!/bin/sh\necho {name} 1.2.3\n")
        (tmp_path / name).chmod(0o755)
        os.utime(tmp_path / name, (1, 1))
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    noted = find_toolchain(environment).to_json()
    (tmp_path / "cc").write_text("#!/bin/sh\necho cc 4.5.6\n")
    os.utime(tmp_path / "cc", (1, 1))
    assert find_toolchain(environment, [noted]).c.identity == "4.5.6 cc 4.5.6"
    older = {role: {**of, "stamp": {**of["stamp"]}, "identity": "as noted"} for role, of in noted.items()}
    for compiler in older.values():
        del compiler["stamp"]["ctime_ns"]
    assert find_toolchain(environment, [older]).identity == ("as noted", "as noted")


def fetch(file: Path, digest: Digest | None = None, version: str = "1.0") -> FetchPackage:
    return FetchPackage("tinypkg", version, file.name, digest or hash_file(file), file.stat().st_size)


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the one file of a package index of our own."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    return write_wheel(tmp_path / "index", "tinypkg", "1.0", {"tinypkg/tree/CMakeLists.txt": "x", "other": "y"})


def test_a_package_comes_from_the_users_own_index(bench: Bench, index: Path) -> None:
    step = fetch(index)
    outcome = bench.execute(step)
    assert bench.store.path(outcome.places[step]).read_bytes() == index.read_bytes()
    index.unlink()
    bench.execute(fetch(bench.root / "vendor" / index.name))
    assert bench.ran() == ["fetch"], "what is there is not fetched again"


def test_a_file_with_one_byte_changed_is_refused(bench: Bench, index: Path) -> None:
    digest = hash_file(index)
    content = bytearray(index.read_bytes())
    content[60] ^= 1
    index.write_bytes(content)
    with pytest.raises(DownloadError, match="is not the pinned file") as caught:
        bench.execute(fetch(index, digest))
    assert caught.value.code == 4
    assert not (bench.root / "vendor").exists()


def test_a_package_that_the_index_does_not_have_is_an_error_with_the_way_out(bench: Bench, index: Path) -> None:
    with pytest.raises(DownloadError, match=r"tinypkg 2\.0 could not be fetched from the package index") as caught:
        bench.execute(fetch(index, version="2.0"))
    assert "pip config list" in str(caught.value.hint)


def unpack(archive: Path, digest: Digest, member: str = "tinypkg/tree") -> UnpackSource:
    return UnpackSource(Tree(archive), member, "tree", digest)


def test_a_tree_is_unpacked_whole_with_its_executable_bits(bench: Bench, tmp_path: Path) -> None:
    original = write_tree(tmp_path / "original")
    (original / "server.c").chmod(0o755)
    archive = tmp_path / "a.whl"
    with zipfile.ZipFile(archive, "w") as file:
        for path in original.iterdir():
            file.write(path, f"tinypkg/tree/{path.name}")
        file.writestr("tinypkg/outside", "not part of it")
    digest, _ = hash_tree(original)
    step = unpack(archive, digest)
    outcome = bench.execute(step)
    assert outcome.digests[step] == digest
    shutil.rmtree(bench.store.path(outcome.places[step]))
    bench.execute(step)
    assert bench.ran() == ["unpack", "unpack"]


def test_an_archive_whose_tree_is_another_is_refused(bench: Bench, index: Path) -> None:
    with pytest.raises(StepError, match="not the pinned tree1:0"):
        bench.execute(unpack(index, Digest("tree1:" + "0" * 64)))
    assert not (bench.root / "vendor").exists()


@pytest.mark.parametrize("name", ["../up", "/absolute", "a/../../up", "..\\up", "C:\\x"])
def test_a_member_that_would_leave_the_directory_is_refused(bench: Bench, tmp_path: Path, name: str) -> None:
    archive = tmp_path / "evil.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr(f"tinypkg/tree/{name}", "evil")
    with pytest.raises(BadArchive, match="would leave the directory"):
        bench.execute(unpack(archive, Digest("tree1:" + "0" * 64)))
    assert not list(tmp_path.rglob("up"))


@contextmanager
def files_up_to(limit: int) -> Iterator[None]:
    """Let no file grow past ``limit`` bytes, which stands for a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("step", ["fetch", "unpack", "compile"])
def test_a_full_disk_is_said_and_keeps_nothing(bench: Bench, index: Path, tmp_path: Path, step: str) -> None:
    big = "x" * (1 << 20)
    archive = write_wheel(tmp_path / "index", "tinypkg", "1.0", {"tinypkg/tree/big": big})
    code = f'const char big[] = "{"x" * 100_000}"; int main(int n, char **v) {{ return v[0] == big; }}'
    steps: dict[str, Step] = {
        "fetch": fetch(archive),
        "unpack": unpack(archive, Digest("tree1:" + "0" * 64)),
        "compile": compile_step(write_tree(tmp_path / "tree", quantize_c=code)),
    }
    limit = 500_000 if step != "compile" else 60_000
    with files_up_to(limit), pytest.raises(StoreError, match="no space left in") as caught:
        bench.execute(steps[step])
    assert caught.value.code == 7
    assert bench.nothing_is_left()
    assert not (bench.root / "vendor").exists()
    assert not (bench.root / "bins").exists()


def test_a_damaged_archive_is_an_error(bench: Bench, index: Path) -> None:
    index.write_bytes(index.read_bytes()[:-30])
    with pytest.raises(LlamaRunnerError, match="not a zip file"):
        bench.execute(unpack(index, Digest("tree1:" + "0" * 64)))


def test_a_build_that_was_begun_with_another_compiler_path_is_begun_anew(bench: Bench, tmp_path: Path) -> None:
    """CMake deletes its cache, our options with it, when the compiler is at another path."""
    broken = write_tree(tmp_path / "tree", server_c="int main(void) { return oops; }")
    step = compile_step(broken)
    with pytest.raises(ProgramFailed):
        bench.execute(step)
    [work] = (bench.root / ".llama_runner" / "work").iterdir()
    assert (work / "build" / "CMakeCache.txt").exists()
    configured = (work / "configured").read_text()
    (work / "configured").write_text(configured.replace("-DCMAKE_C_COMPILER=", "-DCMAKE_C_COMPILER=/elsewhere"))
    (work / "build" / "left").touch()
    with pytest.raises(ProgramFailed):
        bench.execute(compile_step(broken))
    assert not (work / "build" / "left").exists()
    assert (work / "configured").read_text() == configured
