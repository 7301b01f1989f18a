"""CUDA, as far as it goes without a card: the real tree is configured, and the real nvcc compiles one object of it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from llama_runner.llama_cpp import cmake
from llama_runner.llama_cpp.backend_build_options import missing_requirements
from llama_runner.llama_cpp.toolchain import find_toolchain, tool_path

LACKING = missing_requirements("cuda", os.environ)
pytestmark = pytest.mark.skipif(bool(LACKING), reason=f"not found here: {', '.join(LACKING)}")


def test_one_object_of_the_cuda_backend_is_compiled(binaries: Path, tmp_path: Path) -> None:
    (tree,) = (binaries / "vendor").glob("llama.cpp-b*/")
    toolchain = find_toolchain(os.environ, programs=("nvcc",))
    compilers = [
        ("CMAKE_C_COMPILER", toolchain.c.path),
        ("CMAKE_CXX_COMPILER", toolchain.cxx.path),
        ("CMAKE_CUDA_COMPILER", toolchain.others["nvcc"].path),
        ("CMAKE_CUDA_HOST_COMPILER", toolchain.cxx.path),
    ]
    options = cmake.definitions(backend="cuda", build=10605, commit="unknown", gpus="90")
    configure = cmake.configure_command(
        tool_path("cmake"), tool_path("ninja"), tree, tmp_path / "build", compilers, options
    )
    said = subprocess.run(configure, check=True, capture_output=True, text=True)
    assert cmake.unused_options((said.stdout + said.stderr).splitlines()) == []
    target = "ggml/src/ggml-cuda/CMakeFiles/ggml-cuda.dir/arange.cu.o"
    subprocess.run([tool_path("ninja"), "-C", tmp_path / "build", target], check=True, capture_output=True)
    assert (tmp_path / "build" / target).stat().st_size
