"""The web pages of llama-server are embedded as string literals: the compiler makes the same object as of lists."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from llama_runner.llama_cpp import cmake
from llama_runner.llama_cpp.toolchain import find_toolchain, tool_path

REQUIRED = (
    *("index.html", "manifest.webmanifest", "sw.js", "build.json", "version.json"),
    *("bundle.1.js", "bundle.1.css", "workbox-1.js"),
)
"""The pages that llama.cpp's program insists on."""

PROJECT = """
cmake_minimum_required(VERSION 3.28)
project(pages C CXX)
add_executable(llama-ui-embed "{tree}/tools/ui/embed.cpp")
set(pages ${{CMAKE_BINARY_DIR}}/ui.cpp ${{CMAKE_BINARY_DIR}}/ui.h)
add_custom_target(llama-ui-assets BYPRODUCTS ${{pages}}
    COMMAND $<TARGET_FILE:llama-ui-embed> ${{pages}} "{pages}")
add_dependencies(llama-ui-assets llama-ui-embed)
set_source_files_properties(${{pages}} PROPERTIES GENERATED TRUE)
add_library(llama-ui STATIC ${{pages}})
add_dependencies(llama-ui llama-ui-assets)
"""


@pytest.fixture
def pages(tmp_path: Path) -> Path:
    """Files with every byte, and what a literal may misread: digits after an escape, trigraphs, quotes."""
    directory = tmp_path / "pages"
    directory.mkdir()
    for name in REQUIRED:
        (directory / name).write_bytes(name.encode() + b'\0007 ??/ ??= "\\" };\n')
    (directory / "every.png").write_bytes(bytes(range(256)) * 3)
    (directory / "one.ico").write_bytes(b"\0")
    return directory


def objects_of(tree: Path, pages: Path, directory: Path, *given: str) -> tuple[bytes, str]:
    """Build the pages in a directory, twice, and return the object and the generated file."""
    source, build = directory / "source", directory / "build"
    (source / "tools" / "ui").mkdir(parents=True)
    (source / "tools" / "ui" / "embed.cpp").symlink_to(tree / "tools" / "ui" / "embed.cpp")
    (source / "CMakeLists.txt").write_text(PROJECT.format(tree=tree, pages=pages), encoding="utf-8")
    compilers = [("CMAKE_CXX_COMPILER", find_toolchain(os.environ).cxx.path)]
    argv = cmake.configure_command(tool_path("cmake"), tool_path("ninja"), source, build, compilers, given)
    subprocess.run(argv, check=True, capture_output=True)
    ninja = [str(tool_path("ninja")), "-C", str(build), "llama-ui"]
    subprocess.run(ninja, check=True, capture_output=True)
    again = subprocess.run(ninja, check=True, capture_output=True, text=True).stdout
    assert "Building" not in again, "what is generated anew is the same file, and is not compiled again"
    [made] = (build / "CMakeFiles" / "llama-ui.dir").rglob("*.o")
    return made.read_bytes(), (build / "ui.cpp").read_text(encoding="utf-8")


def test_literals_and_lists_give_the_same_object(binaries: Path, pages: Path, tmp_path: Path) -> None:
    [tree] = (binaries / "vendor").glob("llama.cpp-b*/")
    same = "-DCMAKE_BUILD_TYPE=Release", f"-DCMAKE_CXX_FLAGS=-ffile-prefix-map={tmp_path}/one=x"
    without = "-DCMAKE_BUILD_TYPE=Release", f"-DCMAKE_CXX_FLAGS=-ffile-prefix-map={tmp_path}/two=x"
    ours, literals = objects_of(tree, pages, tmp_path / "one", *same)
    theirs, lists = objects_of(tree, pages, tmp_path / "two", *without, "-DCMAKE_PROJECT_TOP_LEVEL_INCLUDES=")
    assert ours == theirs
    assert "0x00" in lists
    if "GCC" in ours.decode("latin-1"):
        assert '_data[768] = {"' in literals
