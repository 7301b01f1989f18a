"""Step: compile llama.cpp with CMake and Ninja. Everything that can change the bytes is keyed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from llama_runner.core.digest import short_hash
from llama_runner.core.errors import StepError
from llama_runner.core.step import Node, Place, ResourceEstimate, Step, unkeyed
from llama_runner.llama_cpp import backend_build_options, cmake
from llama_runner.llama_cpp.gpu_detection import try_nvcc
from llama_runner.llama_cpp.toolchain import PASSED_ENVIRONMENT, NoCompiler, tool_path
from llama_runner.steps.unpack import UnpackSource
from llama_runner.store.layout import build_place
from llama_runner.system import hardware

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llama_runner.core.digest import Digest, Key
    from llama_runner.core.step_interfaces import Workspace
    from llama_runner.llama_cpp.gpu_detection import Gpus
    from llama_runner.llama_cpp.toolchain import Toolchain

PEAK_DISK = 200 << 20
"""Objects and binaries of a CPU build: measured 155 MiB and 34 MiB."""

_COMMIT = "-DLLAMA_BUILD_COMMIT="


def unknown_option_error(options: list[str], log: str) -> StepError:
    """Return the error for options that llama.cpp's CMake files do not use; the build would silently lack them."""
    return StepError(
        f"compile: CMake does not know {', '.join(options)}\nfull log: {log}",
        hint="the option was renamed or never existed; look into the CMakeLists.txt of the source tree",
    )


