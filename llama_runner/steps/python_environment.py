"""Make the Python environment that llama.cpp's own converter runs in: torch, transformers, and nothing of the user's.

It is a virtual environment of its own in the store, installed by uv where there is one and by pip, which know the
user's index, proxy and certificates. The build of torch for CUDA takes several gigabytes and converts no faster, so
each way to install is asked first what it would install, and the first that would give the build for the CPU is taken.
"""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from llama_runner.core.errors import ToolError
from llama_runner.core.step import Node, Place, ResourceEstimate, Step
from llama_runner.core.value import Value
from llama_runner.engine.errors import ProgramFailed
from llama_runner.llama_cpp.toolchain import PASSED_ENVIRONMENT
from llama_runner.store.layout import SOURCES
from llama_runner.system import hardware
from llama_runner.system.processes import python_module
from llama_runner.system.programs import find_program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from llama_runner.core.digest import Digest, Key
    from llama_runner.core.workspace import Workspace

REQUIREMENTS = (
    "torch==2.13.0",
    "transformers==4.57.6",
    "sentencepiece>=0.2,<0.3",
    "protobuf>=4.21,<5",
    "safetensors",
    "numpy",
    "pyyaml",
    "tqdm",
    "requests",
)
"""What the tree's own requirements name, with a torch and a numpy that also have wheels for the newest Python.

gguf is missing on purpose: it must come from the same tree as the script.
"""
CONVERT = "convert_hf_to_gguf.py"
DRIVER = Path(__file__).parents[1] / "convert" / "official_driver.py"
FETCHED_BYTES = 240_000_000
INSTALLED_BYTES = 1_100_000_000
"""As measured: Linux, x86-64, Python 3.11."""

_ACCELERATOR = r"(?i)(nvidia-|triton|pytorch-triton|cuda-|rocm)"
_ACCELERATED = r"\+(cu|rocm|xpu)"
_UV_LINE = r" \+ ([\w.-]+)==(\S+)"
_GAVE_UP = "Retry(total=0"
"""What pip says before its last attempt."""

