"""Report on system, processor, memory and GPUs, from files of the system and programs of the drivers."""

from __future__ import annotations

import json
import os
import platform
import re
from typing import TYPE_CHECKING

from llama_runner.doctor.machine_probes import Document, Machine, ProbeFailed, try_probe
from llama_runner.system import hardware
from llama_runner.system.platforms import IS_MACOS

if TYPE_CHECKING:
    from pathlib import Path

_RELEVANT_FEATURES = re.compile(
    r"sse3|ssse3|sse4_1|sse4_2|f16c|fma|bmi2|avx|avx2|avx_vnni|avx512\w+|amx_\w+|asimd|asimddp|asimdhp|fphp|"
    r"i8mm|bf16|sve|sve2|sme|sme2|neon|vx|vxe|vxe2|v|lasx|lsx|altivec|vsx"
)
"""Features that llama.cpp has code for; ``asimd`` is NEON."""

_VENDORS = {"0x10de": "NVIDIA", "0x1002": "AMD", "0x8086": "Intel", "0x1af4": "virtio", "0x15ad": "VMware"}
_CONTAINER_NAMES = ("docker", "kubepods", "containerd", "lxc", "podman", "garden")


def system(machine: Machine) -> Document:
    """Return the operating system, and its container or WSL."""
    linux = machine.platform.startswith("linux")
    kernel = try_probe(lambda: machine.read("proc/sys/kernel/osrelease") if linux else platform.release())
    wsl = "microsoft" in str(kernel).lower()
    return {
        "os": platform.system() if not linux else "Linux",
        "kernel": kernel,
        "distribution": try_probe(lambda: _distribution(machine)),
        "platform": machine.platform,
        "container": try_probe(lambda: _container(machine)),
        "wsl": wsl,
    }


def _distribution(machine: Machine) -> str:
    if machine.platform.startswith("macos"):
        return f"macOS {platform.mac_ver()[0]}"
    if not machine.platform.startswith("linux"):
        return platform.platform()
    words = dict(line.split("=", 1) for line in machine.read("etc/os-release").splitlines() if "=" in line)
    name = words.get("PRETTY_NAME") or words["NAME"]
    return name.strip("\"'")


def _container(machine: Machine) -> str | None:
    """Return the kind of container; None if no container is detected."""
    if (machine.system / ".dockerenv").exists():
        return "docker"
    if (machine.system / "run/.containerenv").exists():
        return "podman"
    if "KUBERNETES_SERVICE_HOST" in machine.environment:
        return "kubernetes"
    if named := machine.environment.get("container"):
        return named
    try:
        groups = machine.read("proc/1/cgroup")
    except OSError:
        return None
    return next((word for word in _CONTAINER_NAMES if word in groups), None)


def cpu(machine: Machine) -> Document:
    """Return the processor: model, relevant features, cores, affinity and quota."""
    affinity = sorted(affinity) if (affinity := hardware.affinity()) is not None else None
    return {
        "model": try_probe(lambda: _model(machine)),
        "features": try_probe(lambda: _features(machine)),
        "physical_cores_usable": try_probe(hardware.physical_cores),
        "logical": os.cpu_count(),
        "affinity": None if affinity is None else len(affinity),
        "quota": try_probe(lambda: hardware.cgroup_quota(*_cgroup(machine))),
    }


def _model(machine: Machine) -> str:
    if not machine.platform.startswith("linux"):
        return machine.ask("sysctl", "-n", "machdep.cpu.brand_string").strip() if IS_MACOS else (platform.processor())
    words: dict[str, str] = {}
    for line in machine.read("proc/cpuinfo").splitlines():
        name, _, value = line.partition(":")
        words.setdefault(name.strip(), value.strip())
    for name in ("model name", "Model", "Hardware", "cpu model", "processor 0"):
        if words.get(name):
            return words[name]
    if "CPU part" in words:
        return f"implementer {words.get('CPU implementer', '?')}, part {words['CPU part']}"
    raise LookupError("/proc/cpuinfo names none")


def _features(machine: Machine) -> list[str]:
    if machine.platform.startswith("linux"):
        lines = machine.read("proc/cpuinfo").splitlines()
        line = next((line for line in lines if line.startswith(("flags", "Features"))), None)
        if line is None:
            raise LookupError("/proc/cpuinfo lists none")
        found = line.partition(":")[2].split()
    else:
        found = list(hardware.cpu_features())
    return sorted({name for name in found if _RELEVANT_FEATURES.fullmatch(name)})


def memory(machine: Machine) -> Document:
    """Return bytes of memory: total, the limit of the cgroup, available now."""
    meminfo, (groups, own) = machine.system / "proc/meminfo", _cgroup(machine)
    nowhere = machine.system / "nowhere"

    def limit() -> int | None:
        whole, usable = (
            hardware.total_memory(meminfo, nowhere, nowhere),
            hardware.total_memory(meminfo, groups, own),
        )
        return usable if usable < whole else None

    return {
        "total": try_probe(lambda: hardware.total_memory(meminfo, nowhere, nowhere)),
        "cgroup_limit": try_probe(limit),
        "available": try_probe(lambda: hardware.available_memory(meminfo, groups, own)),
    }


def _cgroup(machine: Machine) -> tuple[Path, Path]:
    return machine.system / "sys/fs/cgroup", machine.system / "proc/self/cgroup"


