"""A graph is a pure function of options and facts: building it reads, starts and asks nothing."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from llama_runner.demo import MODEL_DIRECTORY
from tests.conftest import REPOSITORY
from tests.sources.gguf_files import write

BUILD = ["fetch", "unpack", "compile"]


def kinds(root: Path, **keywords: Any) -> list[str]:
    """Return the steps of a graph that is built in a process in which every look at the machine is an error."""
    command = [sys.executable, "-m", "tests.request.build_alone", str(root), json.dumps(keywords)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr
    found: list[str] = json.loads(done.stdout.splitlines()[-1])
    return found


def text(path: Path) -> str:
    path.write_text("some words")
    return str(path)


def test_12_02_the_graph_of_the_demo_model_is_built_without_looking(tmp_path: Path) -> None:
    assert kinds(tmp_path, demo=True, binaries="build") == ["convert", *BUILD, "quantize"]


def test_12_02_the_graph_of_a_directory_is_built_without_looking(tmp_path: Path) -> None:
    model = shutil.copytree(MODEL_DIRECTORY, tmp_path / "model")
    asked = {"quantization": "q4_k_m,f16", "calibration": text(tmp_path / "words"), "quality": text(tmp_path / "more")}
    assert sorted(set(kinds(tmp_path, model=str(model), binaries="build", **asked))) == sorted(
        ["convert", *BUILD, "imatrix", "quality", "quantize"]
    )


def test_12_02_the_graph_of_a_gguf_file_is_built_without_looking(tmp_path: Path) -> None:
    model = write(tmp_path / "model.gguf")
    assert kinds(tmp_path, model=str(model), binaries="build") == BUILD
    again = kinds(tmp_path, model=str(model), binaries="build", quantization="q8_0", allow_requantize=True)
    assert again == [*BUILD, "quantize"]


def test_12_02_the_graph_of_a_patched_source_tree_and_of_an_archive_is_built_without_looking(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "CMakeLists.txt").touch()
    of_tree = {"source": str(tmp_path / "tree"), "patches": [text(tmp_path / "a.patch")]}
    assert kinds(tmp_path, demo=True, **of_tree) == ["convert", "patch", "compile", "quantize"]
    archive = {"binaries": "https://example.org/llama-b7-bin.zip", "sha256": "0" * 64}
    assert kinds(tmp_path, demo=True, **archive)[1:3] == ["fetch_url", "unpack_programs"]


def test_12_02_the_graph_of_a_model_on_the_hub_is_built_from_recorded_facts_alone(tmp_path: Path) -> None:
    assert kinds(tmp_path, recorded=True, quantization="q8_0") == ["download", "convert", *BUILD, "quantize"]
