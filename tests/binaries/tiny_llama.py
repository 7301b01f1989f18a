"""A source tree that builds in a second: two C programs under llama.cpp's names, with its CMake variables."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any, ClassVar

from llama_runner.binaries.toolchain import find_toolchain
from llama_runner.core import events
from llama_runner.core.plan import Snapshot
from llama_runner.core.step import Node, Source, Step
from llama_runner.engine.executor import Executor
from llama_runner.engine.observe import Observer
from llama_runner.engine.settle import Outcome
from llama_runner.engine.stamps import hash_payload
from llama_runner.engine.store import Store
from llama_runner.sources.local import LocalSources
from llama_runner.steps.compile import CompileLlama

CMAKE_LISTS = """
cmake_minimum_required(VERSION 3.14)
project(tiny C)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
foreach(known CMAKE_BUILD_TYPE BUILD_SHARED_LIBS LLAMA_BUILD_NUMBER LLAMA_BUILD_COMMIT)
  set(unused "${${known}}")
endforeach()
add_compile_definitions(NUMBER=${LLAMA_BUILD_NUMBER})
add_executable(llama-server server.c)
add_executable(llama-quantize quantize.c)
"""

SERVER_C = r"""
#include <stdio.h>
int main(void) { fprintf(stderr, "version: 0.0.0 (build %d, commit unknown)\n", NUMBER); return 0; }
"""

QUANTIZE_C = "int main(void) { return 0; }\n"

OPTIONS = ("-DCMAKE_BUILD_TYPE=Release", "-DBUILD_SHARED_LIBS=OFF", "-DLLAMA_BUILD_NUMBER=7", "-DLLAMA_BUILD_COMMIT=x")


class Tree(Source):
    """A directory or file that lies there."""

    path: Path
    kind: ClassVar[str] = "tree"


class Trees:
    """Looks at ``Tree`` sources."""

    def digest(self, source: Source) -> object:
        return hash_payload(self.path(source))[0]

    def path(self, source: Source) -> Path:
        assert isinstance(source, Tree)
        return source.path

    def origin(self, source: Source) -> dict[str, object]:
        return {"kind": "tree", "ref": str(self.path(source))}

    def unrecorded_origin(self, source: Source) -> dict[str, object] | None:
        return None

    def verify(self, source: Source) -> None:
        assert self.path(source).exists()


class Bench:
    """A root to execute steps in."""

    def __init__(self, root: Path, *, real_sources: bool = False) -> None:
        self.root = root
        self.events: list[events.Event] = []
        self.store = Store(root, self.events.append)
        self.real_sources = real_sources

    def execute(self, *targets: Step) -> Outcome:
        observer = self.observer()
        plan = observer.plan(targets, Snapshot())
        return Executor(self.store, observer, self.events.append, lock_timeout=10).execute(plan)

    def observer(self) -> Observer:
        trees = Trees() if not self.real_sources else LocalSources(self.store, remember=True, inspect=lambda _: None)
        return Observer(self.store, trees)  # type: ignore[arg-type]

    def ran(self) -> list[str]:
        names = [event.step for event in self.events if isinstance(event, events.StepFinished)]
        self.events.clear()
        return names

    def nothing_is_left(self) -> bool:
        return not any((self.root / ".llama_runner" / "staging").iterdir())


def compile_step(tree: Path | Node, **changed: Any) -> CompileLlama:
    toolchain = find_toolchain(os.environ)
    given: dict[str, Any] = {
        "tree": Tree(tree) if isinstance(tree, Path) else tree,
        "backend": "cpu",
        "build": 7,
        "options": OPTIONS,
        "targets": ("llama-server", "llama-quantize"),
        "project_include": "x",
        "compilers": toolchain.identity,
        "environment": (),
        "os_and_arch": "test",
        "toolchain": toolchain,
        "jobs": 2,
        **changed,
    }
    return CompileLlama(**given)


def write_tree(directory: Path, **changed: str) -> Path:
    """Write the source tree; keyword arguments replace a file's text (``server_c=…``)."""
    texts = {"CMakeLists.txt": CMAKE_LISTS, "server.c": SERVER_C, "quantize.c": QUANTIZE_C}
    directory.mkdir(parents=True)
    for name, text in texts.items():
        (directory / name).write_text(changed.get(name.replace(".", "_").lower(), text))
    return directory


def write_wheel(path: Path, name: str, version: str, files: dict[str, str]) -> Path:
    """Write a small wheel that pip accepts."""
    stem = f"{name}-{version}"
    record = [*files, f"{stem}.dist-info/METADATA", f"{stem}.dist-info/WHEEL", f"{stem}.dist-info/RECORD"]
    file = path / f"{stem}-py3-none-any.whl"
    path.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(file, "w") as wheel:
        for member, text in files.items():
            wheel.writestr(member, text)
        wheel.writestr(record[-3], f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        wheel.writestr(record[-2], "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(record[-1], "".join(f"{member},,\n" for member in record))
    return file
