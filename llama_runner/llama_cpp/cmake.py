"""The words that CMake is given. Pure: tested by comparing lists.

What ``find_package`` would pick up when it happens to be there (OpenSSL, OpenMP, BLAS, ccache) is decided here,
each one: a build must not depend on what else is installed.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from llama_runner.core.errors import UsageError
from llama_runner.core.value import Value
from llama_runner.llama_cpp.backends import BACKENDS, RPC_TARGET, parts

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

PROJECT_INCLUDE = Path(__file__).with_name("project_include.cmake")
"""Read by CMake after ``project()``; its content is part of a build's key."""

TARGETS = (
    *("llama-server", "llama-quantize", "llama-imatrix", "llama-perplexity"),
    *("llama-fit-params", "llama-bench"),
)


class Wishes(Value):
    """What the user may say about a build, on top of the backend."""

    build_type: str = "Release"
    arguments: tuple[str, ...] = ()
    """More options for CMake: ``NAME=VALUE``, or with ``-D`` before it."""
    cflags: str = ""
    cxxflags: str = ""

    def definitions(self) -> dict[str, str]:
        """Return ``arguments`` by name. Raises ``UsageError``."""
        values = {}
        for word in self.arguments:
            name, equals, value = word.removeprefix("-D").partition("=")
            name = name.partition(":")[0]
            if not equals or not re.fullmatch(r"\w+", name):
                raise not_an_option_error(word)
            if name in _DECIDED:
                raise decided_here_error(name)
            values[name] = value
        return values


def not_an_option_error(word: str) -> UsageError:
    """What was given to be passed to CMake is no definition."""
    return UsageError(f"--cmake-arg {word} is not NAME=VALUE", hint="for example --cmake-arg GGML_LTO=ON")


def decided_here_error(name: str) -> UsageError:
    """An option of CMake that other options of ours decide."""
    return UsageError(f"--cmake-arg {name} cannot be given", hint=f"use {_DECIDED[name]}")


_DECIDED = {
    "CMAKE_BUILD_TYPE": "--build-type",
    "CMAKE_C_COMPILER": "the environment variable CC",
    "CMAKE_CXX_COMPILER": "the environment variable CXX",
    "CMAKE_C_FLAGS": "--cflags",
    "CMAKE_CXX_FLAGS": "--cxxflags",
    "CMAKE_PROJECT_INCLUDE": "another option; this one says how files are put together",
    "LLAMA_BUILD_NUMBER": "another llama.cpp, this one has its number",
    "LLAMA_BUILD_COMMIT": "another llama.cpp, this one has its commit",
}


def targets(backend: str) -> tuple[str, ...]:
    """Return the programs that are built."""
    return (*TARGETS, RPC_TARGET) if parts(backend)[1] else TARGETS


def options(
    *, backend: str, build: int, commit: str, wishes: Wishes | None = None, gpus: str = "", pinned: bool = True
) -> tuple[str, ...]:
    """Return every ``-D`` that decides what is built; part of a build's key. ``gpus`` is what to compile for.

    Only of the ``pinned`` tree is it known which files can be compiled together.
    """
    wishes = wishes or Wishes()
    bare, rpc = parts(backend)
    values: dict[str, Any] = {
        "CMAKE_BUILD_TYPE": wishes.build_type,
        "BUILD_SHARED_LIBS": "OFF",
        # without git metadata the build calls itself 0; inside a repository, by that repository's commit
        "LLAMA_BUILD_NUMBER": str(build),
        "LLAMA_BUILD_COMMIT": commit,
        "LLAMA_BUILD_TESTS": "OFF",
        "LLAMA_BUILD_EXAMPLES": "OFF",
        "LLAMA_BUILD_APP": "OFF",
        "LLAMA_ALL_WARNINGS": "OFF",
        # the web UI is in the tree, where it is; do not make or download another, do not write into the tree
        "LLAMA_BUILD_UI": "OFF",
        "LLAMA_USE_PREBUILT_UI": "OFF",
        "LLAMA_UI_GZIP": "OFF",
        # a server on loopback needs no TLS; ggml has threads of its own
        "LLAMA_OPENSSL": "OFF",
        "GGML_OPENMP": "OFF",
        "GGML_BLAS": "OFF",
        "GGML_CCACHE": "OFF",
        "GGML_NATIVE": "ON",
        "GGML_METAL": "OFF",
        **({} if pinned else {"CMAKE_UNITY_BUILD": "OFF"}),
        **BACKENDS[bare].options,
        **({BACKENDS[bare].architectures: gpus} if gpus else {}),
        **({"GGML_RPC": "ON"} if rpc else {}),
        **({"CMAKE_C_FLAGS": wishes.cflags} if wishes.cflags else {}),
        **({"CMAKE_CXX_FLAGS": wishes.cxxflags} if wishes.cxxflags else {}),
    }
    values.update(wishes.definitions())
    return tuple(f"-D{name}={value}" for name, value in values.items())


def configure(
    cmake: Path, ninja: Path, source: Path, build: Path, compilers: Iterable[tuple[str, Path]], given: Iterable[str]
) -> list[str]:
    """Return the argv that configures a build directory; paths are not keyed.

    ``compilers`` are CMake's variables for them (``CMAKE_C_COMPILER``, ``Vulkan_GLSLC_EXECUTABLE``) and where they are.
    """
    given = list(given)
    shared = "-DBUILD_SHARED_LIBS=ON" in given
    return [
        *(str(cmake), "-S", str(source), "-B", str(build), "-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}"),
        *(f"-D{variable}={path}" for variable, path in compilers),
        f"-DCMAKE_PROJECT_INCLUDE={PROJECT_INCLUDE}",
        # libraries lie beside the programs, under one name each, and are found there wherever that is
        *([f"-DCMAKE_LIBRARY_OUTPUT_DIRECTORY={build / 'bin'}"] if shared else []),
        *(["-DCMAKE_BUILD_RPATH_USE_ORIGIN=ON", "-DCMAKE_PLATFORM_NO_VERSIONED_SONAME=ON"] if shared else []),
        *given,
    ]


_PROGRESS = r"\[(\d+)/(\d+)\]"


def progress(line: str) -> tuple[int, int] | None:
    """Return Ninja's objects done and in all, if the line says so."""
    match = re.match(_PROGRESS, line)
    return (int(match[1]), int(match[2])) if match else None


def unused_options(lines: Iterable[str]) -> list[str]:
    """Return the options that CMake did not know. It only warns, after the build they were meant for."""
    unused: list[str] = []
    listing = False
    for line in lines:
        if "Manually-specified variables were not used" in line:
            listing = True
        elif listing and line.startswith("    ") and line.strip():
            unused.append(line.strip())
        elif listing and unused and not line.startswith(" "):
            listing = False
    return unused
