"""Self-test: compiles, converts, quantizes and serves in a temporary root."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from llama_runner.core.errors import ExitCode, Interrupted, LlamaRunnerError, ServerError, StepError
from llama_runner.core.immutable_values import Value
from llama_runner.doctor.machine_probes import DocumentRedactor
from llama_runner.serving.llama_server.launch_spec import ServerOptions
from llama_runner.system.find_programs import find_program
from llama_runner.system.processes import capture

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from llama_runner.request.result_types import ModelFile
    from llama_runner.serving.server_process import Server

_TIMEOUT_S = 120.0
_PROJECT = """cmake_minimum_required(VERSION 3.14)
project(trial C CXX)
add_executable(trial trial.cpp)
"""
_PROGRAM = """#include <cstdio>
#include <vector>
int main() { std::vector<int> one(1, 42); return std::printf("%d\\n", one[0]) == 3 ? 0 : 1; }
"""


class SelfTestResult(Value):
    """The result of one part of the self-test."""

    name: str
    """``compile``, ``convert``, ``quantize`` or ``serve``."""
    ok: bool | None
    """None if it was not run, as an earlier part failed."""
    seconds: float
    said: str
    """The output that was made, or the error."""
    hint: str | None = None
    code: int = ExitCode.DONE
    """The exit status of the command line for the error; 0: none."""

    def to_json(self) -> dict[str, Any]:
        """Return it as part of the document of ``doctor --check --json``."""
        return dict(self.__dict__)


class Pipeline(Protocol):
    """The part of ``Runner`` that the self-test uses, with a temporary root."""

    def make(self, **keywords: Any) -> list[ModelFile]:  # noqa: ANN401 - as of ``Runner``
        """See ``Runner``."""
        ...

    def serve(self, **keywords: Any) -> Server:  # noqa: ANN401 - as of ``Runner``
        """See ``Runner``."""
        ...


def cannot_compile_error(doing: str, said: str) -> StepError:
    """Return the error for the test program that does not compile or run."""
    return StepError(f"{doing} failed: {said}", hint="the lines are what the tools themselves say")


def wrong_answer_error(expected: str, said: str) -> ServerError:
    """Return the error for another answer of the demo model than the trained one."""
    return ServerError(f"the demo model said {said!r}, not {expected!r}", hint="llama-runner bins build --force")


def self_test(root: Path, open_runner: Callable[[Path], Pipeline]) -> Iterator[SelfTestResult]:
    """Run the parts of the self-test with the programs under ``root``, and remove their output.

    ``open_runner`` returns a ``Runner`` for another root. The results have no secrets, as in ``collect_report``.
    """
    hiding = DocumentRedactor(os.environ)
    for result in _tests(root, open_runner):
        yield SelfTestResult(**hiding.all(result.to_json()))


def _tests(root: Path, open_runner: Callable[[Path], Pipeline]) -> Iterator[SelfTestResult]:
    place = Path(tempfile.mkdtemp(prefix="llama-runner-trial-"))
    try:
        there = _link_programs(root, place)
        runner = open_runner(place)
        keywords: dict[str, Any] = {"demo": True, "offline": True, "remote_store": ""}
        if there is None:
            yield _run_test("compile", lambda: _compile(place))
        else:
            yield SelfTestResult("compile", True, 0.0, f"{there} is built already")
            keywords["binaries"] = there
        yield _run_test("convert", lambda: _run_make(runner, demo=True, offline=True, quantization="f16"))
        if there is None:
            for name in ("quantize", "serve"):
                yield SelfTestResult(name, None, 0.0, "there are no programs yet", "llama-runner bins build")
            return
        yield _run_test("quantize", lambda: _run_make(runner, **keywords, quantization="q8_0"))
        yield _run_test("serve", lambda: _run_serve(runner, keywords))
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _run_test(name: str, what: Callable[[], str]) -> SelfTestResult:
    began = time.monotonic()
    try:
        said = what()
    except Interrupted:
        raise
    except LlamaRunnerError as error:
        return SelfTestResult(name, False, _since(began), str(error), error.hint, error.code)
    except OSError as error:
        return SelfTestResult(
            name, False, _since(began), f"{error.filename or ''}: {error.strerror}", None, ExitCode.STORE
        )
    return SelfTestResult(name, True, _since(began), said)


def _since(began: float) -> float:
    return round(time.monotonic() - began, 3)


def _link_programs(root: Path, place: Path) -> str | None:
    """Link an installed build into the root ``place`` and return its name; None without a build."""
    from llama_runner.serving.builds_in_use import open_builds  # noqa: PLC0415 - only where it is tried
    from llama_runner.store.artifacts import Store  # noqa: PLC0415
    from llama_runner.store.layout import build_place  # noqa: PLC0415
    from llama_runner.system.hardware import platform_tag  # noqa: PLC0415

    builds = open_builds(Store(root, lambda _event: None)).builds()
    sound = [build for build in builds if build.platform == platform_tag() and build.problem is None]
    if not sound:
        return None
    tried = max(sound, key=lambda build: (build.chosen, build.made or ""))
    target = place / build_place(tried.platform, tried.name)
    target.parent.mkdir(parents=True)
    try:
        target.symlink_to(tried.path.absolute(), target_is_directory=True)
    except OSError:  # on Windows only administrators may make links
        shutil.copytree(tried.path, target)
    return tried.name


def _compile(place: Path) -> str:
    """Configure, compile and run a short program with the tools of a build of llama.cpp."""
    from llama_runner.llama_cpp import cmake  # noqa: PLC0415 - only where it is tried
    from llama_runner.llama_cpp.toolchain import PASSED_ENVIRONMENT, find_toolchain, tool_path  # noqa: PLC0415

    found, ninja = find_toolchain(os.environ), tool_path("ninja")
    source, build = place / "trial", place / "trial-build"
    source.mkdir()
    (source / "CMakeLists.txt").write_text(_PROJECT, encoding="utf-8")
    (source / "trial.cpp").write_text(_PROGRAM, encoding="utf-8")
    compilers = [("CMAKE_C_COMPILER", found.c.path), ("CMAKE_CXX_COMPILER", found.cxx.path)]
    environment = {name: os.environ[name] for name in PASSED_ENVIRONMENT if name in os.environ} | {"LC_ALL": "C"}
    configure = cmake.configure_command(
        tool_path("cmake"), ninja, source, build, compilers, ["-DCMAKE_BUILD_TYPE=Release"]
    )
    _run_tool("CMake", configure, environment)
    _run_tool("compiling", [str(ninja), "-C", str(build)], environment)
    program = find_program("trial", str(build))
    if program is None:
        raise cannot_compile_error("compiling", "it ended well and left no program")
    _run_tool("what was compiled", [str(program)], environment)
    return f"a program of a few lines, with {found.cxx.path.name} {found.cxx.identity}"


def _run_tool(doing: str, argv: list[str], environment: dict[str, str]) -> None:
    try:
        done = capture(argv, env=environment, timeout=_TIMEOUT_S)
    except TimeoutError:
        raise cannot_compile_error(doing, f"no end within {_TIMEOUT_S:.0f} s") from None
    if done.status:
        lines = [line.strip() for line in done.text.splitlines() if line.strip()]
        told = next((line for line in lines if "error" in line.lower()), lines[-1] if lines else "")
        raise cannot_compile_error(doing, f"exit status {done.status}" + (f": {told}" if told else ""))


def _run_make(runner: Pipeline, **keywords: Any) -> str:  # noqa: ANN401 - as of ``Runner``
    [made] = runner.make(**keywords)
    return f"the demo model as {keywords['quantization']}, {made.bytes} bytes"


def _run_serve(runner: Pipeline, keywords: dict[str, Any]) -> str:
    from llama_runner.demo import ANSWER, QUESTION  # noqa: PLC0415 - only where it is tried

    with runner.serve(**keywords, quantization="q8_0", server=ServerOptions(port=0)) as server:
        said = server.chat(QUESTION, temperature=0, max_tokens=64).text.strip()
    if said != ANSWER:
        raise wrong_answer_error(ANSWER, said)
    return "the demo model said its sentence"
