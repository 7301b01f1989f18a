"""How much of the machine is in use now: processors, memory, disk, devices."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Any

import psutil

from llama_runner.core.immutable_values import Value
from llama_runner.doctor import hardware_report
from llama_runner.doctor.machine_probes import Machine
from llama_runner.system import hardware

if TYPE_CHECKING:
    from pathlib import Path


class MachineLoad(Value):
    """What is in use now, in bytes."""

    cpu_percent: float
    """Of all processors, since this process asked the last time; 0 the first time."""
    cores: int
    memory: dict[str, int]
    """``total`` and ``available``, within the limits of the cgroup."""
    disk: dict[str, int] | None
    """``total`` and ``free`` of the file system of the store; None if it cannot be read."""
    devices: tuple[dict[str, Any], ...]
    """GPUs: ``name``, ``total`` and ``free``, None where that is not known."""

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {**self.__dict__, "devices": list(self.devices)}


def machine_load(root: Path) -> MachineLoad:
    """Return what is in use now. Starts the programs of GPU drivers."""
    machine = Machine(hardware.platform_tag(), os.environ)
    gpus, _ = hardware_report.devices(machine)
    return MachineLoad(
        cpu_percent=psutil.cpu_percent(),
        cores=hardware.physical_cores(),
        memory={"total": hardware.total_memory(), "available": hardware.available_memory()},
        disk=_disk(root),
        devices=tuple(_device(each) for each in gpus),
    )


def _disk(root: Path) -> dict[str, int] | None:
    there = next((each for each in (root, *root.parents) if each.exists()), root)
    try:
        usage = shutil.disk_usage(there)
    except OSError:
        return None
    return {"total": usage.total, "free": usage.free}


def _device(found: dict[str, Any]) -> dict[str, Any]:
    total, used = found.get("memory"), found.get("memory_used")
    free = total - used if isinstance(total, int) and isinstance(used, int) else None
    return {"name": str(found.get("name")), "total": total if isinstance(total, int) else None, "free": free}
