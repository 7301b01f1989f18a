"""What the machine is: platform, processors that this process may use, their features. Linux first, cheap first."""

from __future__ import annotations

import math
import os
import platform
import sys
from pathlib import Path


def platform_tag() -> str:
    """Return ``<os>-<arch>`` as in ``bins/``: ``linux-x86_64``, ``macos-arm64``, ``windows-x64``."""
    systems = {"linux": "linux", "darwin": "macos", "win32": "windows"}
    machine = os.uname().machine if hasattr(os, "uname") else platform.machine()
    machine = {"AMD64": "x64"}.get(machine, machine)
    return f"{systems.get(sys.platform, sys.platform)}-{machine}"


def physical_cores() -> int:
    """Return how many physical cores this process may use: its affinity, and the quota of its cgroup.

    Two hardware threads of one core count once: llama.cpp gains nothing from the second.
    """
    cores = _cores_of_affinity() or _cores_of_machine()
    quota = _cgroup_quota()
    return max(1, min(cores, math.ceil(quota)) if quota else cores)


def _cores_of_affinity() -> int | None:
    try:
        cpus = os.sched_getaffinity(0)
    except (AttributeError, OSError):
        return None
    topology = Path("/sys/devices/system/cpu")
    try:
        return len({(topology / f"cpu{cpu}/topology/thread_siblings_list").read_bytes() for cpu in cpus})
    except OSError:
        return len(cpus)


def _cores_of_machine() -> int:
    import psutil  # noqa: PLC0415 - only where the system has no affinity

    return psutil.cpu_count(logical=False) or os.cpu_count() or 1


def _cgroup_quota(root: Path = Path("/sys/fs/cgroup"), of: Path = Path("/proc/self/cgroup")) -> float | None:
    """Return the tightest CPU quota, in CPUs, of the cgroups that this process is in; None without one."""
    quotas: list[float] = []
    try:
        lines = of.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        base = root / ("cpu" if controllers else "")
        inside = base / path.lstrip("/")
        for group in (inside, *inside.parents):
            quotas += _quota_of(group)
            if group == base:
                break
    return min(quotas, default=None)


def _quota_of(group: Path) -> list[float]:
    try:
        quota, _, period = (group / "cpu.max").read_text().partition(" ")
    except OSError:
        try:
            quota = (group / "cpu.cfs_quota_us").read_text()
            period = (group / "cpu.cfs_period_us").read_text()
        except OSError:
            return []
    try:
        return [int(quota) / int(period)] if int(quota) > 0 else []
    except ValueError:  # "max"
        return []


def cpu_features() -> tuple[str, ...]:
    """Return what the processor can do, sorted: it decides what a native build contains."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("flags", "Features")):
                return tuple(sorted(line.partition(":")[2].split()))
    except OSError:
        pass
    from cpuinfo import get_cpu_info  # noqa: PLC0415 - takes a second; only where /proc says nothing

    return tuple(sorted(get_cpu_info().get("flags", ())))


def available_memory() -> int:
    """Return the bytes of memory that a new process could use now."""
    import psutil  # noqa: PLC0415 - not on the warm path

    return int(psutil.virtual_memory().available)
