"""Backends of llama.cpp: CMake options and build requirements.

A backend's name is one of `BACKENDS`; ``+rpc`` after a name also builds the RPC backend, with which several machines
compute together.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from llama_runner.core.errors import ToolError, UsageError
from llama_runner.core.immutable_values import Value, field
from llama_runner.system.find_programs import find_program

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

RPC = "+rpc"
RPC_TARGET = "ggml-rpc-server"


class Backend(Value):
    """Backend of llama.cpp.

    ``options`` are CMake's, on top of those of every build. ``programs`` are required for a build, each with CMake's
    variable for it; so are ``headers``, each with a word that old versions lack. ``install`` is the command that
    installs them on Debian or Ubuntu. ``device`` is the prefix of its devices in ``llama-server --list-devices``, None
    if it lists none. ``architectures`` is CMake's variable for the GPU architectures.
    """

    options: Mapping[str, str] = field(default_factory=dict)
    systems: tuple[str, ...] = ("linux", "windows", "macos")
    programs: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    install: str = ""
    device: str | None = None
    architectures: str = ""


BACKENDS: Mapping[str, Backend] = {
    "cpu": Backend(),
    "cpu-portable": Backend(
        {"BUILD_SHARED_LIBS": "ON", "GGML_NATIVE": "OFF", "GGML_BACKEND_DL": "ON", "GGML_CPU_ALL_VARIANTS": "ON"}
    ),
    "cuda": Backend(
        {"GGML_CUDA": "ON", "GGML_CUDA_NCCL": "OFF"},
        systems=("linux", "windows"),
        programs={"nvcc": "CMAKE_CUDA_COMPILER"},
        headers={"cublas_v2.h": ""},
        install="sudo apt-get install -y nvidia-cuda-toolkit",
        device="CUDA",
        architectures="CMAKE_CUDA_ARCHITECTURES",
    ),
    "hip": Backend(
        {"GGML_HIP": "ON"},
        systems=("linux", "windows"),
        programs={"amdclang++": "CMAKE_HIP_COMPILER"},
        install="sudo amdgpu-install --usecase=rocm, and put /opt/rocm/bin into PATH",
        device="ROCm",
        architectures="GPU_TARGETS",
    ),
    "metal": Backend({"GGML_METAL": "ON"}, systems=("macos",), device="MTL"),
    "openblas": Backend(
        {"GGML_BLAS": "ON", "GGML_BLAS_VENDOR": "OpenBLAS"},
        headers={"cblas.h": ""},
        install="sudo apt-get install -y libopenblas-dev pkg-config",
        device="BLAS",
    ),
    "vulkan": Backend(
        {"GGML_VULKAN": "ON"},
        systems=("linux", "windows"),
        programs={"glslc": "Vulkan_GLSLC_EXECUTABLE"},
        headers={
            "vulkan/vulkan.hpp": "",
            "vulkan/vulkan_core.h": "VK_EXT_layer_settings",  # since 1.3.272; Debian 12 has 1.3.239
            "spirv/unified1/spirv.hpp": "",
        },
        install="sudo apt-get install -y libvulkan-dev glslc spirv-headers; where the headers are too old, newer ones "
        "with --cmake-arg Vulkan_INCLUDE_DIR=DIR",
        device="Vulkan",
    ),
}


def no_such_backend_error(name: str, platform: str) -> UsageError:
    """Return the error for a backend that does not exist, or not on this system."""
    system = platform.partition("-")[0]
    here = [each for each, backend in BACKENDS.items() if system in backend.systems]
    return UsageError(
        f"there is no {name} on {platform}", hint=f"there are {', '.join(here)}, each also with {RPC} after it"
    )


def cannot_build_error(name: str, missing: Iterable[str], install: str) -> ToolError:
    """Return the error for missing build requirements of a backend."""
    missing = tuple(missing)
    what = " and ".join(missing)
    return ToolError(f"building for {name} needs {what}, not found here", hint=install or None)


def split_rpc(name: str) -> tuple[str, bool]:
    """Return a backend's name without ``+rpc``, and whether it had it."""
    return name.removesuffix(RPC), name.endswith(RPC)


def check_backend(name: str, platform: str) -> str:
    """Return the name if the platform (``linux-x86_64``) has such a backend; raises ``UsageError``."""
    bare, _ = split_rpc(name)
    if bare not in BACKENDS or platform.partition("-")[0] not in BACKENDS[bare].systems:
        raise no_such_backend_error(name, platform)
    return name


def missing_requirements(
    name: str, environment: Mapping[str, str], root: Path = Path("/usr"), *, include: Iterable[Path] = ()
) -> list[str]:
    """Return the programs and headers that a build of the backend needs and that are not installed.

    Headers are searched in ``include``, then in the compilers' default directories.
    """
    backend = BACKENDS[split_rpc(name)[0]]
    path = environment.get("PATH", os.defpath)
    absent = [program for program in backend.programs if find_program(program, path) is None]
    places = [*include, *(Path(place) for place in environment.get("CPATH", "").split(os.pathsep) if place)]
    sdks = [Path(sdk) for name in ("VULKAN_SDK", "CUDA_PATH", "CUDA_HOME") if (sdk := environment.get(name))]
    places += [sdk / "include" for sdk in (*sdks, root, root / "local", root / "local" / "cuda")]
    places += (root / "include").glob("*-linux-gnu")
    for header, word in backend.headers.items():
        found = next((place / header for place in places if (place / header).exists()), None)
        if found is None:
            absent.append(header)
        elif word and word not in found.read_text(encoding="utf-8", errors="replace"):
            absent.append(f"a newer {header} (with {word})")
    return absent
