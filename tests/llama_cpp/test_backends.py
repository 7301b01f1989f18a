"""Which backend is built, and what it needs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from llama_runner.core.errors import ToolError, UsageError
from llama_runner.llama_cpp.backend_build_options import (
    BACKENDS,
    check_backend,
    missing_requirements,
)
from llama_runner.llama_cpp.choose_backend import BackendChoice, choose_backend
from llama_runner.llama_cpp.gpu_detection import Gpus, NoGpu, find_gpus, try_nvcc
from llama_runner.system.find_programs import find_program

if TYPE_CHECKING:
    from pathlib import Path


def _program(directory: Path, name: str, text: str = "") -> None:
    directory.mkdir(exist_ok=True)
    (directory / name).write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    (directory / name).chmod(0o755)


def _file(path: Path, text: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def test_without_a_gpu_the_processor_computes(tmp_path: Path) -> None:
    assert choose_backend("linux-x86_64", {"PATH": str(tmp_path)}, system=tmp_path) == BackendChoice(
        "cpu", "no GPU was found"
    )


def test_a_gpu_that_nothing_here_can_compile_for_is_reported(tmp_path: Path) -> None:
    _file(tmp_path / "proc/driver/nvidia/version")
    choice = choose_backend("linux-x86_64", {"PATH": str(tmp_path)}, system=tmp_path)
    assert choice.name == "cpu"
    assert "NVIDIA" in choice.why
    assert "nvcc" in choice.why


def test_the_best_backend_is_one_that_machine_and_tools_support(tmp_path: Path) -> None:
    """NVIDIA's card without NVIDIA's compiler is still a card for Vulkan."""
    _file(tmp_path / "proc/driver/nvidia/version")
    _file(tmp_path / "dev/dri/renderD128")
    _program(tmp_path / "bin", "glslc")
    for header, word in BACKENDS["vulkan"].headers.items():
        _file(tmp_path / "usr/include" / header, word)
    environment = {"PATH": str(tmp_path / "bin")}
    assert choose_backend("linux-x86_64", environment, system=tmp_path).name == "vulkan"
    _program(tmp_path / "bin", "nvcc")
    assert choose_backend("linux-x86_64", environment, system=tmp_path).name == "vulkan", "nvcc alone has no cuBLAS"
    _file(tmp_path / "usr/local/cuda/include/cublas_v2.h")
    assert choose_backend("linux-x86_64", environment, system=tmp_path) == BackendChoice("cuda", "an NVIDIA GPU")


def test_apple_silicon_computes_with_metal(tmp_path: Path) -> None:
    assert choose_backend("macos-arm64", {}, system=tmp_path).name == "metal"
    assert choose_backend("macos-x86_64", {}, system=tmp_path).name == "cpu"


def test_headers_that_are_too_old_are_reported_before_an_hour_of_compiling(tmp_path: Path) -> None:
    _program(tmp_path, "glslc")
    for header in BACKENDS["vulkan"].headers:
        _file(tmp_path / "include" / header, "VK_HEADER_VERSION 239")
    (lacking,) = missing_requirements("vulkan", {"PATH": str(tmp_path)}, tmp_path)
    assert lacking == "a newer vulkan/vulkan_core.h (with VK_EXT_layer_settings)"
    _file(tmp_path / "newer/vulkan/vulkan_core.h", "#define VK_EXT_layer_settings 1")
    assert missing_requirements("vulkan", {"PATH": str(tmp_path)}, tmp_path, include=[tmp_path / "newer"]) == []


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    assert missing_requirements("vulkan+rpc", {"PATH": str(tmp_path)}, tmp_path) == [
        "glslc",
        *BACKENDS["vulkan"].headers,
    ]
    assert missing_requirements("cpu+rpc", {"PATH": str(tmp_path)}, tmp_path) == []


@pytest.mark.parametrize("name", ["cpu", "cpu-portable", "cuda", "hip", "openblas", "vulkan"])
def test_every_backend_of_linux_also_with_other_machines(name: str) -> None:
    assert check_backend(name, "linux-x86_64") == name
    assert check_backend(f"{name}+rpc", "linux-x86_64") == f"{name}+rpc"


@pytest.mark.parametrize("name", ["metal", "sycl", "", "+rpc", "cpu+rpc+rpc"])
def test_a_backend_that_is_not_there_is_an_error_that_names_those_that_are(name: str) -> None:
    with pytest.raises(UsageError, match="there is no") as caught:
        check_backend(name, "linux-x86_64")
    assert caught.value.hint is not None
    assert "vulkan" in caught.value.hint


CARD = "Model: \t\t NVIDIA H200\nGPU UUID: \t GPU-1\n"


def test_nvidia_cards_are_asked_once_for_what_to_compile(tmp_path: Path) -> None:
    _file(tmp_path / "proc/driver/nvidia/gpus/0000:01:00.0/information", CARD)
    asked = tmp_path / "asked"
    _program(tmp_path / "bin", "nvidia-smi", f'echo x >> "{asked}"; echo 9.0; echo 8.6; echo 9.0')
    environment = {"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin"}
    found = find_gpus("cuda", environment, system=tmp_path)
    assert found == Gpus(CARD, "86;90")
    assert find_gpus("cuda+rpc", environment, [found.to_json()], system=tmp_path) == found
    assert asked.read_text(encoding="utf-8") == "x\n"
    _file(tmp_path / "proc/driver/nvidia/gpus/0000:02:00.0/information", CARD)
    assert find_gpus("cuda", environment, [found.to_json()], system=tmp_path) == Gpus(CARD * 2, "86;90")


def test_no_card_to_compile_for_is_reported_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(NoGpu) as caught:
        find_gpus("cuda", {"PATH": str(tmp_path)}, system=tmp_path)
    assert caught.value.hint == "set it with --cmake-arg CMAKE_CUDA_ARCHITECTURES=90"
    assert find_gpus("cuda", {"PATH": str(tmp_path), "CUDAARCHS": "90"}, system=tmp_path) is None


def test_amd_cards_tell_what_to_compile_in_a_file(tmp_path: Path) -> None:
    nodes = tmp_path / "sys/class/kfd/kfd/topology/nodes"
    for number, version in enumerate((0, 90010, 110000)):  # the first is the processor
        _file(nodes / str(number) / "properties", f"cpu_cores_count 0\ngfx_target_version {version}\n")
    found = find_gpus("hip", {}, system=tmp_path)
    assert found is not None
    assert found.architectures == "gfx1100;gfx90a"


def test_what_computes_on_the_processor_needs_no_gpu(tmp_path: Path) -> None:
    assert find_gpus("openblas", {}, system=tmp_path) is None


NVCC, CXX = find_program("nvcc"), find_program("g++")
with_nvcc = pytest.mark.skipif(NVCC is None or CXX is None, reason="there is no nvcc here")


@with_nvcc
def test_pain_17_nvcc_is_checked_before_anything_is_built() -> None:
    assert NVCC is not None
    assert CXX is not None
    try_nvcc(NVCC, CXX, "90;86-real", os.environ)
    with pytest.raises(ToolError, match="compute_20") as caught:
        try_nvcc(NVCC, CXX, "90;20", os.environ)
    assert "CMAKE_CUDA_ARCHITECTURES" in str(caught.value.hint)


@with_nvcc
def test_pain_17_a_compiler_that_is_too_new_for_nvcc_is_named(tmp_path: Path) -> None:
    assert NVCC is not None
    _program(tmp_path / "bin", "g++", f'exec "{CXX}" -U__GNUC__ -D__GNUC__=99 "$@"')
    with pytest.raises(ToolError, match="unsupported GNU version") as caught:
        try_nvcc(NVCC, tmp_path / "bin" / "g++", "90", os.environ)
    assert "older" in str(caught.value.hint)
