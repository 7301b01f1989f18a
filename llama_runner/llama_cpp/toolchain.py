"""Finds the compilers and their identities; CMake and Ninja come from their Python packages.

A compiler's identity takes a process. It is stored in the record of each build with the stamp of the compiler's file,
so a warm start runs no compiler.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_runner.core.errors import ToolError
from llama_runner.core.immutable_values import Value, field
from llama_runner.store.digest_cache import is_same_tool, source_stamp
from llama_runner.system.find_programs import find_program

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from llama_runner.core.artifact_record import Stamp

KEYED_ENVIRONMENT = (
    *("CFLAGS", "CXXFLAGS", "CPPFLAGS", "LDFLAGS", "CPATH", "LIBRARY_PATH", "CUDAARCHS"),
    *("SDKROOT", "DEVELOPER_DIR", "MACOSX_DEPLOYMENT_TARGET"),
)
"""Variables that reach the compiler and are part of the key."""

PASSED_ENVIRONMENT = ("PATH", "HOME", "TMPDIR", "TEMP", "TMP", "SYSTEMROOT", "LD_LIBRARY_PATH")
"""Variables that programs need to run and that cannot change their output. Nothing else is passed."""


_NOWHERE = Path(os.devnull)
"""A path below which nothing can be."""


class NoCompiler(ToolError):
    """There is no C or C++ compiler."""

    def __init__(self, language: str, tried: tuple[str, ...]) -> None:
        self.language, self.tried = language, tried
        super().__init__(
            f"no {language} compiler found (tried {', '.join(tried)})",
            hint="sudo apt-get install -y g++   (macOS: xcode-select --install; Fedora: sudo dnf install gcc-c++)",
        )


def not_a_program_error(role: str, value: str) -> ToolError:
    """Return the error for a ``CC`` or ``CXX`` that is not the name of a program."""
    variable = {"C": "CC", "CXX": "CXX"}[role]
    return ToolError(
        f"{variable} is {value!r}, which is not a program",
        hint=f"name one program; flags go into {'CFLAGS' if role == 'C' else 'CXXFLAGS'}",
    )


def broken_compiler_error(path: Path) -> ToolError:
    """Return the error for a compiler without a version."""
    return ToolError(f"{path} --version fails", hint="reinstall it, or point CC and CXX at another compiler")


class Compiler(Value):
    """Compiler: its path, and its identity, which is the same on any machine."""

    path: Path
    identity: str
    stamp: Stamp

    def to_json(self) -> dict[str, Any]:
        """Return the form that a record notes."""
        return {"path": str(self.path), "identity": self.identity, "stamp": self.stamp}


class Toolchain(Value):
    """C and C++ compiler of a build, and the other compilers of a backend by name (nvcc, glslc)."""

    c: Compiler
    cxx: Compiler
    others: Mapping[str, Compiler] = field(default_factory=dict)

    @property
    def identity(self) -> tuple[str, ...]:
        """The part that is keyed."""
        return (self.c.identity, self.cxx.identity, *(other.identity for other in self.others.values()))

    def to_json(self) -> dict[str, Any]:
        """Return the form that a record notes."""
        others = {name: compiler.to_json() for name, compiler in self.others.items()}
        return {"c": self.c.to_json(), "cxx": self.cxx.to_json(), **others}


def find_toolchain(
    environment: Mapping[str, str], noted: Iterable[Mapping[str, Any]] = (), *, programs: Iterable[str] = ()
) -> Toolchain:
    """Find the compilers that ``CC`` and ``CXX`` name, or the usual ones; raises ``NoCompiler``.

    ``noted`` are toolchains from records (``Toolchain.to_json``): a compiler with the same stamp is not run again.
    ``programs`` are the backend's other compilers; missing ones are left out.
    """
    noted = list(noted)
    others = {name: _other(name, environment, noted) for name in programs}
    return Toolchain(
        _find("c", "C", (environment.get("CC"), "cc", "gcc", "clang"), environment, noted),
        _find("cxx", "C++", (environment.get("CXX"), "c++", "g++", "clang++"), environment, noted),
        {name: compiler for name, compiler in others.items() if compiler is not None},
    )


def toolchain_elsewhere(identities: tuple[str, ...], programs: Iterable[str] = ()) -> Toolchain:
    """Return the toolchain of another machine: it decides keys, and compiling with it raises ``NoCompiler``.

    ``identities`` are those of the C and the C++ compiler and of ``programs``, in this order.
    """
    c, cxx, *others = (Compiler(_NOWHERE / "compiler", identity, {}) for identity in identities)
    return Toolchain(c, cxx, dict(zip(programs, others, strict=True)))


def _other(name: str, environment: Mapping[str, str], noted: list[Mapping[str, Any]]) -> Compiler | None:
    known = _noted(name, noted)
    path = find_program(name, environment.get("PATH", os.defpath))
    if path is None:
        return known[-1] if known else None
    stamp = source_stamp(path)
    return _same(known, path, stamp) or Compiler(
        path, _output(path, "--version", environment).replace("\n", " "), stamp
    )


def _noted(role: str, noted: list[Mapping[str, Any]]) -> list[Compiler]:
    found = [
        of for each in noted if isinstance(of := each.get(role), dict) and of.keys() >= {"path", "identity", "stamp"}
    ]
    return [Compiler(Path(str(of["path"])), of["identity"], of["stamp"]) for of in found]


def _same(known: Iterable[Compiler], path: Path, stamp: Stamp) -> Compiler | None:
    same = (compiler for compiler in known if compiler.path == path and is_same_tool(compiler.stamp, stamp))
    return next(same, None)


def _find(
    role: str,
    language: str,
    names: tuple[str | None, ...],
    environment: Mapping[str, str],
    noted: list[Mapping[str, Any]],
) -> Compiler:
    known = _noted(role, noted)
    chosen = (names[0] or "").strip()
    wanted = (chosen,) if chosen else tuple(name for name in names[1:] if name)
    for name in wanted:
        if path := find_program(name, environment.get("PATH", os.defpath)):
            stamp = source_stamp(path)
            return _same(known, path, stamp) or Compiler(path, _identity(path, environment), stamp)
    if " " in chosen:
        raise not_a_program_error(role.upper(), chosen)
    if known and not chosen:
        # A finished build runs without its compiler, as in a container image that does not contain it.
        return known[-1]
    raise NoCompiler(language, tuple(wanted))


def _identity(path: Path, environment: Mapping[str, str]) -> str:
    """Return a compiler's identity: its version without the program's name, and its target."""
    first = _output(path, "--version", environment).splitlines()[0]
    program, _, rest = first.partition(" ")
    if program in (path.name, path.resolve().name):
        first = rest
    return f"{first} {_output(path, '-dumpmachine', environment, needed=False)}".strip()


def _output(path: Path, word: str, environment: Mapping[str, str], *, needed: bool = True) -> str:
    from llama_runner.system.processes import try_output  # noqa: PLC0415 - not on the warm path

    env = {name: environment[name] for name in PASSED_ENVIRONMENT if name in environment} | {"LC_ALL": "C"}
    said = (try_output([path, word], env=env) or "").strip()
    if needed and not said:
        raise broken_compiler_error(path)
    return said


def tool_path(package: str) -> Path:
    """Return the program of the Python package ``cmake`` or ``ninja``; raises ``ToolError``."""
    import importlib  # noqa: PLC0415 - only to build

    try:
        module = importlib.import_module(package)
    except ImportError:
        raise missing_tool_error(package) from None
    directory = getattr(module, "CMAKE_BIN_DIR", None) or module.BIN_DIR
    found = find_program(package, directory)
    if found is None:
        raise missing_tool_error(package)
    return found


def missing_tool_error(package: str) -> ToolError:
    """Return the error for a missing Python package of a build tool."""
    return ToolError(f"{package} is not installed", hint=f"python -m pip install {package}")
