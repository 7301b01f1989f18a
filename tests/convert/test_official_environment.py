"""The environment of llama.cpp's own converter is never made with a torch for CUDA, whatever an index offers."""

from __future__ import annotations

import os
import socket
import subprocess
import zipfile
from typing import TYPE_CHECKING

import pytest

from llama_runner.core.errors import ToolError
from llama_runner.core.plan import Snapshot
from llama_runner.core.step import Place, Step
from llama_runner.engine.executor import Executor
from llama_runner.engine.observer import Observer
from llama_runner.steps.official_converter_environment import ConverterEnvironment, accelerators, python_of
from llama_runner.store.artifacts import Store
from llama_runner.store.digest_cache import hash_tree
from llama_runner.store.local_sources import LocalSources

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from llama_runner.core.digest import Digest, Key
    from llama_runner.core.step_interfaces import Workspace

SCRIPT = "import torch\nprint('usage: convert_hf_to_gguf.py', torch.__version__)\n"


class Tree(Step):
    """A tree whose script needs no more than torch, and whose requirements may name an index."""

    index: str = ""
    kind = "tree"

    def place(self, key: Key | None, digests: Mapping[str, Digest | None], places: Mapping[str, Place]) -> Place:
        del key, digests, places
        return Place("vendor/tree")

    def run(self, workspace: Workspace) -> None:
        (workspace.out / "convert_hf_to_gguf.py").write_text(SCRIPT)
        requirements = workspace.out / "requirements" / "requirements-convert_hf_to_gguf.txt"
        requirements.parent.mkdir()
        requirements.write_text(f"-r other.txt\n{self.index and f'--extra-index-url {self.index}'}\ntorch==2.11.0\n")


def wheel(folder: Path, name: str, version: str, *, needs: str = "", module: str = "") -> None:
    """Write a package that holds one module."""
    folder.mkdir(parents=True, exist_ok=True)
    info = f"{name.replace('-', '_')}-{version}.dist-info"
    files = {
        f"{name.replace('-', '_')}.py": module or f"__version__ = {version!r}\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": "",
    }
    with zipfile.ZipFile(folder / f"{name.replace('-', '_')}-{version}-py3-none-any.whl", "w") as archive:
        for file, text in files.items():
            archive.writestr(file, text)


def page(folder: Path) -> str:
    """Make an index of the wheels in a directory; return its address."""
    for file in list(folder.glob("*.whl")):
        simple = folder / "simple" / file.name.partition("-")[0]
        simple.mkdir(parents=True, exist_ok=True)
        with (simple / "index.html").open("a") as index:
            index.write(f'<a href="{file.as_uri()}">{file.name}</a>\n')
    return (folder / "simple").as_uri()


