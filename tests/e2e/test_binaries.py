"""Where llama.cpp's programs come from, from the command line: real ones, and a tiny tree that builds in a second."""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from llama_runner.system import hardware
from tests.fakereleases.server import Releases
from tests.llama_cpp.tiny_llama import CMAKE_LISTS, write_tree

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Command

PREPARE = ("prepare", "--demo", "--json")
USED = ("llama-server", "llama-quantize")
TARGETS = ("llama-imatrix", "llama-perplexity", "llama-fit-params", "llama-bench")
CRASHES_IF_NATIVE = (
    CMAKE_LISTS
    + """
get_cmake_property(given CACHE_VARIABLES)
foreach(name ${given})
  set(unused "${${name}}")
endforeach()
foreach(tool TOOLS)
  add_executable(${tool} quantize.c)
endforeach()
if(GGML_NATIVE)
  target_compile_definitions(llama-server PRIVATE ILLEGAL)
endif()
""".replace("TOOLS", " ".join(TARGETS))
)


@pytest.fixture
def nothing(tmp_path: Path) -> Path:
    """Return a root without anything in it."""
    return tmp_path / "a röot"


@pytest.fixture(scope="module")
def programs(binaries: Path) -> Path:
    """Return a directory with the real programs."""
    found = (path.parent for path in binaries.glob(f"bins/{hardware.platform_tag()}/*/llama-bench"))
    return max(found, key=lambda path: path.stat().st_mtime)


