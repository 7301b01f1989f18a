"""Step: make the Python environment of llama.cpp's official converter and of training: torch, transformers, PEFT.

It is a virtual environment in the store, installed by uv if there is one, else by pip, which use the user's index,
proxy and certificates. The CUDA build of torch has several gigabytes and converts no faster, so a dry run of each
installer shows what it would install, and the first one that selects the CPU build is used. For training on a GPU
there is a second environment, with the CUDA build.
"""

from __future__ import annotations

import json
import os
import re
import sys
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from llama_runner.core.errors import ToolError
from llama_runner.core.immutable_values import Value
from llama_runner.core.step import Node, Place, ResourceEstimate, Step, keyed_unless_default
from llama_runner.engine.errors import ProgramFailed
from llama_runner.llama_cpp.toolchain import PASSED_ENVIRONMENT
from llama_runner.store.layout import SOURCES
from llama_runner.system import hardware
from llama_runner.system.find_programs import find_program
from llama_runner.system.platforms import PYTHON_OF_ENVIRONMENT
from llama_runner.system.processes import python_module

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from llama_runner.core.digest import Digest, Key
    from llama_runner.core.step_interfaces import Workspace

REQUIREMENTS = (
    "torch==2.13.0",
    "transformers==4.57.6",
    "peft==0.18.1",
    "accelerate==1.15.0",
    "tokenizers>=0.22.0,<0.22.2",
    "sentencepiece>=0.2,<0.3",
    "protobuf>=4.21,<5",
    "safetensors",
    "numpy",
    "pyyaml",
    "tqdm",
    "requests",
)
"""The requirements of llama.cpp's tree, with versions of torch and numpy that have wheels for the newest Python.

PEFT, which needs accelerate, is for training; one environment for both is smaller than two.

gguf is missing on purpose: it must come from the same tree as the script. From 0.22.2 to
0.23.3 at least, tokenizers gives added tokens other numbers than tokenizer.json has if one of them is beyond a hole of
the vocabulary (huggingface/tokenizers#1891), as in Phi-4-mini. Of 300 random vocabularies that 0.23.3 saved, 0.22.1
read 245 as they were, 0.23.3 itself 121: so the earlier version is used for them too.
"""
CONVERT = "convert_hf_to_gguf.py"
DRIVER = Path(__file__).parents[1] / "convert" / "official_script_runner.py"
FETCHED_BYTES = 240_000_000
INSTALLED_BYTES = 1_100_000_000
"""Measured on Linux, x86-64, Python 3.11."""

CUDA_FETCHED_BYTES, CUDA_INSTALLED_BYTES = 3_000_000_000, 7_000_000_000
"""Of the environment with CUDA, roughly."""

_ACCELERATOR = r"(?i)(nvidia-|triton|pytorch-triton|cuda-|rocm)"
_ACCELERATED = r"\+(cu|rocm|xpu)"
_UV_LINE = r" \+ ([\w.-]+)==(\S+)"
_GAVE_UP = "Retry(total=0"
"""Part of pip's message before its last attempt."""