_TREE_INDEX = r"(?m)^--extra-index-url[= ](\S+)"
_COMPILE = """
import sys, compileall, py_compile
how = py_compile.PycInvalidationMode.UNCHECKED_HASH
compileall.compile_dir(sys.argv[1], quiet=2, workers=0, invalidation_mode=how)
"""
"""Compiles what will be imported, once, so that nothing is written later; some files are for other Pythons and stay."""
_NO_WHOLE_FILES = ("--use-feature", "fast-deps")
"""Where an index has no metadata beside a file, pip would fetch the file to ask what it needs: gigabytes, for CUDA."""
_NOT_PASSED = ("PYTHONPATH", "PYTHONHOME", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_USER", "UV_TARGET")
"""Variables that would install somewhere else, or let packages of the user's own be seen."""


def only_for_accelerators_error(packages: Iterable[str]) -> ToolError:
    """Whoever was asked would install a torch for CUDA: several gigabytes that convert nothing faster."""
    packages = tuple(packages)
    return ToolError(
        f"no build of torch for the CPU can be had; what would be installed: {', '.join(packages[:4])}",
        hint="nothing was installed; let pip know an index with CPU builds of torch (PIP_EXTRA_INDEX_URL)",
    )


def not_installable_error(tail: list[str], log: str) -> ToolError:
    """The packages cannot be had."""
    lines = "".join(f"\n  {line}" for line in tail[-4:])
    return ToolError(
        f"the Python environment of llama.cpp's own converter cannot be made{lines}\nfull log: {log}",
        hint="check the network and pip's index, proxy and certificate settings (pip config list)",
    )


def unusable_error(tail: list[str], log: str) -> ToolError:
    """The packages are there, and the script does not start with them."""
    lines = "".join(f"\n  {line}" for line in tail[-4:])
    return ToolError(
        f"llama.cpp's own converter does not start in its Python environment{lines}\nfull log: {log}",
        hint="use another Python: the package index may have no packages that fit this one",
    )


def python_gone_error(python: Path) -> ToolError:
    """The Python that the environment was made from is no longer where it was."""
    return ToolError(
        f"the Python of llama.cpp's own converter is gone: {python.readlink() if python.is_symlink() else python}",
        hint="make the environment again: --force-step environment",
    )


class _Way(Value):
    """A program that installs packages; ``words`` end before the requirements."""

    program: str
    words: tuple[str, ...]


class ConverterEnvironment(Step):
    """A directory with a Python and what convert_hf_to_gguf.py imports.

    The tree is keyed because the environment is made for it, and tried with it. Its packages are not all pinned:
    what was installed stands in the record, and a conversion notes the digest.
    """

    tree: Node
    requirements: tuple[str, ...]
    python: str
    """Implementation and version, as ``cpython-3.11``."""
    os_and_arch: str
    kind: ClassVar[str] = "environment"
    resource: ClassVar = "network"

    @property
    def source(self) -> dict[str, object]:
        """Where it comes from."""
        return {"kind": "package", "ref": "the Python packages of llama.cpp's own converter"}

    def place(self, key: Key | None, digests: Mapping[str, Digest | None], places: Mapping[str, Place]) -> Place:
        """One a Python: another tree's takes the place of the last, since each has more than a gigabyte."""
        del key, digests, places
        return Place(f"{SOURCES}/converter-{self.python}-{self.os_and_arch}")

    def estimate(self) -> ResourceEstimate:
        """As measured."""
        return ResourceEstimate(fetch=FETCHED_BYTES, disk=FETCHED_BYTES + INSTALLED_BYTES)

    def run(self, workspace: Workspace) -> None:
        """Make the environment, install, and start the script once."""
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
            workspace.run_program([python, "-I", "-c", _COMPILE, workspace.out], env=env)
            call_script(workspace, workspace.out, CONVERT, ["--help"])
        except ProgramFailed as error:
            raise unusable_error(error.tail, error.log) from None
        workspace.add_facts(packages=_packages(workspace.out))

    def _install(self, workspace: Workspace, python: Path, env: Mapping[str, str]) -> None:
        """Install in the first way that gives a torch for the CPU. Raises for what else there is, or pip's failure."""
        failure: Exception | None = None
        for way in _ways(python, workspace.input("tree")):
            lines: list[str] = []
            report, is_uv = workspace.scratch / "report.json", way.program == "uv"
            asking = ["--dry-run"] if is_uv else ["--dry-run", "--report", str(report), *_NO_WHOLE_FILES]
            try:
                workspace.run_program([*way.words, *asking, *self.requirements], env=env, on_line=lines.append)
            except ProgramFailed as error:
                failure = failure or (None if is_uv else error)  # pip comes after it, and knows the user's settings
                continue
            if unwanted := accelerators(_would_install(lines) if is_uv else _reported(report)):
                failure = only_for_accelerators_error(unwanted)
                continue
            workspace.run_program([*way.words, *self.requirements], env=env)
            workspace.add_facts(installer=way.program)
            return
        assert failure is not None, "there is always pip"
        raise failure


def converter_environment(tree: Node) -> ConverterEnvironment:
    """Return the environment for a tree of llama.cpp, for this Python on this machine."""
    major, minor = sys.version_info[:2]
    python = f"{sys.implementation.name}-{major}.{minor}"
    return ConverterEnvironment(tree, REQUIREMENTS, python, hardware.platform_tag())


def python_of(environment: Path) -> Path:
    """Return the Python of an environment."""
    return environment / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def call_script(
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
    """Run a script of the input ``tree`` in an environment, by ``official_driver``: offline, with a home of its own.

    ``pre_tokenizer`` is how the tokenizer splits text: with ``force`` whatever the script thinks, else where it does
    not know. Raises ``ProgramFailed``.
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
    python = python_of(environment)
    if not python.exists():
        raise python_gone_error(python)
    argv: list[str | Path] = [python, "-I", "-B", DRIVER, file]
    workspace.run_program(argv, env=env, cwd=workspace.scratch, on_line=on_line)


def accelerators(packages: Mapping[str, str]) -> list[str]:
    """Return those of the packages (name to version) that are for CUDA and the like."""
    return sorted(
        f"{name} {version}"
        for name, version in packages.items()
        if re.match(_ACCELERATOR, name) or (name == "torch" and re.search(_ACCELERATED, version))
    )


def _ways(python: Path, tree: Path) -> Iterator[_Way]:
    """Yield the ways to install, the best first: as the user has configured it, then also from the tree's own index."""
    pip = (*python_module("pip"), "--python", str(python), "install", "--no-input", "--disable-pip-version-check")
    ways = [_Way("pip", (*pip, "--no-compile", "--progress-bar", "off", "--only-binary", ":all:"))]
    if uv := find_program("uv"):
        words = (str(uv), "pip", "install", "--python", str(python))
        ways.insert(0, _Way("uv", (*words, "--link-mode", "copy", "--no-build", "--no-progress")))
    yield from ways
    requirements = tree / "requirements" / "requirements-convert_hf_to_gguf.txt"
    index = re.search(_TREE_INDEX, requirements.read_text(encoding="utf-8")) if requirements.is_file() else None
    if index is not None and _has_torch(index[1]):
        for way in ways:
            yield way.replace(words=(*way.words, "--extra-index-url", index[1]))


def _has_torch(index: str) -> bool:
    """Ask an index for torch alone: one that does not answer is retried by pip for every package, for ten minutes."""
    from llama_runner.system.processes import output_of  # noqa: PLC0415 - not on the warm path

    ask = (*python_module("pip"), "index", "versions", "torch", "--disable-pip-version-check", "--retries", "2")
    said = output_of((*ask, "--index-url", index), timeout=120)
    return said is not None and _GAVE_UP not in said  # what the user has configured beside it may have one too


def _would_install(lines: Iterable[str]) -> dict[str, str]:
    """Return what uv says that it would install."""
    return {match[1]: match[2] for line in lines if (match := re.match(_UV_LINE, line))}


def _reported(report: Path) -> dict[str, str]:
    """Return what pip says that it would install."""
    found = json.loads(report.read_text(encoding="utf-8"))
    return {item["metadata"]["name"]: item["metadata"]["version"] for item in found["install"]}


def _packages(environment: Path) -> dict[str, str]:
    """Return the packages of an environment with their versions."""
    from importlib.metadata import distributions  # noqa: PLC0415 - not on the warm path

    folders = [str(path) for path in environment.glob("**/site-packages")]
    return dict(sorted((found.metadata["Name"], found.version) for found in distributions(path=folders)))