@pytest.fixture(scope="module")
def archive(programs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a release archive of the real programs."""
    path = tmp_path_factory.mktemp("release") / "llama-b10605-bin-ubuntu-x64.tar.gz"
    with tarfile.open(path, "w:gz", compresslevel=1) as packed:
        for name in USED:
            packed.add(programs / name, f"llama-b10605/{name}")
    return path


@pytest.fixture
def releases(archive: Path) -> Iterator[Releases]:
    with Releases() as found:
        found.add(10605, content={archive.name: archive.read_bytes()})
        yield found


def test_the_systems_programs_are_adopted_and_asked_once(programs: Path, nothing: Path, llama_runner: Command) -> None:
    env = {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
    words = (*PREPARE, "--binaries", "system", "--root", nothing)
    first = llama_runner(*words, env=env)
    assert sorted(first.json["ran"]) == ["adopt", "convert", "quantize"], first
    assert Path(first.json["server"]).resolve() == programs / "llama-server"
    assert llama_runner(*words, env=env).json["ran"] == []


@pytest.mark.parametrize("how", ["variable", "directory", "program"])
def test_a_directory_of_programs_is_used_where_it_lies(
    programs: Path, nothing: Path, llama_runner: Command, how: str
) -> None:
    env = {"LLAMA_SERVER_BINS_DIR": str(programs)} if how == "variable" else {}
    named = {"variable": (), "directory": ("--binaries", programs), "program": ("--binaries", programs / USED[0])}[how]
    done = llama_runner(*PREPARE, *named, "--root", nothing, env=env)
    assert "adopt" in done.json["ran"], done
    assert Path(done.json["server"]).resolve() == programs / "llama-server"


def test_an_archive_is_unpacked_proven_and_used(archive: Path, nothing: Path, llama_runner: Command) -> None:
    words = (*PREPARE, "--binaries", archive, "--root", nothing)
    done = llama_runner(*words)
    assert "unpack_programs" in done.json["ran"], done
    assert Path(done.json["server"]).parent.name.startswith("prebuilt-cpu-b10605-")
    assert llama_runner(*words).json["ran"] == []
    wrong = llama_runner(*words, "--sha256", "0" * 64)
    assert (wrong.code, "sha256" in wrong.err) == (3, True), wrong


def test_an_archive_is_fetched_by_its_url_and_digest(
    releases: Releases, archive: Path, nothing: Path, llama_runner: Command
) -> None:
    url = releases.origin + next(path for path in releases.files if path.endswith(archive.name))
    words = (*PREPARE, "--root", nothing, "--binaries", url)
    unchecked = llama_runner(*words)
    assert (unchecked.code, "--sha256" in unchecked.err) == (2, True), unchecked
    wrong = llama_runner(*words, "--sha256", "0" * 64)
    assert wrong.code == 4, wrong
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    offline = llama_runner(*words, "--sha256", digest, "--offline")
    assert offline.code == 5, offline
    right = llama_runner(*words, "--sha256", digest)
    assert {"fetch_url", "unpack_programs"} < set(right.json["ran"]), right


@pytest.mark.skipif(hardware.platform_tag() != "linux-x86_64", reason="the release holds programs for another machine")
def test_the_newest_release_is_asked_for_once(releases: Releases, nothing: Path, llama_runner: Command) -> None:
    env = {"LLAMA_RUNNER_RELEASES": releases.endpoint}
    words = (*PREPARE, "--root", nothing, "--binaries", "prebuilt", "--device", "cpu")
    done = llama_runner(*words, env=env)
    assert {"fetch_url", "unpack_programs"} < set(done.json["ran"]), done
    asked = len(releases.requests)
    assert llama_runner(*words, env=env).json["ran"] == []
    assert len(releases.requests) == asked
    other = llama_runner("plan", "--demo", "--root", nothing, "--binaries", "prebuilt:b1", env=env)
    assert (other.code, "b1" in other.err) == (4, True), other


def test_a_build_is_named_and_chosen(programs: Path, root: Path, llama_runner: Command) -> None:
    named = llama_runner(*PREPARE, "--root", root, "--binaries", programs.name)
    assert Path(named.json["server"]).parent.name == programs.name, named
    none = llama_runner(*PREPARE, "--root", root, "--binaries", "no-such-build")
    assert (none.code, programs.name in none.err) == (2, True), none


def test_the_official_programs_for_windows_are_unpacked_looked_at_and_listed_elsewhere(
    binaries: Path, nothing: Path, llama_runner: Command
) -> None:
    (nothing / "vendor").mkdir(parents=True)
    for path in (binaries / "vendor").glob("*.whl"):
        os.link(path, nothing / "vendor" / path.name)
    shutil.copy(binaries / "vendor" / ".state.json", nothing / "vendor")
    words = ("bins", "install", "package", "--platform", "windows-x64", "--root", nothing)
    done = llama_runner(*words, "--json")
    assert done.json["ran"][-1] == "unpack_programs", done
    [listed] = llama_runner("bins", "list", "--root", nothing, "--json").json
    assert (listed["platform"], listed["build"], listed["problem"]) == ("windows-x64", 10605, None)
    if hardware.platform_tag() != "windows-x64":
        assert listed["proven"] in (None, "demo model said its sentence, under Wine")
        run = llama_runner("plan", "--demo", "--binaries", f"windows-x64/{listed['name']}", "--root", nothing)
        assert (run.code, "is for windows-x64" in run.err) == (2, True), run


@pytest.mark.parametrize("option", [("--cmake-arg", "A=1"), ("--patch", "x"), ("--build-type", "Debug")])
def test_programs_that_are_not_built_cannot_be_built_otherwise(
    nothing: Path, llama_runner: Command, option: tuple[str, str]
) -> None:
    done = llama_runner("plan", "--demo", "--root", nothing, "--binaries", "system", *option)
    assert done.code == 2, done
    assert f"{option[0]} is about building, and --binaries system builds nothing" in done.err


def test_pain_19_a_native_build_that_crashes_is_replaced_by_a_portable_one(
    tmp_path: Path, nothing: Path, llama_runner: Command
) -> None:
    server = (
        "#include <signal.h>\n#ifdef ILLEGAL\nint main(void) { raise(SIGILL); return 1; }\n#else\n"
        + write_tree(tmp_path / "plain").joinpath("server.c").read_text()
        + "#endif\n"
    )
    tree = write_tree(tmp_path / "tree", cmakelists_txt=CRASHES_IF_NATIVE, server_c=server)
    words = ("bins", "build", "--source", tree, "--root", nothing, "--json")
    first = llama_runner(*words)
    assert first.code == 0, first
    assert "trying cpu-portable" in first.err
    assert "illegal instruction" in first.err
    assert first.json["name"].startswith("cpu-portable-"), first
    again = llama_runner(*words)
    assert again.json["ran"] == [], again
    converted = llama_runner("convert", "--demo", "--source", tree, "--device", "cpu", "--root", nothing, "--json")
    assert converted.code == 0, converted
    assert "illegal instruction" not in llama_runner(*words).err, "what needs no programs says nothing of them"
    asked = llama_runner(*words, "--device", "cpu")
    assert (asked.code, "illegal instruction" in asked.err) == (6, True), asked
    (tree / "server.c").write_text(server.replace("ILLEGAL", "NOTHING"))
    cured = llama_runner(*words, "--device", "cpu")
    assert cured.code == 0, cured
    assert llama_runner(*words).json["name"] == cured.json["name"]