_TREE_INDEX = r"(?m)^--extra-index-url[= ](\S+)"
_COMPILE = """
import sys, compileall, py_compile
how = py_compile.PycInvalidationMode.UNCHECKED_HASH
compileall.compile_dir(sys.argv[1], quiet=2, workers=0, force=True, invalidation_mode=how)
"""
"""Compiles all modules once, so that nothing is written later; files for other versions of Python are skipped.

Modules that a .pth file imports were compiled when this program started, hence ``force``: such a file is written again
once the time of its source is another, as in a copy.
"""
_NO_WHOLE_FILES = ("--use-feature", "fast-deps")
"""If an index has no separate metadata, pip would download whole files for their dependencies: gigabytes for CUDA."""
_NOT_PASSED = ("PYTHONPATH", "PYTHONHOME", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_USER", "UV_TARGET")
"""Variables that would install to another directory, or make the user's packages importable."""


def accelerator_only_error(packages: Iterable[str]) -> ToolError:
    """Return the error if every installer would install a CUDA or ROCm build of torch."""
    packages = tuple(packages)
    return ToolError(
        f"no CPU build of torch is available; it would install {', '.join(packages[:4])}",
        hint="nothing was installed; configure an index with CPU builds of torch for pip (PIP_EXTRA_INDEX_URL)",
    )


def no_cuda_build_error() -> ToolError:
    """Return the error if no installer would install a CUDA build of torch."""
    return ToolError(
        "no CUDA build of torch is available",
        hint="nothing was installed; train on the CPU with --device cpu, or configure an index with CUDA builds",
    )


def not_installable_error(tail: list[str], log: str) -> ToolError:
    """Return the error for a failed installation."""
    lines = "".join(f"\n  {line}" for line in tail[-4:])
    return ToolError(
        f"the Python environment of llama.cpp's own converter cannot be made{lines}\nfull log: {log}",
        hint="check the network and pip's index, proxy and certificate settings (pip config list)",
    )


def broken_environment_error(tail: list[str], log: str) -> ToolError:
    """Return the error for an environment in which the script does not start."""
    lines = "".join(f"\n  {line}" for line in tail[-4:])
    return ToolError(
        f"llama.cpp's own converter does not start in its Python environment{lines}\nfull log: {log}",
        hint="use another version of Python: the package index may lack suitable packages for this one",
    )


def missing_python_error(python: Path) -> ToolError:
    """Return the error for an environment whose base Python was removed."""
    return ToolError(
        f"the Python of llama.cpp's own converter is gone: {python.readlink() if python.is_symlink() else python}",
        hint="make the environment again: --force-step environment",
    )


class _Installer(Value):
    """A program that installs packages; ``words`` is its command line without the requirements."""

    program: str
    words: tuple[str, ...]


class ConverterEnvironment(Step):
    """A virtual environment with the packages that convert_hf_to_gguf.py imports.

    The tree is keyed because the environment is made and tested for it. Not all packages are pinned: the record lists
    the installed ones, and a conversion notes the digest of the environment.
    """

    tree: Node
    requirements: tuple[str, ...]
    python: str
    """Implementation and version: ``cpython-3.11``."""
    os_and_arch: str
    accelerator: str = keyed_unless_default("")
    """``cuda`` for the CUDA build of torch; empty for that for the CPU."""
    kind: ClassVar[str] = "environment"
    resource: ClassVar = "network"
    sharing: ClassVar = "nothing"

    @property
    def source(self) -> dict[str, object]:
        """See ``Step``."""
        return {"kind": "package", "ref": "the Python packages of llama.cpp's own converter"}

    def place(self, key: Key | None, digests: Mapping[str, Digest | None], places: Mapping[str, Place]) -> Place:
        """Return one place for each version of Python: the environment of another tree replaces it (more than 1 GB)."""
        del key, digests, places
        name = f"trainer-{self.accelerator}" if self.accelerator else "converter"
        return Place(f"{SOURCES}/{name}-{self.python}-{self.os_and_arch}")

    def estimate(self) -> ResourceEstimate:
        """Return the measured sizes."""
        fetched, installed = (
            (CUDA_FETCHED_BYTES, CUDA_INSTALLED_BYTES) if self.accelerator else (FETCHED_BYTES, INSTALLED_BYTES)
        )
        return ResourceEstimate(fetch=fetched, disk=fetched + installed)

    def run(self, workspace: Workspace) -> None:
        """Make the environment, install the packages, and run the script once."""
        env = {name: value for name, value in os.environ.items() if name not in _NOT_PASSED}
        workspace.run_program([*python_module("venv"), "--without-pip", workspace.out], env=env)
        python = python_of(workspace.out)
        try:
            self._install(workspace, python, env)
        except ProgramFailed as error:
            raise not_installable_error(error.tail, error.log) from None
        for path in python.parent.iterdir():  # their first lines name the staging directory
            if not path.name.lower().startswith("python"):
                path.unlink()
        try:
            workspace.run_program([python, "-I", "-B", "-c", _COMPILE, workspace.out], env=env)
            run_official_script(workspace, workspace.out, CONVERT, ["--help"])
        except ProgramFailed as error:
            raise broken_environment_error(error.tail, error.log) from None
        workspace.add_facts(packages=_packages(workspace.out))

    def _install(self, workspace: Workspace, python: Path, env: Mapping[str, str]) -> None:
        """Install with the first installer that selects the build of torch. Raises ``ToolError`` or pip's failure."""
        failure: Exception | None = None
        for installer in _installers(python, workspace.input("tree")):
            lines: list[str] = []
            report, is_uv = workspace.scratch / "report.json", installer.program == "uv"
            asking = ["--dry-run"] if is_uv else ["--dry-run", "--report", str(report), *_NO_WHOLE_FILES]
            try:
                workspace.run_program([*installer.words, *asking, *self.requirements], env=env, on_line=lines.append)
            except ProgramFailed as error:
                failure = failure or (None if is_uv else error)  # pip is tried after uv, and has the user's settings
                continue
            found = accelerators(_uv_dry_run(lines) if is_uv else _pip_report(report))
            if bool(found) != bool(self.accelerator):
                failure = accelerator_only_error(found) if found else no_cuda_build_error()
                continue
            workspace.run_program([*installer.words, *self.requirements], env=env)
            workspace.add_facts(installer=installer.program)
            return
        assert failure is not None, "there is always pip"
        raise failure


@lru_cache(maxsize=2)
def converter_environment(tree: Node, accelerator: str = "") -> ConverterEnvironment:
    """Return the step that makes the environment for a tree of llama.cpp, with this version of Python.

    It is the same step for the same tree: all conversions of a graph share it.
    """
    major, minor = sys.version_info[:2]
    python = f"{sys.implementation.name}-{major}.{minor}"
    return ConverterEnvironment(tree, REQUIREMENTS, python, hardware.platform_tag(), accelerator)


def python_of(environment: Path) -> Path:
    """Return the path of the Python of an environment."""
    return environment / PYTHON_OF_ENVIRONMENT


def run_official_script(
    workspace: Workspace,
    environment: Path,
    script: str,
    arguments: Sequence[str],
    *,
    trusted: bool = False,
    pre_tokenizer: str | None = None,
    force: bool = False,
    on_line: Callable[[str], None] | None = None,
) -> None:
    """Run a script of the input ``tree`` in an environment by ``official_script_runner``: offline, with an empty home.

    ``pre_tokenizer`` overrides the script's own detection with ``force``, else it is used if that fails. Raises
    ``ProgramFailed``.
    """
    job = {
        "tree": str(workspace.input("tree")),
        "script": script,
        "arguments": list(arguments),
        "trusted": trusted,
        "pre_tokenizer": pre_tokenizer,
        "force": force,
    }
    file, home = workspace.scratch / "job.json", workspace.scratch / "home"
    file.write_text(json.dumps(job), encoding="utf-8")
    home.mkdir(exist_ok=True)
    env = {name: os.environ[name] for name in PASSED_ENVIRONMENT if name in os.environ}
    env |= {"HOME": str(home), "HF_HOME": str(home), "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    env["PYTHONDONTWRITEBYTECODE"] = "1"  # -B is not inherited, and the tree is an artifact with a digest
    python = python_of(environment)
    if not python.exists():
        raise missing_python_error(python)
    argv: list[str | Path] = [python, "-I", "-B", DRIVER, file]
    workspace.run_program(argv, env=env, cwd=workspace.scratch, on_line=on_line)


def accelerators(packages: Mapping[str, str]) -> list[str]:
    """Return the packages (name to version) that are for CUDA, ROCm or XPU."""
    return sorted(
        f"{name} {version}"
        for name, version in packages.items()
        if re.match(_ACCELERATOR, name) or (name == "torch" and re.search(_ACCELERATED, version))
    )


def _installers(python: Path, tree: Path) -> Iterator[_Installer]:
    """Yield the installers, uv first: with the user's indexes, then also with the index of the tree's requirements."""
    pip = (*python_module("pip"), "--python", str(python), "install", "--no-input", "--disable-pip-version-check")
    installers = [_Installer("pip", (*pip, "--no-compile", "--progress-bar", "off", "--only-binary", ":all:"))]
    if uv := find_program("uv"):
        words = (str(uv), "pip", "install", "--python", str(python))
        installers.insert(0, _Installer("uv", (*words, "--link-mode", "copy", "--no-build", "--no-progress")))
    yield from installers
    requirements = tree / "requirements" / "requirements-convert_hf_to_gguf.txt"
    index = re.search(_TREE_INDEX, requirements.read_text(encoding="utf-8")) if requirements.is_file() else None
    if index is not None and _has_torch(index[1]):
        for installer in installers:
            yield installer.replace(words=(*installer.words, "--extra-index-url", index[1]))


def _has_torch(index: str) -> bool:
    """Return whether an index has torch. pip would retry an unreachable index for every package, for ten minutes."""
    from llama_runner.system.processes import try_output  # noqa: PLC0415 - not on the warm path

    ask = (*python_module("pip"), "index", "versions", "torch", "--disable-pip-version-check", "--retries", "2")
    said = try_output((*ask, "--index-url", index), timeout=120)
    return said is not None and _GAVE_UP not in said  # torch may come from another index of the user's


def _uv_dry_run(lines: Iterable[str]) -> dict[str, str]:
    """Return the packages in the output of uv's dry run, name to version."""
    return {match[1]: match[2] for line in lines if (match := re.match(_UV_LINE, line))}


def _pip_report(report: Path) -> dict[str, str]:
    """Return the packages in pip's installation report, name to version."""
    found = json.loads(report.read_text(encoding="utf-8"))
    return {item["metadata"]["name"]: item["metadata"]["version"] for item in found["install"]}


def _packages(environment: Path) -> dict[str, str]:
    """Return the installed packages of an environment, name to version."""
    from importlib.metadata import distributions  # noqa: PLC0415 - not on the warm path

    folders = [str(path) for path in environment.glob("**/site-packages")]
    return dict(sorted((found.metadata["Name"], found.version) for found in distributions(path=folders)))
