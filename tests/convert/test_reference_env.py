"""The reference environment is never made with a torch for CUDA, and making it twice does nothing."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from types import ModuleType

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "reference_env.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("reference_env", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def report(*names: str) -> dict[str, Any]:
    return {"install": [{"metadata": {"name": name}, "download_info": {"url": ""}} for name in names]}


@pytest.mark.parametrize("name", ["nvidia-cublas-cu12", "triton", "nvidia-nccl-cu12", "cuda-toolkit"])
def test_packages_for_cuda_are_refused(script: ModuleType, name: str) -> None:
    assert name in script.objection(report("torch", name, "numpy"), 100_000_000)


def test_a_large_torch_is_refused(script: ModuleType) -> None:
    assert "900 MB" in script.objection(report("torch"), 900_000_000)


def test_the_cpu_build_is_taken(script: ModuleType) -> None:
    assert script.objection(report("torch", "numpy", "sympy"), 190_000_000) is None
    assert script.objection(report("torch", "numpy"), None) is None


def test_a_complete_environment_is_only_named(script: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "convert_hf_to_gguf.py").write_text("")
    folder = tmp_path / "cache" / "reference-env"
    folder.mkdir(parents=True)
    (folder / script.MARKER).write_text("\n".join(script.REQUIREMENTS))
    argv: list[str | Path] = [sys.executable, SCRIPT, tmp_path / "tree", tmp_path / "cache"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert done.stdout.strip().startswith(str(folder))
    assert sorted(path.name for path in folder.iterdir()) == [script.MARKER]


def test_another_directory_is_not_taken_for_the_tree(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, SCRIPT, tmp_path, tmp_path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "not a tree of llama.cpp" in done.stderr
