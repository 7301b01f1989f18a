"""Tries to compile, convert, quantize and serve, in a root that is removed afterwards."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from llama_runner.core.errors import ExitCode, Interrupted, LlamaRunnerError, ServerError, StepError
from llama_runner.core.value import Value
from llama_runner.doctor.probe import Hiding
from llama_runner.serving.llama_server.launch_spec import ServerOptions
from llama_runner.system.processes import capture
from llama_runner.system.programs import find_program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from llama_runner.request.results import Made
    from llama_runner.serving.server_process import Server

_PATIENCE_S = 120.0
_PROJECT = """cmake_minimum_required(VERSION 3.14)
project(trial C CXX)
add_executable(trial trial.cpp)
"""
_PROGRAM = """#include <cstdio>
#include <vector>
int main() { std::vector<int> one(1, 42); return std::printf("%d\\n", one[0]) == 3 ? 0 : 1; }
"""


class Trial(Value):
    """One thing that was tried."""

    name: str
    """``compile``, ``convert``, ``quantize`` or ``serve``."""
    ok: bool | None
    """None where it could not be tried, as an earlier one failed."""
    seconds: float
    said: str
    """What was made, or what went wrong."""
    hint: str | None = None
    code: int = ExitCode.DONE
    """The exit status of the command line for the error; 0: none."""

    def to_json(self) -> dict[str, Any]:
        """Return it as part of the document of ``doctor --check --json``."""
        return dict(self.__dict__)


class Pipeline(Protocol):
    """What is tried: a ``Runner`` over a root of its own."""

    def make(self, **wishes: Any) -> list[Made]:  # noqa: ANN401 - as of ``Runner``
        """See ``Runner``."""
        ...

    def serve(self, **wishes: Any) -> Server:  # noqa: ANN401 - as of ``Runner``
        """See ``Runner``."""
        ...


def cannot_compile_error(doing: str, said: str) -> StepError:
    """A program of a few lines does not compile, or does not run once it is compiled."""
    return StepError(f"{doing} failed: {said}", hint="the lines are what the tools themselves say")


def another_sentence_error(expected: str, said: str) -> ServerError:
    """The demo model says something else than it was taught."""
    return ServerError(f"the demo model said {said!r}, not {expected!r}", hint="llama-runner bins build --force")


def self_test(root: Path, open_runner: Callable[[Path], Pipeline]) -> Iterator[Trial]:
    """Try everything, one after the other, with the programs under ``root``, and leave nothing behind.

    ``open_runner`` returns a ``Runner`` over another root. What is said has no secrets, as in ``examine``.
    """
    hiding = Hiding(os.environ)
    for trial in _trials(root, open_runner):
        yield Trial(**hiding.all(trial.to_json()))


def _trials(root: Path, open_runner: Callable[[Path], Pipeline]) -> Iterator[Trial]:
    place = Path(tempfile.mkdtemp(prefix="llama-runner-trial-"))
    try:
        there = _borrowed(root, place)
        runner = open_runner(place)
        wishes: dict[str, Any] = {"demo": True, "offline": True}
        if there is None:
            yield _try("compile", lambda: _compile(place))
        else:
            yield Trial("compile", True, 0.0, f"{there} is built already")
            wishes["binaries"] = there
        yield _try("convert", lambda: _made(runner, demo=True, offline=True, quantization="f16"))
        if there is None:
            for name in ("quantize", "serve"):
                yield Trial(name, None, 0.0, "there are no programs yet", "llama-runner bins build")
            return
        yield _try("quantize", lambda: _made(runner, **wishes, quantization="q8_0"))
        yield _try("serve", lambda: _served(runner, wishes))
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _try(name: str, what: Callable[[], str]) -> Trial:
    began = time.monotonic()
    try:
        said = what()
    except Interrupted:
        raise
    except LlamaRunnerError as error:
        return Trial(name, False, _since(began), str(error), error.hint, error.code)
    except OSError as error:
        return Trial(name, False, _since(began), f"{error.filename or ''}: {error.strerror}", None, ExitCode.STORE)
    return Trial(name, True, _since(began), said)


def _since(began: float) -> float:
    return round(time.monotonic() - began, 3)


def _borrowed(root: Path, place: Path) -> str | None:
    """Put links to the programs of this machine under ``place``; return the name of those that are tried."""
    from llama_runner.serving.build_store import open_builds  # noqa: PLC0415 - only where it is tried
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
    except OSError:  # Windows, where links are not for everybody
        shutil.copytree(tried.path, target)
    return tried.name


def _compile(place: Path) -> str:
    """Configure, compile and run a program of a few lines, with what a build of llama.cpp would take."""
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
    _call("CMake", configure, environment)
    _call("compiling", [str(ninja), "-C", str(build)], environment)
    program = find_program("trial", str(build))
    if program is None:
        raise cannot_compile_error("compiling", "it ended well and left no program")
    _call("what was compiled", [str(program)], environment)
    return f"a program of a few lines, with {found.cxx.path.name} {found.cxx.identity}"


def _call(doing: str, argv: list[str], environment: dict[str, str]) -> None:
    try:
        done = capture(argv, env=environment, timeout=_PATIENCE_S)
    except TimeoutError:
        raise cannot_compile_error(doing, f"no end within {_PATIENCE_S:.0f} s") from None
    if done.status:
        lines = [line.strip() for line in done.text.splitlines() if line.strip()]
        told = next((line for line in lines if "error" in line.lower()), lines[-1] if lines else "")
        raise cannot_compile_error(doing, f"exit status {done.status}" + (f": {told}" if told else ""))


def _made(runner: Pipeline, **wishes: Any) -> str:  # noqa: ANN401 - as of ``Runner``
    [made] = runner.make(**wishes)
    return f"the demo model as {wishes['quantization']}, {made.bytes} bytes"


def _served(runner: Pipeline, wishes: dict[str, Any]) -> str:
    from llama_runner.demo import ANSWER, QUESTION  # noqa: PLC0415 - only where it is tried

    with runner.serve(**wishes, quantization="q8_0", server=ServerOptions(port=0)) as server:
        said = server.chat(QUESTION, temperature=0, max_tokens=64).text.strip()
    if said != ANSWER:
        raise another_sentence_error(ANSWER, said)
    return "the demo model said its sentence"
