"""What llama.cpp can compute with: what CMake is told for it, what has to be there to build it, which is best here.

A backend's name is one of `BACKENDS`; ``+rpc`` after any of them also builds what lets several machines compute
together.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from llama_runner.core.errors import ToolError, UsageError
from llama_runner.core.value import Value, field
from llama_runner.system.programs import find_program

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

RPC = "+rpc"
RPC_TARGET = "ggml-rpc-server"


class Backend(Value):
    """One way to compute.

    ``options`` are CMake's, on top of those of every build. ``programs`` have to be found to build it, each with
    CMake's variable for it; ``headers`` too, each with a word that it has to have and older ones lack. ``install`` is
    the command that brings them to Debian or Ubuntu. ``device`` is how `llama-server --list-devices` begins the names
    of its devices; None: it lists none. ``architectures`` is CMake's variable for the kinds of GPU to compile for.
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
    """llama.cpp has none of that name, or not on this system."""
    system = platform.partition("-")[0]
    here = [each for each, backend in BACKENDS.items() if system in backend.systems]
    return UsageError(
        f"there is no {name} on {platform}", hint=f"there are {', '.join(here)}, each also with {RPC} after it"
    )


def cannot_build_error(name: str, missing: Iterable[str], install: str) -> ToolError:
    """What a backend needs to be built is not installed."""
    missing = tuple(missing)
    what = " and ".join(missing)
    return ToolError(f"building for {name} needs {what}, not found here", hint=install or None)


def parts(name: str) -> tuple[str, bool]:
    """Return a backend's name without ``+rpc``, and whether it had it."""
    return name.removesuffix(RPC), name.endswith(RPC)


def known(name: str, platform: str) -> str:
    """Return the name if there is such a backend on that platform (``linux-x86_64``); ``UsageError`` if not."""
    bare, _ = parts(name)
    if bare not in BACKENDS or platform.partition("-")[0] not in BACKENDS[bare].systems:
        raise no_such_backend_error(name, platform)
    return name


def missing(
    name: str, environment: Mapping[str, str], root: Path = Path("/usr"), *, include: Iterable[Path] = ()
) -> list[str]:
    """Return the programs and headers that building a backend needs and that are not here.

    Headers are looked for in ``include``, then where compilers look.
    """
    backend = BACKENDS[parts(name)[0]]
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


class Choice(Value):
    """The backend for this machine, and why it is that one."""

    name: str
    why: str


def best(platform: str, environment: Mapping[str, str], *, system: Path = Path("/")) -> Choice:
    """Choose the best backend that both the machine and what is installed on it support.

    A few files are looked at, nothing is started: this is asked at every start.
    """
    if platform == "macos-arm64":
        return Choice("metal", "Apple silicon")
    found = []
    for name, device, sign in _SIGNS:
        if not any((system / place).exists() for place in sign):
            continue
        lacking = missing(name, environment, system / "usr")
        if not lacking:
            return Choice(name, device)
        found.append(f"{device}, but {' and '.join(lacking)} to build for it with {name} is not")
    return Choice("cpu", f"there is {'; '.join(found)}" if found else "no GPU was found")


def seen(platform: str, *, system: Path = Path("/")) -> list[str]:
    """Return the backends that this machine has devices for, best first, and last the one that needs none."""
    if platform == "macos-arm64":
        return ["metal"]
    return [name for name, _, sign in _SIGNS if any((system / place).exists() for place in sign)] + ["cpu"]


_SIGNS = (
    ("cuda", "an NVIDIA GPU", ("proc/driver/nvidia/version", "dev/dxg")),
    ("hip", "an AMD GPU", ("dev/kfd",)),
    ("vulkan", "a GPU", ("dev/dri/renderD128",)),
)
