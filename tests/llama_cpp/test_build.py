"""Building under difficulties: too little memory, a compiler cache, other roots, tools that are not there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from llama_runner.core import events
from llama_runner.core.errors import StepError, ToolError
from llama_runner.engine.errors import ProgramFailed
from llama_runner.llama_cpp import compiler_cache
from llama_runner.llama_cpp.compile_jobs import MEMORY_PER_JOB, ran_out_of_memory
from llama_runner.llama_cpp.toolchain import find_toolchain, tool_path
from llama_runner.steps.compile import CompileLlama
from llama_runner.store.digest_cache import hash_tree
from llama_runner.system import hardware
from llama_runner.system.find_programs import find_program
from tests.llama_cpp.tiny_llama import CMAKE_LISTS, OPTIONS, SERVER_C, Bench, compile_step, write_tree

CC = find_program("cc")


def program(path: Path, text: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def with_compiler(tree: Path, cc: Path, **changed: object) -> CompileLlama:
    environment = {**os.environ, "CC": str(cc)}
    toolchain = find_toolchain(environment)
    return compile_step(tree, toolchain=toolchain, compilers=toolchain.identity, **changed)


def warnings(bench: Bench) -> list[str]:
    return [event.text for event in bench.events if isinstance(event, events.Warned)]


@pytest.fixture
def without_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CCACHE_DISABLE", "1")
    monkeypatch.setenv("SCCACHE_NO_DAEMON", "1")


@pytest.mark.usefixtures("without_cache")
def test_a_compiler_that_dies_for_lack_of_memory_is_run_alone(bench: Bench, tmp_path: Path) -> None:
    """The first waits until a second has come and died; then nobody dies who is alone."""
    compiler = program(
        tmp_path / "bin" / "cc",
        f"""case " $* " in *llama-server.dir*" -c "*|*llama-quantize.dir*" -c "*)
        if mkdir "{tmp_path}/one"; then
            until test -e "{tmp_path}/died"; do sleep 0.01; done
        else
            : > "{tmp_path}/died"; kill -9 $$
        fi
        "{CC}" "$@"; status=$?; rmdir "{tmp_path}/one"; exit $status;;
        esac
        exec "{CC}" "$@" """,
    )
    bench.execute(with_compiler(write_tree(tmp_path / "tree"), compiler, jobs=2))
    assert warnings(bench) == ["not enough for 2 compilers at once; continuing with 1"]
    assert bench.ran() == ["compile"]


@pytest.mark.parametrize(("free", "jobs"), [(0, 1), (MEMORY_PER_JOB * 3 // 2, 1), (1 << 40, None)])
def test_as_many_compilers_run_as_memory_allows(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, jobs: int | None
) -> None:
    monkeypatch.setattr(hardware, "available_memory", lambda: free)
    bench.execute(compile_step(write_tree(tmp_path / "tree"), jobs=None))
    [log] = (bench.root / "logs").glob("compile-*")
    assert f"-j {jobs or len(os.sched_getaffinity(0))}\n" in log.read_text(encoding="utf-8")


@pytest.mark.usefixtures("without_cache")
def test_a_compiler_that_gets_too_little_memory_even_alone_is_named(bench: Bench, tmp_path: Path) -> None:
    compiler = program(
        tmp_path / "bin" / "cc",
        f"""case " $* " in *llama-server.dir*" -c "*)
        echo "cc: fatal error: Killed signal terminated program cc1" >&2; exit 1;;
        esac
        exec "{CC}" "$@" """,
    )
    step = with_compiler(write_tree(tmp_path / "tree"), compiler, jobs=5)
    with pytest.raises(StepError, match="Killed signal terminated program cc1") as caught:
        bench.execute(step)
    assert warnings(bench) == [
        "not enough for 5 compilers at once; continuing with 2",
        "not enough for 2 compilers at once; continuing with 1",
    ]
    assert "add swap" in str(caught.value.hint)
    assert (bench.root / str(caught.value).rpartition("full log: ")[2]).exists()


def test_an_error_in_the_code_is_not_taken_for_a_lack_of_memory(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(ProgramFailed):
        bench.execute(compile_step(write_tree(tmp_path / "tree", server_c="int main(void) { return oops; }")))
    assert warnings(bench) == []


@pytest.mark.parametrize(
    "line",
    [
        "c++: fatal error: Killed signal terminated program cc1plus",
        "cc1plus: out of memory allocating 65536 bytes after a total of 12345 bytes",
        "virtual memory exhausted: Cannot allocate memory",
        "LLVM ERROR: out of memory",
        "FAILED: [code=137] x.o",
        "Killed",
    ],
)
def test_how_compilers_say_that_they_ran_out_of_memory(line: str) -> None:
    assert ran_out_of_memory(line)
    assert not ran_out_of_memory("[3/9] Building CXX object src/Killed.cpp.o")


@pytest.mark.skipif(find_program("ccache") is None, reason="there is no ccache here")
def test_a_compiler_cache_is_used_and_serves_other_roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CCACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("CCACHE_STATSLOG", str(tmp_path / "statistics"))
    found = []
    for name in ("one root", "other"):
        bench = Bench(tmp_path / name)
        step = compile_step(write_tree(bench.root / "vendor" / "tree"))
        outcome = bench.execute(step)
        record = bench.store.record(outcome.places[step])
        assert record is not None
        assert record.facts["compiler_cache"] == "ccache"
        said = (tmp_path / "statistics").read_text(encoding="utf-8")
        compiled = [part for part in said.split("# ") if part.partition("\n")[0].endswith("unity_0_c.c")]
        found.append((record.digest, ["\ncache_miss\n" in part for part in compiled]))
        (tmp_path / "statistics").unlink()
    (first, cold), (second, warm) = found
    assert cold == [True, True]
    assert warm == [False, False]
    assert first == second


@pytest.mark.skipif(find_program("ccache") is None, reason="there is no ccache here")
def test_a_compiler_cache_that_does_not_work_is_left_out(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("CCACHE_DIR", str(tmp_path / "file" / "cache"))
    bench.execute(compile_step(write_tree(tmp_path / "tree")))
    assert "does not work here; compiling without it" in warnings(bench)[0]
    assert bench.ran() == ["compile"]


def test_a_cache_that_machines_share_tells_their_processors_apart(tmp_path: Path) -> None:
    one, other = (compiler_cache.variables({}, tmp_path, cpu=cpu) for cpu in ("avx512", "avx2"))
    assert one["CCACHE_NAMESPACE"] != other["CCACHE_NAMESPACE"]
    assert compiler_cache.variables({"CCACHE_BASEDIR": "/mine"}, tmp_path)["CCACHE_BASEDIR"] == "/mine"
    assert compiler_cache.find_cache(os.environ, ["-DGGML_CCACHE=ON"]) is None


@pytest.mark.parametrize("package", ["cmake", "ninja"])
def test_a_build_tool_that_is_not_installed_is_reported_with_the_command(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ToolError, match=f"{package} is not installed") as caught:
        bench.execute(compile_step(write_tree(tmp_path / "tree")))
    assert caught.value.hint == f"python -m pip install {package}"
    assert caught.value.code == 5
    assert tool_path("ninja" if package == "cmake" else "cmake").exists()


@pytest.mark.skipif(find_program("ccache") is None, reason="there is no ccache here")
def test_a_compiler_cache_changes_no_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It gives the compiler other paths, and a header may ask for its own."""
    monkeypatch.setenv("CCACHE_DIR", str(tmp_path / "cache"))
    lists = CMAKE_LISTS + "target_include_directories(llama-server PRIVATE ${CMAKE_SOURCE_DIR}/include/../include)\n"
    digests = []
    for name, disabled in (("one root", False), ("other", True)):
        bench = Bench(tmp_path / name)
        server_c = f'#include "here.h"\n{SERVER_C}'
        tree = write_tree(bench.root / "vendor" / "tree", cmakelists_txt=lists, server_c=server_c)
        (tree / "include").mkdir()
        (tree / "include/here.h").write_text("const char *here = __FILE__;\n")
        if disabled:
            monkeypatch.setenv("CCACHE_DISABLE", "1")
        step = compile_step(tree)
        digests.append(bench.execute(step).digests[step])
    assert digests[0] == digests[1]