def gpus(machine: Machine) -> Document:
    """Return ``devices`` with memory and driver, the CUDA version of the driver, and the devices of Vulkan."""
    found, unknown = devices(machine)
    return {
        "devices": found,
        "unknown_of": unknown,
        "cuda_supported": try_probe(lambda: _cuda(machine)),
        "vulkan": try_probe(lambda: _vulkan(machine)),
    }


def devices(machine: Machine) -> tuple[list[Document], Document]:
    """Return the GPUs with their memory, and why some are unknown."""
    nvidia = try_probe(lambda: _nvidia(machine))
    others = try_probe(lambda: _drm(machine, known=bool(nvidia)))
    apple = try_probe(lambda: _apple(machine)) if machine.platform.startswith("macos") else []
    found: list[Document] = []
    unknown: Document = {}
    for name, listed in (("nvidia", nvidia), ("drm", others), ("apple", apple)):
        if isinstance(listed, dict):
            unknown[name] = listed["unknown"]
        else:
            found += listed
    return found, unknown


_NVIDIA_FIELDS = ("name", "memory.total", "memory.used", "driver_version", "compute_cap")


def _nvidia(machine: Machine) -> list[Document]:
    program = machine.program("nvidia-smi")
    if program is None:
        return _nvidia_from_driver(machine)
    said = machine.ask(program, f"--query-gpu={','.join(_NVIDIA_FIELDS)}", "--format=csv,noheader,nounits")
    found = []
    for line in said.splitlines():
        words = [word.strip() for word in line.split(",")]
        if len(words) != len(_NVIDIA_FIELDS) or not words[1].isdigit():
            raise ProbeFailed(f"unexpected output of nvidia-smi: {line.strip()[:80]}")
        used = int(words[2]) << 20 if words[2].isdigit() else None
        found.append(_gpu("NVIDIA", words[0], int(words[1]) << 20, used, words[3], words[4]))
    return found


def _gpu(*facts: object) -> Document:
    return dict(zip(("vendor", "name", "memory", "memory_used", "driver", "kind"), facts, strict=True))


def _nvidia_from_driver(machine: Machine) -> list[Document]:
    """Return the GPUs that the kernel module lists, without their memory."""
    found = []
    for card in sorted((machine.system / "proc/driver/nvidia/gpus").glob("*/information")):
        text = card.read_text(encoding="utf-8", errors="replace")
        words = dict(re.findall(r"^(\w[\w ]*?):\s*(.*)$", text, re.MULTILINE))
        version = re.search(r"Kernel Module\D*([\d.]+)", machine.read("proc/driver/nvidia/version"))
        found.append(_gpu("NVIDIA", words.get("Model", "?"), None, None, version and version[1], None))
    return found


def _cuda(machine: Machine) -> str | None:
    program = machine.program("nvidia-smi")
    if program is None:
        return None
    match = re.search(r"CUDA Version:\s*([\d.]+)", machine.ask(program))
    return match and match[1]


def _drm(machine: Machine, *, known: bool) -> list[Document]:
    """Return the cards in the kernel's DRM subsystem, without NVIDIA's if they are ``known``."""
    found = []
    for card in sorted((machine.system / "sys/class/drm").glob("card*")):
        device = card / "device"
        if not card.name[4:].isdigit() or not (device / "vendor").exists():
            continue
        code, model = ((device / name).read_text().strip() for name in ("vendor", "device"))
        vendor = _VENDORS.get(code, code)
        if vendor == "NVIDIA" and known:
            continue
        sizes = [_number(device / f"mem_info_vram_{word}") for word in ("total", "used")]
        driver = (device / "driver").resolve().name if (device / "driver").exists() else None
        kind = _amd_kind(machine) if vendor == "AMD" else None
        product = device / "product_name"
        name = (product.read_text().strip() if product.exists() else "") or f"device {model}"
        found.append(_gpu(vendor, name, *sizes, driver, kind))
    return found


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _amd_kind(machine: Machine) -> str | None:
    from llama_runner.llama_cpp.gpu_detection import NoGpu, find_gpus  # noqa: PLC0415 - only with such a card

    try:
        found = find_gpus("hip", machine.environment, system=machine.system)
    except (NoGpu, OSError, ValueError):
        return None
    return None if found is None else found.architectures


def _apple(machine: Machine) -> list[Document]:
    said = json.loads(machine.ask("system_profiler", "SPDisplaysDataType", "-json"))
    return [
        _gpu("Apple", str(each.get("sppci_model", "?")), None, None, each.get("spdisplays_mtlgpufamilysupport"), None)
        for each in said["SPDisplaysDataType"]
    ]


def _vulkan(machine: Machine) -> list[Document] | None:
    """Return the devices of Vulkan; None if vulkaninfo is not installed."""
    program = machine.program("vulkaninfo")
    if program is None:
        return None
    found: list[Document] = []
    for line in machine.ask(program, "--summary").splitlines():
        name, equals, value = (part.strip() for part in line.partition("="))
        if line.startswith("GPU") and line.strip().endswith(":"):
            found.append({})
        elif equals and found and name in ("deviceName", "driverInfo", "apiVersion", "deviceType"):
            found[-1][name] = value
    return [
        {
            "name": each.get("deviceName", "?"),
            "driver": each.get("driverInfo"),
            "api": each.get("apiVersion"),
            "type": each.get("deviceType", "").removeprefix("PHYSICAL_DEVICE_TYPE_").lower(),
        }
        for each in found
    ]
