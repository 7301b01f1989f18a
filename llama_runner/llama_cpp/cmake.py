"""Arguments for CMake. Pure: tests compare lists.

Every dependency that ``find_package`` would use if installed (OpenSSL, OpenMP, BLAS, ccache) is set explicitly: a build
must not depend on other installed packages.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from llama_runner.core.errors import UsageError
from llama_runner.core.immutable_values import Value
from llama_runner.llama_cpp.backend_build_options import BACKENDS, RPC_TARGET, split_rpc

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

PROJECT_INCLUDE = Path(__file__).with_name("project_include.cmake")
"""File that CMake includes after ``project()``; its content is part of a build's key."""

EARLIER_INCLUDE = PROJECT_INCLUDE.with_name("earlier_project_include.cmake")
"""What ``PROJECT_INCLUDE`` was: older stores, lock files and remote stores have builds that were made with it."""

EARLIER_DIGEST = "7f632df9004c73890f3c24168e8d456e0be90b66f0cc11140d64779a060ee183"
"""The SHA-256 of ``EARLIER_INCLUDE``."""

FASTER_BUILD = PROJECT_INCLUDE.with_name("faster_build.cmake")
"""File that CMake includes in ``project()``. It changes no byte of the programs and is not part of the key."""

TARGETS = (
    *("llama-server", "llama-quantize", "llama-imatrix", "llama-perplexity"),
    *("llama-fit-params", "llama-bench"),
)


class CMakeOptions(Value):
    """Options of the user for a build, besides the backend."""

    build_type: str = "Release"
    arguments: tuple[str, ...] = ()
    """Additional definitions for CMake: ``NAME=VALUE`` or ``-DNAME=VALUE``."""
    cflags: str = ""
    cxxflags: str = ""

    def definitions(self) -> dict[str, str]:
        """Return ``arguments`` as a dict; raises ``UsageError``."""
        values = {}
        for word in self.arguments:
            name, equals, value = word.removeprefix("-D").partition("=")
            name = name.partition(":")[0]
            if not equals or not re.fullmatch(r"\w+", name):
                raise bad_definition_error(word)
            if name in _RESERVED:
                raise reserved_definition_error(name)
            values[name] = value
        return values


def bad_definition_error(word: str) -> UsageError:
    """Return the error for a ``--cmake-arg`` that is not a definition."""
    return UsageError(f"--cmake-arg {word} is not NAME=VALUE", hint="for example --cmake-arg GGML_LTO=ON")


def reserved_definition_error(name: str) -> UsageError:
    """Return the error for a definition that another option sets."""
    return UsageError(f"--cmake-arg {name} cannot be given", hint=f"use {_RESERVED[name]}")


_RESERVED = {
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
    """Return the programs to build."""
    return (*TARGETS, RPC_TARGET) if split_rpc(backend)[1] else TARGETS


def definitions(
    *, backend: str, build: int, commit: str, keywords: CMakeOptions | None = None, gpus: str = "", pinned: bool = True
) -> tuple[str, ...]:
    """Return every ``-D`` that affects the output; part of a build's key. ``gpus`` are GPU architectures.

    Unity builds are used for the ``pinned`` tree only: other trees may not support them.
    """
    keywords = keywords or CMakeOptions()
    bare, rpc = split_rpc(backend)
    values: dict[str, Any] = {
        "CMAKE_BUILD_TYPE": keywords.build_type,
        "BUILD_SHARED_LIBS": "OFF",
        # without git metadata the build number is 0; inside another repository it is taken from that one
        "LLAMA_BUILD_NUMBER": str(build),
        "LLAMA_BUILD_COMMIT": commit,
        "LLAMA_BUILD_TESTS": "OFF",
        "LLAMA_BUILD_EXAMPLES": "OFF",
        "LLAMA_BUILD_APP": "OFF",
        "LLAMA_ALL_WARNINGS": "OFF",
        # the web UI is in the tree if at all: no build or download of another one, no writes into the tree
        "LLAMA_BUILD_UI": "OFF",
        "LLAMA_USE_PREBUILT_UI": "OFF",
        "LLAMA_UI_GZIP": "OFF",
        # a server on loopback needs no TLS; ggml has its own thread pool
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
        **({"CMAKE_C_FLAGS": keywords.cflags} if keywords.cflags else {}),
        **({"CMAKE_CXX_FLAGS": keywords.cxxflags} if keywords.cxxflags else {}),
    }
    values.update(keywords.definitions())
    return tuple(f"-D{name}={value}" for name, value in values.items())


def project_include(digest: str) -> Path:
    """Return the file with this digest that CMake includes after ``project()``."""
    return EARLIER_INCLUDE if digest == EARLIER_DIGEST else PROJECT_INCLUDE


def configure_command(
    cmake: Path,
    ninja: Path,
    source: Path,
    build: Path,
    compilers: Iterable[tuple[str, Path]],
    given: Iterable[str],
    include: Path = PROJECT_INCLUDE,
) -> list[str]:
    """Return the command that configures a build directory. Its paths are not part of the key.

    ``compilers`` are pairs of CMake's variable (``CMAKE_C_COMPILER``, ``Vulkan_GLSLC_EXECUTABLE``) and path.
    """
    given = list(given)
    shared = "-DBUILD_SHARED_LIBS=ON" in given
    return [
        *(str(cmake), "-S", str(source), "-B", str(build), "-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}"),
        *(f"-D{variable}={path}" for variable, path in compilers),
        f"-DCMAKE_PROJECT_TOP_LEVEL_INCLUDES={FASTER_BUILD}",
        f"-DCMAKE_PROJECT_INCLUDE={include}",
        # libraries lie beside the programs, with one name each, and are found relative to them
        *([f"-DCMAKE_LIBRARY_OUTPUT_DIRECTORY={build / 'bin'}"] if shared else []),
        *(["-DCMAKE_BUILD_RPATH_USE_ORIGIN=ON", "-DCMAKE_PLATFORM_NO_VERSIONED_SONAME=ON"] if shared else []),
        *given,
    ]


_PROGRESS = r"\[(\d+)/(\d+)\]"


def parse_progress(line: str) -> tuple[int, int] | None:
    """Return the finished and total objects from a line of Ninja's output, None for other lines."""
    match = re.match(_PROGRESS, line)
    return (int(match[1]), int(match[2])) if match else None


def unused_options(lines: Iterable[str]) -> list[str]:
    """Return the definitions that CMake did not use, from its warning at the end."""
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
