"""ccache or sccache, where one is installed: it gives back what the same compiler made of the same text before.

It cannot change what is built, so it is not part of a build's key.
"""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

from llama_runner.system.programs import find_program

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

PROGRAMS = ("ccache", "sccache")
_THEIRS = ("CCACHE_", "SCCACHE_", "XDG_CACHE_HOME", "XDG_CONFIG_HOME")


def find_cache(environment: Mapping[str, str], options: Iterable[str]) -> Path | None:
    """Return the program, unless the user has llama.cpp's own CMake files look for one."""
    if "-DGGML_CCACHE=ON" in options:
        return None
    found = (find_program(name, environment.get("PATH", os.defpath)) for name in PROGRAMS)
    return next((path for path in found if path is not None), None)


def launchers(cache: Path, languages: Iterable[str]) -> list[tuple[str, Path]]:
    """Return CMake's variables that put it before the compilers of these languages (``C``, ``CXX``, ``CUDA``)."""
    return [(f"CMAKE_{language}_COMPILER_LAUNCHER", cache) for language in languages]


def variables(environment: Mapping[str, str], *places: Path, cpu: str = "") -> dict[str, str]:
    """Return the variables that a cache is run with: the user's, and those that let builds elsewhere share it.

    ``places`` are the directories of the sources and of the build: paths below what they have in common are taken
    relative to the build, so the same store under another root finds what this one compiled. ``cpu`` is what the
    processor can do, where the compiler is told to use all of it: a cache that several machines share takes
    ``-march=native`` for the same on all of them.
    """
    shared = os.path.commonpath(places)
    return {
        **({"CCACHE_BASEDIR": shared} if shared != os.path.dirname(shared) else {}),  # noqa: PTH120 - text, not a place
        "CCACHE_NOHASHDIR": "1",
        **({"CCACHE_NAMESPACE": hashlib.sha256(cpu.encode()).hexdigest()[:16]} if cpu else {}),
        **{name: value for name, value in environment.items() if name.startswith(_THEIRS)},
    }


def works(cache: Path, compiler: Path, environment: Mapping[str, str], directory: Path) -> bool:
    """Try it: one whose directory cannot be written fails, and every compilation with it."""
    from llama_runner.system.processes import try_output  # noqa: PLC0415 - not on the warm path

    source = directory / "empty.c"
    source.write_text("", encoding="utf-8")
    return try_output([cache, compiler, "-c", source, "-o", directory / "empty.o"], env=environment) is not None