def test_the_commit_of_a_repository_around_the_tree_is_not_used(bench: Bench, tmp_path: Path) -> None:
    lists = CMAKE_LISTS + "find_program(GIT_EXE NAMES git)\nif(GIT_EXE)\nmessage(FATAL_ERROR git)\nendif()\n"
    bench.execute(compile_step(write_tree(tmp_path / "tree", cmakelists_txt=lists)))
    assert bench.ran() == ["compile"]


def test_files_are_compiled_together_unless_that_is_switched_off(bench: Bench, tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "tree", server_c="int main(void) { return oops; }")
    for option, said in (((), "Unity/unity_0_c.c.o"), (("-DCMAKE_UNITY_BUILD=OFF",), "server.c.o")):
        with pytest.raises(ProgramFailed, match=re.escape(said)):
            bench.execute(compile_step(tree, options=(*OPTIONS, *option)))


@pytest.mark.parametrize("build_type", ["Release", "Debug"])
def test_the_same_key_gives_the_same_bytes_in_another_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, build_type: str
) -> None:
    """Also with debug information and with paths that the code itself asks for; the cache would hide a difference."""
    monkeypatch.setenv("CCACHE_DISABLE", "1")
    options = [each.replace("=Release", f"={build_type}") for each in OPTIONS]
    made = []
    for name in ("one root", "another"):
        bench = Bench(tmp_path / name)
        step = compile_step(write_tree(bench.root / "vendor" / "tree"), options=tuple(options))
        outcome = bench.execute(step)
        made.append((outcome.keys[step], hash_tree(bench.store.path(outcome.places[step]))))
    assert made[0] == made[1]


BUILDER = """
import sys
from pathlib import Path
from tests.llama_cpp.tiny_llama import OPTIONS, Bench, compile_step
bench = Bench(Path(sys.argv[1]))
bench.execute(compile_step(Path(sys.argv[2]), options=(*OPTIONS[:-1], f"-DLLAMA_BUILD_COMMIT={sys.argv[3]}")))
print(*bench.ran())
"""


def test_several_processes_build_the_same_once_and_different_variants_each(
    tmp_path: Path, children: list[subprocess.Popen[str]]
) -> None:
    tree, root = write_tree(tmp_path / "tree"), tmp_path / "root"
    for commit in ("a", "a", "b"):
        argv = [sys.executable, "-c", BUILDER, str(root), str(tree), commit]
        children.append(subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]))
    said = [child.stdout.read().strip() for child in children if child.stdout is not None]
    assert [child.wait() for child in children] == [0, 0, 0]
    assert sorted(said) == ["", "compile", "compile"]
    assert said[2] == "compile"
    assert len(list((root / "bins/test").iterdir())) == 2
