"""Platform, processors and memory that this process may use, including affinity and cgroup limits."""

from __future__ import annotations

import math
import os
import platform
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_BESIDE_WEIGHTS = 512 << 20


def platform_tag() -> str:
    """Return ``<os>-<arch>`` as in ``bins/``: ``linux-x86_64``, ``macos-arm64``, ``windows-x64``."""
    systems = {"linux": "linux", "darwin": "macos", "win32": "windows"}
    machine = os.uname().machine if hasattr(os, "uname") else platform.machine()
    machine = {"AMD64": "x64", "ARM64": "arm64"}.get(machine, machine)
    return f"{systems.get(sys.platform, sys.platform)}-{machine}"


def libc_version() -> str:
    """Return name and version of the C library, ``glibc 2.36``; empty for another one than glibc."""
    if sys.platform == "linux":
        with suppress(ValueError):  # musl
            return os.confstr("CS_GNU_LIBC_VERSION") or ""
    return ""


def physical_cores() -> int:
    """Return how many physical cores this process may use: its affinity, and the quota of its cgroup.

    Two hardware threads of one core count once: llama.cpp gains nothing from the second.
    """
    cores = _affinity_cores() or _machine_cores()
    quota = cgroup_quota()
    return max(1, min(cores, math.ceil(quota)) if quota else cores)


def affinity() -> set[int] | None:
    """Return the hardware threads that this process may use; None where there is no affinity."""
    if sys.platform == "linux":
        with suppress(OSError):
            return os.sched_getaffinity(0)
    return None


def logical_processors() -> int:
    """Return how many hardware threads this process may use: its affinity, and the quota of its cgroup."""
    processors = len(affinity() or ()) or os.cpu_count() or 1
    quota = cgroup_quota()
    return max(1, min(processors, math.ceil(quota)) if quota else processors)


def _affinity_cores() -> int | None:
    cpus = affinity()
    if cpus is None:
        return None
    topology = Path("/sys/devices/system/cpu")
    try:
        return len({(topology / f"cpu{cpu}/topology/thread_siblings_list").read_bytes() for cpu in cpus})
    except OSError:
        return len(cpus)


def _machine_cores() -> int:
    import psutil  # noqa: PLC0415 - only where the system has no affinity

    return psutil.cpu_count(logical=False) or os.cpu_count() or 1


_CGROUPS, _OWN_CGROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
_MEMINFO = Path("/proc/meminfo")
_NO_LIMIT = 1 << 60
"""Limits from here on mean no limit: cgroup v1 reports a little less than 2**63 bytes."""


def cgroup_quota(root: Path = _CGROUPS, of: Path = _OWN_CGROUPS) -> float | None:
    """Return the smallest CPU quota, in CPUs, of the cgroups of this process; None without one."""
    return min((quota for group in _cgroups("cpu", root, of) for quota in _cgroup_quota(group)), default=None)


def _cgroups(controller: str, root: Path, of: Path) -> Iterator[Path]:
    """Yield the cgroups (v1 and v2) of this process, each before its parent."""
    try:
        lines = of.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        base = root / (controller if controllers else "")
        inside = base / path.lstrip("/")
        for group in (inside, *inside.parents):
            yield group
            if group == base:
                break


def _cgroup_quota(group: Path) -> list[float]:
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
    """Return the feature flags of the processor, sorted. They decide what a native build contains."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("flags", "Features")):
                return tuple(sorted(line.partition(":")[2].split()))
    except OSError:
        pass
    from cpuinfo import get_cpu_info  # noqa: PLC0415 - takes a second; only without /proc/cpuinfo

    return tuple(sorted(get_cpu_info().get("flags", ())))


def available_memory(meminfo: Path = _MEMINFO, root: Path = _CGROUPS, of: Path = _OWN_CGROUPS) -> int:
    """Return the bytes of memory available to a new process now, limited by the machine and the cgroups.

    Inactive file pages count as available: the kernel drops them first.
    """
    free = _read_meminfo(meminfo, "MemAvailable")
    if free is None:
        import psutil  # noqa: PLC0415 - only without /proc/meminfo

        free = int(psutil.virtual_memory().available)
    return min([free, *(left for group in _cgroups("memory", root, of) for left in _cgroup_memory_left(group))])


def total_memory(meminfo: Path = _MEMINFO, root: Path = _CGROUPS, of: Path = _OWN_CGROUPS) -> int:
    """Return the bytes of memory that this process may use at most, limited by the machine and the cgroups."""
    total = _machine_memory(meminfo)
    return min([total, *(limit for group in _cgroups("memory", root, of) for limit in _cgroup_memory_limit(group))])


def model_budget() -> int:
    """Return the approximate maximum size in bytes of a model that runs on this machine.

    1.1 times the weights, plus half a GiB for the context and the server, must not exceed ``total_memory``. A larger
    context needs more.
    """
    return max(0, total_memory() - _BESIDE_WEIGHTS) * 10 // 11


def _machine_memory(meminfo: Path) -> int:
    total = _read_meminfo(meminfo, "MemTotal")
    if total is not None:
        return total
    import psutil  # noqa: PLC0415 - only without /proc/meminfo

    return int(psutil.virtual_memory().total)


def _read_meminfo(meminfo: Path, wanted: str) -> int | None:
    try:
        for line in meminfo.read_text().splitlines():
            name, _, value = line.partition(":")
            if name == wanted:
                return int(value.split()[0]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return None


def _cgroup_memory_limit(group: Path) -> list[int]:
    """Return the memory limit of one cgroup in bytes; an empty list without one."""
    for name in ("memory.max", "memory.limit_in_bytes"):
        try:
            limit = int((group / name).read_text())
        except (OSError, ValueError):
            continue
        return [limit] if limit > 0 else []
    return []


def _cgroup_memory_left(group: Path) -> list[int]:
    """Return the bytes that one cgroup may still use; an empty list without a limit."""
    limits = [limit for limit in _cgroup_memory_limit(group) if limit < _NO_LIMIT]
    for used in ("memory.current", "memory.usage_in_bytes") if limits else ():
        try:
            usage = int((group / used).read_text())
            fields = (line.split() for line in (group / "memory.stat").read_text().splitlines())
            stat = {words[0]: int(words[1]) for words in fields}
        except (OSError, ValueError, IndexError):
            continue
        idle = stat.get("total_inactive_file", stat.get("inactive_file", 0))
        return [max(0, limit - usage + idle) for limit in limits]
    return []
