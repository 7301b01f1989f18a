"""GPU memory used by processes: from nvidia-smi, and from the kernel's fdinfo for AMD and Intel GPUs.

GPUs are named by their PCI address as in ``lspci``: ``0000:01:00.0``. The format of fdinfo is that of the kernel's
``Documentation/gpu/drm-usage-stats.rst``.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from llama_runner.system.processes import capture

if TYPE_CHECKING:
    from collections.abc import Iterable

TIMEOUT_S = 3.0
"""Maximum seconds for nvidia-smi, which hangs if the driver does."""

_APPS = ("--query-compute-apps=pid,gpu_bus_id,used_memory", "--format=csv,noheader,nounits")
_OF_A_CLIENT = re.compile(
    r"^drm-(pdev|client-id|resident-vram\d*|memory-vram|total-vram\d*):[ \t]*(\S+)(?: (\w+))?", re.MULTILINE
)
_VRAM = re.compile(r"(resident|memory|total)-vram")
_UNITS = {"": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}

BytesByGpu = dict[str, int]
"""Bytes by GPU."""


def gpu_memory_of(pids: Iterable[int], proc: Path = Path("/proc")) -> dict[int, BytesByGpu]:
    """Return the bytes of GPU memory of each process; processes without any, or with unknown usage, are left out."""
    wanted = sorted(set(pids))
    if not wanted:
        return {}
    of_nvidia = _parse_nvidia_smi(_nvidia_smi())
    both = {pid: {**of_nvidia.get(pid, {}), **_from_fdinfo(proc / str(pid) / "fdinfo")} for pid in wanted}
    return {pid: of for pid, of in both.items() if of}


def _parse_nvidia_smi(said: str) -> dict[int, BytesByGpu]:
    """Parse lines like ``4711, 00000000:01:00.0, 512``: process id, GPU, MiB."""
    found: dict[int, BytesByGpu] = {}
    for line in said.splitlines():
        words = [word.strip() for word in line.split(",")]
        if len(words) == 3 and words[0].isdecimal() and words[2].isdecimal():  # noqa: PLR2004 - it may say [N/A]
            gpus = found.setdefault(int(words[0]), {})
            gpu = _bus_address(words[1])
            gpus[gpu] = gpus.get(gpu, 0) + (int(words[2]) << 20)  # a line for each instance of a GPU
    return found


def _bus_address(said: str) -> str:
    """Return a PCI address in the kernel's notation; nvidia-smi prints eight digits of the domain, and capitals."""
    domain, colon, rest = said.lower().partition(":")
    return f"{domain[-4:]}:{rest}" if colon else said


def _nvidia_smi() -> str:
    """Return the output of nvidia-smi; empty if it is not installed, fails or times out."""
    try:
        done = capture(["nvidia-smi", *_APPS], timeout=TIMEOUT_S, own_group=True)
    except OSError:
        return ""
    return done.out.decode("utf-8", "replace") if done.status == 0 else ""


def _from_fdinfo(directory: Path) -> BytesByGpu:
    """Return the usage from a process's fdinfo files; several of one DRM client count once."""
    clients: dict[tuple[str, str], int] = {}
    with suppress(OSError):
        for name in os.listdir(directory):  # noqa: PTH208 - names are enough
            with suppress(OSError, ValueError, KeyError):
                said = _OF_A_CLIENT.findall((directory / name).read_text())
                told = {key: (value, unit) for key, value, unit in said}
                sizes = [(key, int(value) * _UNITS[unit]) for key, (value, unit) in told.items() if _VRAM.match(key)]
                if sizes:
                    client = told["pdev"][0], told["client-id"][0]
                    clients[client] = _resident_bytes(sizes)
    gpus: BytesByGpu = {}
    for (gpu, _), size in clients.items():
        if size:
            gpus[gpu] = gpus.get(gpu, 0) + size
    return gpus


def _resident_bytes(sizes: list[tuple[str, int]]) -> int:
    """Return the resident bytes if the driver reports them, else the allocated ones; summed over memory regions."""
    for kind in ("resident", "memory", "total"):
        of_kind = [size for key, size in sizes if key.startswith(kind)]
        if of_kind:
            return sum(of_kind)
    return 0
