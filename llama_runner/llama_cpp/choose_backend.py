"""Chooses the backend that is built where none is named: by the GPU of this machine and the installed packages."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from llama_runner.core.immutable_values import Value
from llama_runner.llama_cpp.backend_build_options import missing_requirements

if TYPE_CHECKING:
    from collections.abc import Mapping

_SIGNS = (
    ("cuda", "an NVIDIA GPU", ("proc/driver/nvidia/version", "dev/dxg")),
    ("hip", "an AMD GPU", ("dev/kfd",)),
    ("vulkan", "a GPU", ("dev/dri/renderD128",)),
)
"""Backends with the files by which their devices are found, best first."""


class BackendChoice(Value):
    """Backend for this machine, with the reason of the choice."""

    name: str
    why: str


def choose_backend(platform: str, environment: Mapping[str, str], *, system: Path = Path("/")) -> BackendChoice:
    """Choose the best backend that the machine and its installed packages support.

    Only a few files are checked and no process is started, as this runs on every start.
    """
    if platform == "macos-arm64":
        return BackendChoice("metal", "Apple silicon")
    found = []
    for name, device, sign in _SIGNS:
        if not any((system / place).exists() for place in sign):
            continue
        lacking = missing_requirements(name, environment, system / "usr")
        if not lacking:
            return BackendChoice(name, device)
        found.append(f"{device}, but {' and '.join(lacking)} to build for it with {name} is not")
    return BackendChoice("cpu", f"there is {'; '.join(found)}" if found else "no GPU was found")


def available_backends(platform: str, *, system: Path = Path("/")) -> list[str]:
    """Return the backends that this machine has devices for, best first, ``cpu`` last."""
    if platform == "macos-arm64":
        return ["metal"]
    return [name for name, _, sign in _SIGNS if any((system / place).exists() for place in sign)] + ["cpu"]
