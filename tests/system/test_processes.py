"""Child processes: where they start, what they inherit, and how their output is captured."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from llama_runner.system import processes
from llama_runner.system.find_programs import find_program, safe_path
from llama_runner.system.processes import capture, empty_directory, python_module, try_output
from llama_runner.system.sys_path import safe_module_path

SHELL = ["/bin/sh", "-c"]


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a directory of this test in which the empty directory is made."""
    path = tmp_path / "runtime"
    path.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(path))
    return path


def executable(path: Path, script: str = "exit 0") -> Path:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def test_11_01_a_child_starts_in_an_empty_private_directory(
    runtime: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "libggml-cpu-x.so").touch()
    monkeypatch.chdir(tmp_path)
    done = capture([*SHELL, 'pwd; echo "$PWD"; ls -A'], env={**os.environ, "PWD": str(tmp_path)})
    [first, second] = done.out.decode().split()
    assert Path(first).parent == runtime
    assert first == second
    found = Path(first).stat()
    assert (found.st_uid, found.st_mode & 0o777) == (os.geteuid(), 0o500)


def test_11_01_the_empty_directory_is_used_again(runtime: Path) -> None:
    assert empty_directory() == empty_directory()
    assert len(list(runtime.iterdir())) == 1


@pytest.mark.parametrize("what", ["a file in it", "others may write", "a link", "a file"])
def test_11_01_an_unfit_directory_is_not_used(runtime: Path, what: str) -> None:
    first = empty_directory()
    if what == "a file in it":
        first.chmod(0o700)
        (first / "libggml-cpu-x.so").touch()
    elif what == "others may write":
        first.chmod(0o777)
    else:
        first.rmdir()
        first.symlink_to("/") if what == "a link" else first.touch()
    second = empty_directory()
    assert second != first
    assert second.parent == runtime
    assert not list(second.iterdir())


def test_11_01_a_directory_that_others_may_write_to_is_no_place_for_it(
    runtime: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime.chmod(0o777)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir(mode=0o755)
    assert empty_directory().parent == tmp_path / "cache"


def test_11_01_without_any_place_it_is_the_root_of_the_file_system(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("XDG_RUNTIME_DIR", "XDG_CACHE_HOME", "TMPDIR"):
        monkeypatch.setenv(name, "/nonexistent/place")
    assert empty_directory() == Path("/")


def test_11_01_relative_entries_of_path_are_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    program = executable(tmp_path / "setpriv-of-a-model")
    assert find_program(program.name, f".{os.pathsep}{os.pathsep}bin{os.pathsep}/bin") is None
    assert find_program(program.name, "") is None
    assert find_program(program.name, str(tmp_path)) == program
    assert find_program(f"./{program.name}", "/bin") == program
    assert safe_path(f".:/usr/bin::bin:/bin:{''}") == "/usr/bin:/bin"


def test_11_01_a_child_gets_no_relative_entries_of_path() -> None:
    done = capture([*SHELL, 'echo "$PATH"'], env={"PATH": ":/usr/bin:.:/bin"})
    assert done.out == b"/usr/bin:/bin\n"


def test_11_01_paths_become_absolute_and_text_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    executable(tmp_path / "tool", 'printf "%s " "$@"')
    expected = f"{tmp_path}/a.gguf a.gguf ".encode()
    assert capture([Path("tool"), Path("a.gguf"), "a.gguf"]).out == expected
    assert capture(["./tool", Path("a.gguf"), "a.gguf"]).out == expected


def test_a_program_that_is_not_there_is_an_error_with_its_name() -> None:
    with pytest.raises(FileNotFoundError) as caught:
        capture(["no-such-program-at-all"])
    assert caught.value.filename == "no-such-program-at-all"


@pytest.mark.parametrize("words", [python_module("hello"), (sys.executable, "-c", processes._RUN_MODULE, "hello")])
def test_11_01_a_python_module_is_not_looked_for_in_the_working_directory(
    tmp_path: Path, words: tuple[str, ...]
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    for directory in (here, there):
        (directory / "hello").mkdir(parents=True)
        (directory / "hello" / "__main__.py").write_text(f"import sys; print({directory.name!r}, *sys.argv[1:])\n")
    env = {**os.environ, "PYTHONPATH": str(there)}
    done = subprocess.run([*words, "a", "-b"], cwd=here, env=env, capture_output=True, text=True, check=True)
    assert done.stdout == "there a -b\n"


def test_11_01_the_working_directory_leaves_the_module_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path)
    assert safe_module_path(["", str(tmp_path), "/a", str(tmp_path / "link"), "/b"]) == ["/a", "/b"]


def test_the_directory_that_this_package_lies_in_stays_in_the_module_path(monkeypatch: pytest.MonkeyPatch) -> None:
    packages = str(Path(processes.__file__).parents[2])
    monkeypatch.chdir(packages)
    assert safe_module_path([packages, "/a"]) == [packages, "/a"]
    assert safe_module_path(["", "/a"]) == [packages, "/a"]


def test_both_streams_are_captured_apart_or_as_they_come() -> None:
    script = [*SHELL, "echo 1; echo 2 >&2; echo 3; exit 7"]
    assert capture(script) == (7, b"1\n3\n", b"2\n")
    assert capture(script, merged=True) == (7, b"1\n2\n3\n", b"")
    assert try_output(script) is None


@pytest.mark.parametrize("own_group", [False, True])
def test_a_program_that_does_not_end_is_killed(own_group: bool) -> None:
    with pytest.raises(TimeoutError, match="no answer within"):
        capture(["sleep", "600"], timeout=0.05, own_group=own_group)
    assert try_output(["sleep", "600"], timeout=0.05) is None


def test_a_program_that_prints_without_end_is_killed() -> None:
    with pytest.raises(OSError, match="more than 4096 bytes of output") as caught:
        capture([*SHELL, "yes; sleep 600"], limit=4096, own_group=True, timeout=600)
    assert caught.value.errno == errno.EFBIG
