"""The words that CMake is given. Pure: tested by comparing lists.

What ``find_package`` would pick up when it happens to be there (OpenSSL, OpenMP, BLAS, ccache) is decided here,
each one: a build must not depend on what else is installed.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

PROJECT_INCLUDE = Path(__file__).with_name("project_include.cmake")
"""Read by CMake after ``project()``; its content is part of a build's key."""

TARGETS = ("llama-server", "llama-quantize", "llama-imatrix", "llama-perplexity")


def options(*, backend: str, build: int, commit: str) -> tuple[str, ...]:
    """Return every ``-D`` that decides what is built; part of a build's key."""
    return tuple(
        f"-D{name}={value}"
        for name, value in {
            "CMAKE_BUILD_TYPE": "Release",
            "BUILD_SHARED_LIBS": "OFF",
            # without git metadata the build calls itself 0; inside a repository, by that repository's commit
            "LLAMA_BUILD_NUMBER": str(build),
            "LLAMA_BUILD_COMMIT": commit,
            "LLAMA_BUILD_TESTS": "OFF",
            "LLAMA_BUILD_EXAMPLES": "OFF",
            "LLAMA_BUILD_APP": "OFF",
            "LLAMA_ALL_WARNINGS": "OFF",
            # the web UI is in the tree; do not download another, do not write into the tree
            "LLAMA_BUILD_UI": "ON",
            "LLAMA_USE_PREBUILT_UI": "OFF",
            "LLAMA_UI_GZIP": "OFF",
            # a server on loopback needs no TLS; ggml has threads of its own
            "LLAMA_OPENSSL": "OFF",
            "GGML_OPENMP": "OFF",
            "GGML_BLAS": "OFF",
            "GGML_CCACHE": "OFF",
            "GGML_NATIVE": "ON",
            "GGML_METAL": "ON" if backend == "metal" else "OFF",
        }.items()
    )


def configure(
    cmake: Path, ninja: Path, source: Path, build: Path, c: Path, cxx: Path, given: Iterable[str]
) -> list[str]:
    """Return the argv that configures a build directory; paths are not keyed."""
    return [
        *(str(cmake), "-S", str(source), "-B", str(build), "-G", "Ninja"),
        *(f"-DCMAKE_MAKE_PROGRAM={ninja}", f"-DCMAKE_C_COMPILER={c}", f"-DCMAKE_CXX_COMPILER={cxx}"),
        f"-DCMAKE_PROJECT_INCLUDE={PROJECT_INCLUDE}",
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
