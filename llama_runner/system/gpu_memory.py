"""How much memory of each GPU processes hold: as nvidia-smi tells, or the kernel's own account of an AMD or Intel GPU.

GPUs are named by their address on the bus, as ``lspci`` does: ``0000:01:00.0``.
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
"""How long nvidia-smi may take. Where a driver is in trouble it never ends."""

_APPS = ("--query-compute-apps=pid,gpu_bus_id,used_memory", "--format=csv,noheader,nounits")
_OF_A_CLIENT = re.compile(
    r"^drm-(pdev|client-id|resident-vram\d*|memory-vram|total-vram\d*):[ \t]*(\S+)(?: (\w+))?", re.MULTILINE
)
_VRAM = re.compile(r"(resident|memory|total)-vram")
_UNITS = {"": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}

OfGpus = dict[str, int]
"""Bytes by GPU."""


def held(pids: Iterable[int], proc: Path = Path("/proc")) -> dict[int, OfGpus]:
    """Return what each process holds; nothing of one that holds none, or of which nothing can be known."""
    wanted = sorted(set(pids))
    if not wanted:
        return {}
    of_nvidia = _parsed(_nvidia_smi())
    both = {pid: {**of_nvidia.get(pid, {}), **_of_kernel(proc / str(pid) / "fdinfo")} for pid in wanted}
    return {pid: of for pid, of in both.items() if of}


def _parsed(said: str) -> dict[int, OfGpus]:
    """Return the bytes by process out of lines like ``4711, 00000000:01:00.0, 512``, in MiB."""
    found: dict[int, OfGpus] = {}
    for line in said.splitlines():
        words = [word.strip() for word in line.split(",")]
        if len(words) == 3 and words[0].isdecimal() and words[2].isdecimal():  # noqa: PLR2004 - it may say [N/A]
            gpus = found.setdefault(int(words[0]), {})
            gpu = _address(words[1])
            gpus[gpu] = gpus.get(gpu, 0) + (int(words[2]) << 20)  # a line for each instance of a GPU
    return found


def _address(said: str) -> str:
    """Return a bus address as the kernel writes it; nvidia-smi has eight digits of the domain, and capitals."""
    domain, colon, rest = said.lower().partition(":")
    return f"{domain[-4:]}:{rest}" if colon else said


def _nvidia_smi() -> str:
    """Return what nvidia-smi says, or nothing: when it is not there, fails, or does not come to an end."""
    try:
        done = capture(["nvidia-smi", *_APPS], timeout=TIMEOUT_S, own_group=True)
    except OSError:
        return ""
    return done.out.decode("utf-8", "replace") if done.status == 0 else ""


def _of_kernel(directory: Path) -> OfGpus:
    """Return what the descriptors of a process say; several may be of one client, which counts once."""
    clients: dict[tuple[str, str], int] = {}
    with suppress(OSError):
        for name in os.listdir(directory):  # noqa: PTH208 - names are enough
            with suppress(OSError, ValueError, KeyError):
                said = _OF_A_CLIENT.findall((directory / name).read_text())
                told = {key: (value, unit) for key, value, unit in said}
                sizes = [(key, int(value) * _UNITS[unit]) for key, (value, unit) in told.items() if _VRAM.match(key)]
                if sizes:
                    client = told["pdev"][0], told["client-id"][0]
                    clients[client] = _best(sizes)
    gpus: OfGpus = {}
    for (gpu, _), size in clients.items():
        if size:
            gpus[gpu] = gpus.get(gpu, 0) + size
    return gpus


def _best(sizes: list[tuple[str, int]]) -> int:
    """Return what is really there if the driver tells that, else what was asked for; summed over parts of a GPU."""
    for kind in ("resident", "memory", "total"):
        of_kind = [size for key, size in sizes if key.startswith(kind)]
        if of_kind:
            return sum(of_kind)
    return 0
