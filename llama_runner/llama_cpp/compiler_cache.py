"""Use of an installed compiler cache (ccache or sccache).

A cache cannot change the output, so it is not part of a build's key.
"""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

from llama_runner.system.find_programs import find_program

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

PROGRAMS = ("ccache", "sccache")
_THEIRS = ("CCACHE_", "SCCACHE_", "XDG_CACHE_HOME", "XDG_CONFIG_HOME")


def find_cache(environment: Mapping[str, str], options: Iterable[str]) -> Path | None:
    """Return the path of a compiler cache; None if there is none, or if ``GGML_CCACHE`` is set to find one."""
    if "-DGGML_CCACHE=ON" in options:
        return None
    found = (find_program(name, environment.get("PATH", os.defpath)) for name in PROGRAMS)
    return next((path for path in found if path is not None), None)


def launchers(cache: Path, languages: Iterable[str]) -> list[tuple[str, Path]]:
    """Return CMake's launcher variables for these languages (``C``, ``CXX``, ``CUDA``)."""
    return [(f"CMAKE_{language}_COMPILER_LAUNCHER", cache) for language in languages]


def variables(environment: Mapping[str, str], *places: Path, cpu: str = "") -> dict[str, str]:
    """Return environment variables for the cache: the user's, and those that let other builds share its entries.

    ``places`` are the directories of sources and build: paths below their common parent become relative, so the same
    store under another root finds the entries. ``cpu`` are the processor's features for a native build: without them, a
    cache shared by several machines would treat ``-march=native`` as the same on all of them.
    """
    shared = os.path.commonpath(places)
    return {
        **({"CCACHE_BASEDIR": shared} if shared != os.path.dirname(shared) else {}),  # noqa: PTH120 - text, not a place
        "CCACHE_NOHASHDIR": "1",
        **({"CCACHE_NAMESPACE": hashlib.sha256(cpu.encode()).hexdigest()[:16]} if cpu else {}),
        **{name: value for name, value in environment.items() if name.startswith(_THEIRS)},
    }


def is_usable(cache: Path, compiler: Path, environment: Mapping[str, str], directory: Path) -> bool:
    """Return whether the cache works; with an unwritable cache directory every compilation fails."""
    from llama_runner.system.processes import try_output  # noqa: PLC0415 - not on the warm path

    source = directory / "empty.c"
    source.write_text("", encoding="utf-8")
    return try_output([cache, compiler, "-c", source, "-o", directory / "empty.o"], env=environment) is not None