class CompileLlama(Step):
    """``llama-server`` and its tools for one backend."""

    tree: Node
    backend: str
    build: int
    options: tuple[str, ...]
    targets: tuple[str, ...]
    project_include: str
    compilers: tuple[str, ...]
    environment: tuple[str, ...]
    os_and_arch: str = unkeyed("")
    cpu: str = unkeyed("")
    toolchain: Toolchain | None = unkeyed(None)
    gpus: Gpus | None = unkeyed(None)
    jobs: int | None = unkeyed(None)
    """Number of parallel compilers; None: one for each processor, fewer if memory is low."""
    kind: ClassVar[str] = "compile"
    resource: ClassVar = "compute"

    @property
    def platform(self) -> dict[str, object]:
        """The system, the architecture and, with ``GGML_NATIVE``, the features of the processor."""
        native = "-DGGML_NATIVE=OFF" not in self.options
        return {"system": self.os_and_arch, **({"cpu": self.cpu} if native else {})}

    @property
    def tools(self) -> dict[str, object]:
        """The compilers with their stamps, and the GPUs, so that a later start need not detect them again."""
        found = {} if self.toolchain is None else self.toolchain.to_json()
        return found | ({} if self.gpus is None else {"gpus": self.gpus.to_json()})

    def place(self, key: Key | None, digests: Mapping[str, Digest | None], places: Mapping[str, Place]) -> Place | None:
        """Return the place of a build, with digits of the key."""
        del digests, places
        if key is None:
            return None
        return Place(build_place(self.os_and_arch, f"{self.backend}-b{self.build}-{short_hash(key)}"))

    def estimate(self) -> ResourceEstimate:
        """Return the size of object files and binaries."""
        return ResourceEstimate(disk=PEAK_DISK)

    def run(self, workspace: Workspace) -> None:
        """Configure, build, copy, run the smoke test. The build directory is kept, so that a build can be resumed."""
        import shutil  # noqa: PLC0415 - not on the warm path

        from llama_runner.llama_cpp.compile_jobs import run_ninja  # noqa: PLC0415 - as above

        assert self.toolchain is not None
        for language, compiler in (("C", self.toolchain.c), ("C++", self.toolchain.cxx)):
            if not compiler.path.exists():
                raise NoCompiler(language, (str(compiler.path),))
        environment = {
            **{name: os.environ[name] for name in PASSED_ENVIRONMENT if name in os.environ},
            **dict(pair.split("=", 1) for pair in self.environment),
            "LC_ALL": "C",
        }
        build = workspace.work / "build"
        ninja = tool_path("ninja")
        if backend_build_options.split_rpc(self.backend)[0] == "cuda" and (nvcc := self.toolchain.others.get("nvcc")):
            variable = f"-D{backend_build_options.BACKENDS['cuda'].architectures}="
            architectures = next((word[len(variable) :] for word in self.options if word.startswith(variable)), "")
            try_nvcc(nvcc.path, self.toolchain.cxx.path, architectures, environment)
        compilers = self._compilers(self.toolchain)
        compilers += self._cache(workspace, [variable for variable, _ in compilers], environment)
        include = cmake.project_include(self.project_include)
        configure = cmake.configure_command(
            tool_path("cmake"), ninja, workspace.input("tree"), build, compilers, self.options, include
        )
        _remove_other_build(workspace.work, configure)
        said: list[str] = []
        workspace.run_program(configure, env=environment, on_line=said.append)
        self._check_unknown(cmake.unused_options(said), workspace)
        run_ninja(workspace, [ninja, "-C", build, *self.targets], environment, self.jobs)
        for library in sorted((build / "bin").iterdir()):
            if library.suffix in (".so", ".dylib", ".dll"):
                shutil.copy2(library, workspace.out / library.name)
        for target in self.targets:
            shutil.copy2(build / "bin" / target, workspace.out / target)
        self._smoke_test(workspace)
        if libc := hardware.libc_version():
            workspace.add_facts(libc=libc)

    def check_fetched(self, workspace: Workspace) -> None:
        """Run the smoke test: a build of another machine may not run on this one."""
        self._smoke_test(workspace)

    def _check_unknown(self, unused: list[str], workspace: Workspace) -> None:
        """Raise ``StepError`` for options that CMake does not use.

        Another llama.cpp than the pinned one may lack the default options of this package; these only give a notice.
        """
        ours = {option.removeprefix("-D").partition("=")[0]: option for option in self.options}
        unknown = [name for name in unused if name in ours]
        if not isinstance(self.tree, UnpackSource):
            usual = cmake.definitions(backend="cpu", build=self.build, commit="")
            if known_here := [name for name in unknown if ours[name] in usual]:
                workspace.notice("source", f"this llama.cpp has no {', '.join(known_here)}")
            unknown = [name for name in unknown if name not in known_here]
        if unknown:
            raise unknown_option_error(unknown, workspace.log_name)

    def _cache(self, workspace: Workspace, variables: list[str], environment: dict[str, str]) -> list[tuple[str, Path]]:
        """Return CMake's variables for a compiler cache, if there is one; adds its variables to ``environment``."""
        from llama_runner.llama_cpp import compiler_cache  # noqa: PLC0415 - not on the warm path

        assert self.toolchain is not None
        cache = compiler_cache.find_cache(os.environ, self.options)
        if cache is None:
            return []
        places = (workspace.input("tree").absolute(), workspace.work.absolute())
        theirs = compiler_cache.variables(os.environ, *places, cpu=str(self.platform.get("cpu", "")))
        if not compiler_cache.is_usable(cache, self.toolchain.c.path, {**environment, **theirs}, workspace.scratch):
            workspace.warn("compiler cache", f"{cache} does not work here; compiling without it")
            return []
        environment.update(theirs)
        workspace.add_facts(compiler_cache=cache.name)
        languages = ("C", "CXX", "CUDA", "HIP")
        return compiler_cache.launchers(cache, [one for one in languages if f"CMAKE_{one}_COMPILER" in variables])

    def _compilers(self, toolchain: Toolchain) -> list[tuple[str, Path]]:
        """Return CMake's variables for the compilers. Raises ``ToolError`` if one of the backend is missing."""
        bare, _ = backend_build_options.split_rpc(self.backend)
        given = (option.partition("=") for option in self.options)
        include = [Path(value) for name, _, value in given if name.endswith("_INCLUDE_DIR")]
        if lacking := backend_build_options.missing_requirements(self.backend, os.environ, include=include):
            raise backend_build_options.cannot_build_error(bare, lacking, backend_build_options.BACKENDS[bare].install)
        found = [("CMAKE_C_COMPILER", toolchain.c.path), ("CMAKE_CXX_COMPILER", toolchain.cxx.path)]
        for program, variable in backend_build_options.BACKENDS[bare].programs.items():
            found.append((variable, toolchain.others[program].path))
        if bare == "cuda":
            found.append(("CMAKE_CUDA_HOST_COMPILER", toolchain.cxx.path))
        return found

    def _smoke_test(self, workspace: Workspace) -> None:
        from llama_runner.serving.smoke_test import Expected, prove  # noqa: PLC0415 - not on the warm path

        commit = next((word.partition("=")[2] for word in self.options if word.startswith(_COMMIT)), None)
        prove(workspace.out, Expected(self.backend, self.build, commit), workspace)


def _remove_other_build(work: Path, configure: list[str]) -> None:
    """Remove a build directory that was configured with another command line.

    With a compiler at another path, CMake deletes its cache and configures again without the options of the command
    line; in a directory that was moved it fails.
    """
    import shutil  # noqa: PLC0415 - not on the warm path

    words, note = "\n".join(configure), work / "configured"
    if not note.exists() or note.read_text(encoding="utf-8") != words:
        shutil.rmtree(work / "build", ignore_errors=True)
        note.write_text(words, encoding="utf-8")
