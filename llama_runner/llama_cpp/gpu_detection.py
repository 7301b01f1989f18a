"""Detects GPUs (CUDA, ROCm) and the architectures to compile for."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_runner.core.errors import ToolError
from llama_runner.core.immutable_values import Value
from llama_runner.llama_cpp.backend_build_options import BACKENDS, split_rpc

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_SYSTEM = Path("/")
_TIMEOUT_S = 120.0


class Gpus(Value):
    """Detected GPUs and the architectures to compile for: ``90`` or ``86;90`` for CUDA, ``gfx1100`` for HIP."""

    seen: str
    architectures: str

    def to_json(self) -> dict[str, Any]:
        """Return the form that a record notes."""
        return {"seen": self.seen, "architectures": self.architectures}


def nvcc_refuses_error(nvcc: str, cxx: str, said: str) -> ToolError:
    """Return the error for an nvcc that rejects the C++ compiler or the GPU architecture."""
    if "GNU version" in said or "clang version" in said or "ost compiler" in said:
        hint = f"this nvcc does not support {cxx}; set CXX and CC to an older one, or install a newer CUDA"
    elif "architecture" in said:
        hint = "set another with --cmake-arg CMAKE_CUDA_ARCHITECTURES=…, or install a CUDA that supports the card"
    else:
        hint = "the message is nvcc's own"
    return ToolError(f"{nvcc} cannot compile with {cxx}: {said}", hint=hint)


class NoGpu(ToolError):
    """The build needs a GPU architecture, and there is no GPU to detect it from."""

    def __init__(self, backend: str) -> None:
        self.backend = backend
        variable = BACKENDS[backend].architectures
        example = {"cuda": "90", "hip": "gfx1100"}[backend]
        super().__init__(
            f"no GPU found to detect the architecture for {backend} from",
            hint=f"set it with --cmake-arg {variable}={example}",
        )


def find_gpus(
    backend: str, environment: Mapping[str, str], noted: Iterable[Mapping[str, Any]] = (), *, system: Path = _SYSTEM
) -> Gpus | None:
    """Return the GPUs of this machine; None if the backend does not need them. Raises ``NoGpu``.

    Querying an NVIDIA driver takes a process; ``noted`` are earlier answers from records (``Gpus.to_json``), valid
    while the driver lists the same cards.
    """
    bare, _ = split_rpc(backend)
    if bare == "hip":
        return _hip(system)
    if bare != "cuda" or environment.get("CUDAARCHS"):
        return None
    cards = sorted((system / "proc/driver/nvidia/gpus").glob("*/information"))
    seen = "".join(card.read_text(encoding="utf-8", errors="replace") for card in cards)
    for answer in noted:
        if seen and answer.get("seen") == seen:
            return Gpus(seen, str(answer["architectures"]))
    from llama_runner.system.processes import try_output  # noqa: PLC0415 - not on the warm path

    said = try_output(["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"], env=environment) or ""
    found = sorted({line.strip().replace(".", "") for line in said.splitlines() if line.strip()})
    if not found or not all(number.isdigit() for number in found):
        raise NoGpu(bare)
    return Gpus(seen, ";".join(found))


def try_nvcc(nvcc: Path, cxx: Path, architectures: str, environment: Mapping[str, str]) -> None:
    """Compile an empty file for these GPUs to check nvcc before the build; raises ``ToolError``."""
    from llama_runner.system.processes import capture  # noqa: PLC0415 - only before a build

    words = [str(nvcc), "-ccbin", str(cxx), "-x", "cu", "-c", os.devnull, "-o", os.devnull]
    for architecture in filter(str.isdigit, (part.partition("-")[0] for part in architectures.split(";"))):
        words += ["-gencode", f"arch=compute_{architecture},code=sm_{architecture}"]
    done = capture(words, env=environment, timeout=_TIMEOUT_S)
    if done.status:
        lines = [line.strip() for line in done.text.splitlines() if line.strip()]
        told = next((line for line in lines if "error" in line or "fatal" in line), lines[0] if lines else "it failed")
        raise nvcc_refuses_error(str(nvcc), str(cxx), told)


def _hip(system: Path) -> Gpus:
    found = set()
    for node in (system / "sys/class/kfd/kfd/topology/nodes").glob("*/properties"):
        words = dict(line.split(maxsplit=1) for line in node.read_text(encoding="utf-8").splitlines() if " " in line)
        version = int(words.get("gfx_target_version", "0"))
        if version:  # 110000 is gfx1100, 90010 is gfx90a; a processor has 0
            found.add(f"gfx{version // 10000}{version // 100 % 100:x}{version % 100:x}")
    if not found:
        raise NoGpu("hip")
    return Gpus(";".join(sorted(found)), ";".join(sorted(found)))
