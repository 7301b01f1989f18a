"""What the machine is: platform, processors that this process may use, their features. Linux first, cheap first."""

from __future__ import annotations

import math
import os
import platform
import sys
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


def physical_cores() -> int:
    """Return how many physical cores this process may use: its affinity, and the quota of its cgroup.

    Two hardware threads of one core count once: llama.cpp gains nothing from the second.
    """
    cores = _cores_of_affinity() or _cores_of_machine()
    quota = cgroup_quota()
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


_CGROUPS, _OWN_CGROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
_MEMINFO = Path("/proc/meminfo")
_NO_LIMIT = 1 << 60
"""What the older hierarchy says where there is none is a little less than 2**63."""


def cgroup_quota(root: Path = _CGROUPS, of: Path = _OWN_CGROUPS) -> float | None:
    """Return the tightest CPU quota, in CPUs, of the cgroups that this process is in; None without one."""
    return min((quota for group in _cgroups("cpu", root, of) for quota in _quota_of(group)), default=None)


def _cgroups(controller: str, root: Path, of: Path) -> Iterator[Path]:
    """Yield the cgroups that this process is in, each before the one around it, of both hierarchies."""
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


def available_memory(meminfo: Path = _MEMINFO, root: Path = _CGROUPS, of: Path = _OWN_CGROUPS) -> int:
    """Return the bytes of memory that a new process could use now: the machine's, or less if a cgroup has less left.

    File pages that nobody has used for a while count as left: the kernel drops them first.
    """
    free = _of_meminfo(meminfo, "MemAvailable")
    if free is None:
        import psutil  # noqa: PLC0415 - only where /proc says nothing

        free = int(psutil.virtual_memory().available)
    return min([free, *(left for group in _cgroups("memory", root, of) for left in _memory_left_of(group))])


def total_memory(meminfo: Path = _MEMINFO, root: Path = _CGROUPS, of: Path = _OWN_CGROUPS) -> int:
    """Return the bytes of memory that this process could ever use: the machine's, or less if its cgroup limits it."""
    total = _memory_of_machine(meminfo)
    return min([total, *(limit for group in _cgroups("memory", root, of) for limit in _memory_limit_of(group))])


def model_budget() -> int:
    """Return how many bytes a model may have to run here, roughly.

    A tenth more than the weights for what is computed with them, and half a GiB for the context and the server, must
    not exceed ``total_memory``. A larger context needs more.
    """
    return max(0, total_memory() - _BESIDE_WEIGHTS) * 10 // 11


def _memory_of_machine(meminfo: Path) -> int:
    total = _of_meminfo(meminfo, "MemTotal")
    if total is not None:
        return total
    import psutil  # noqa: PLC0415 - only where /proc says nothing

    return int(psutil.virtual_memory().total)


def _of_meminfo(meminfo: Path, wanted: str) -> int | None:
    try:
        for line in meminfo.read_text().splitlines():
            name, _, value = line.partition(":")
            if name == wanted:
                return int(value.split()[0]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return None


def _memory_limit_of(group: Path) -> list[int]:
    """Return the limit of one cgroup; a limit beyond what the machine has is none, and "max" as well."""
    for name in ("memory.max", "memory.limit_in_bytes"):
        try:
            limit = int((group / name).read_text())
        except (OSError, ValueError):
            continue
        return [limit] if limit > 0 else []
    return []


def _memory_left_of(group: Path) -> list[int]:
    """Return what one cgroup may still use, if it has a limit."""
    limits = [limit for limit in _memory_limit_of(group) if limit < _NO_LIMIT]
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