@pytest.fixture
def only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a directory of wheels, the only place that pip knows: as the user has configured it."""
    for name in [name for name in os.environ if name.startswith(("PIP_", "UV_"))]:
        monkeypatch.delenv(name)
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", (tmp_path / "empty").as_uri())
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setenv("UV_FIND_LINKS", str(wheels))
    return wheels


def make(root: Path, index: str = "", accelerator: str = "") -> tuple[Store, Path]:
    """Make an environment with torch and protobuf; return the store and where it lies."""
    store = Store(root, lambda _event: None)
    step = ConverterEnvironment(Tree(index), ("torch==2.13.0", "protobuf<5"), "cpython-3", "here", accelerator)
    observer = Observer(store, LocalSources(store, remember=True, inspect=lambda _source: None))
    executor = Executor(store, observer, lambda _event: None, lock_timeout=60)
    outcome = executor.execute(observer.plan((step,), Snapshot()))
    return store, store.path(outcome.places[step])


def protobuf(folder: Path) -> None:
    """Write what the driver looks for."""
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / "protobuf-4.25.9-py3-none-any.whl", "w") as archive:
        archive.writestr("google/protobuf/__init__.py", "")
        archive.writestr("transformers/__init__.py", "")
        archive.writestr("imported_by_a.pth", "import at_each_start\n")
        archive.writestr("at_each_start.py", "")
        archive.writestr("transformers/dynamic_module_utils.py", "resolve_trust_remote_code = None\n")
        info = "protobuf-4.25.9.dist-info"
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: protobuf\nVersion: 4.25.9\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")


def test_it_has_what_was_asked_for_and_nothing_of_ours(tmp_path: Path, only: Path) -> None:
    wheel(only, "torch", "2.13.0")
    protobuf(only)
    store, place = make(tmp_path / "root")
    record = store.records(place)["."]
    assert record.facts["packages"] == {"protobuf": "4.25.9", "torch": "2.13.0"}
    look = "import torch, sys, importlib.util as u; print(torch.__version__, u.find_spec('click'), u.find_spec('pip'))"
    done = subprocess.run([python_of(place), "-I", "-c", look], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["2.13.0", "None", "None"]


def test_what_runs_in_a_copy_of_it_changes_no_file(tmp_path: Path, only: Path) -> None:
    wheel(only, "torch", "2.13.0")
    protobuf(only)
    _, place = make(tmp_path / "root")
    before = hash_tree(place)
    for path in place.rglob("*.py"):
        os.utime(path, (1, 1))
    subprocess.run([python_of(place), "-I", "-c", "import torch, transformers"], check=True)
    assert hash_tree(place) == before


def test_a_torch_for_cuda_is_not_installed(tmp_path: Path, only: Path) -> None:
    wheel(only, "torch", "2.13.0", needs="Requires-Dist: nvidia-cublas\n")
    wheel(only, "nvidia-cublas", "13.0")
    protobuf(only)
    with pytest.raises(ToolError, match=r"nvidia-cublas 13\.0"):
        make(tmp_path / "root")
    assert not (tmp_path / "root" / "vendor" / "converter-cpython-3-here").exists()


def test_the_environment_for_a_gpu_has_a_torch_for_cuda_and_no_other(tmp_path: Path, only: Path) -> None:
    wheel(only, "torch", "2.13.0")
    protobuf(only)
    with pytest.raises(ToolError, match="no CUDA build of torch"):
        make(tmp_path / "root", accelerator="cuda")
    wheel(only, "torch", "2.13.0", needs="Requires-Dist: nvidia-cublas\n")
    wheel(only, "nvidia-cublas", "13.0")
    _, place = make(tmp_path / "root", accelerator="cuda")
    assert place.name == "trainer-cuda-cpython-3-here"
    look = "import importlib.util as u; print(u.find_spec('nvidia_cublas') is not None)"
    done = subprocess.run([python_of(place), "-I", "-c", look], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True"]


def test_an_index_that_does_not_answer_is_asked_for_one_package_and_no_more(tmp_path: Path, only: Path) -> None:
    wheel(only, "torch", "2.13.0", needs="Requires-Dist: nvidia-cublas\n")
    wheel(only, "nvidia-cublas", "13.0")
    protobuf(only)
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        closed = f"http://127.0.0.1:{nobody.getsockname()[1]}/simple"
    with pytest.raises(ToolError, match="no CPU build of torch is available; it would install"):
        make(tmp_path / "root", closed)
    [log] = (tmp_path / "root" / "logs").glob("environment-*")
    assert "Retrying" not in log.read_text()


def test_the_index_that_the_tree_names_is_asked_when_there_is_only_one_for_cuda(tmp_path: Path, only: Path) -> None:
    wheel(only, "torch", "2.13.0", needs="Requires-Dist: nvidia-cublas\n")
    wheel(only, "nvidia-cublas", "13.0")
    protobuf(only)
    wheel(tmp_path / "other", "torch", "2.13.0+cpu")
    store, place = make(tmp_path / "root", page(tmp_path / "other"))
    assert store.records(place)["."].facts["packages"]["torch"] == "2.13.0+cpu"


def test_what_cannot_be_had_is_reported_with_what_pip_says(tmp_path: Path, only: Path) -> None:
    protobuf(only)
    with pytest.raises(ToolError, match="No matching distribution found for torch"):
        make(tmp_path / "root")


@pytest.mark.parametrize("name", ["nvidia-cublas-cu12", "triton", "nvidia-nccl-cu12", "cuda-toolkit"])
def test_packages_for_accelerators_are_known(name: str) -> None:
    assert accelerators({"torch": "2.13.0", name: "1", "numpy": "2"}) == [f"{name} 1"]


@pytest.mark.parametrize(("version", "expected"), [("2.13.0+cu126", 1), ("2.13.0+rocm6.4", 1), ("2.13.0+cpu", 0)])
def test_the_build_of_torch_is_recognised_by_its_version(version: str, expected: int) -> None:
    assert len(accelerators({"torch": version, "sympy": "1"})) == expected
