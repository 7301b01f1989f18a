"""System, processor, memory and GPUs, as files of the system and the drivers' own programs tell them."""

from __future__ import annotations

import json
import os
import platform
import re
import sys
from typing import TYPE_CHECKING

from llama_runner.doctor.probe import Document, Place, Unanswered, look
from llama_runner.system import hardware

if TYPE_CHECKING:
    from pathlib import Path

_MATTERS = re.compile(
    r"sse3|ssse3|sse4_1|sse4_2|f16c|fma|bmi2|avx|avx2|avx_vnni|avx512\w+|amx_\w+|asimd|asimddp|asimdhp|fphp|"
    r"i8mm|bf16|sve|sve2|sme|sme2|neon|vx|vxe|vxe2|v|lasx|lsx|altivec|vsx"
)
"""Features that llama.cpp has code for; ``asimd`` is NEON."""

_VENDORS = {"0x10de": "NVIDIA", "0x1002": "AMD", "0x8086": "Intel", "0x1af4": "virtio", "0x15ad": "VMware"}
_INSIDE = ("docker", "kubepods", "containerd", "lxc", "podman", "garden")


def system(place: Place) -> Document:
    """Return the operating system, and what it runs inside of."""
    linux = place.platform.startswith("linux")
    kernel = look(lambda: place.read("proc/sys/kernel/osrelease") if linux else platform.release())
    wsl = "microsoft" in str(kernel).lower()
    return {
        "os": platform.system() if not linux else "Linux",
        "kernel": kernel,
        "distribution": look(lambda: _distribution(place)),
        "platform": place.platform,
        "container": look(lambda: _container(place)),
        "wsl": wsl,
    }


def _distribution(place: Place) -> str:
    if place.platform.startswith("macos"):
        return f"macOS {platform.mac_ver()[0]}"
    if not place.platform.startswith("linux"):
        return platform.platform()
    words = dict(line.split("=", 1) for line in place.read("etc/os-release").splitlines() if "=" in line)
    name = words.get("PRETTY_NAME") or words["NAME"]
    return name.strip("\"'")


def _container(place: Place) -> str | None:
    """Return what kind of container this is; None outside of any, as far as that can be seen."""
    if (place.system / ".dockerenv").exists():
        return "docker"
    if (place.system / "run/.containerenv").exists():
        return "podman"
    if "KUBERNETES_SERVICE_HOST" in place.environment:
        return "kubernetes"
    if named := place.environment.get("container"):
        return named
    try:
        groups = place.read("proc/1/cgroup")
    except OSError:
        return None
    return next((word for word in _INSIDE if word in groups), None)


def cpu(place: Place) -> Document:
    """Return the processor: model, features that matter, cores, and what limits them."""
    affinity = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    return {
        "model": look(lambda: _model(place)),
        "features": look(lambda: _features(place)),
        "physical_cores_usable": look(hardware.physical_cores),
        "logical": os.cpu_count(),
        "affinity": None if affinity is None else len(affinity),
        "quota": look(lambda: hardware.cgroup_quota(*_cgroup(place))),
    }


def _model(place: Place) -> str:
    if not place.platform.startswith("linux"):
        return (
            place.ask("sysctl", "-n", "machdep.cpu.brand_string").strip()
            if sys.platform == "darwin"
            else (platform.processor())
        )
    words: dict[str, str] = {}
    for line in place.read("proc/cpuinfo").splitlines():
        name, _, value = line.partition(":")
        words.setdefault(name.strip(), value.strip())
    for name in ("model name", "Model", "Hardware", "cpu model", "processor 0"):
        if words.get(name):
            return words[name]
    if "CPU part" in words:
        return f"implementer {words.get('CPU implementer', '?')}, part {words['CPU part']}"
    raise LookupError("/proc/cpuinfo names none")


def _features(place: Place) -> list[str]:
    if place.platform.startswith("linux"):
        lines = place.read("proc/cpuinfo").splitlines()
        line = next((line for line in lines if line.startswith(("flags", "Features"))), None)
        if line is None:
            raise LookupError("/proc/cpuinfo lists none")
        found = line.partition(":")[2].split()
    else:
        found = list(hardware.cpu_features())
    return sorted({name for name in found if _MATTERS.fullmatch(name)})


def memory(place: Place) -> Document:
    """Return bytes of memory: the machine's, what its cgroup allows, what is available now."""
    meminfo, (groups, own) = place.system / "proc/meminfo", _cgroup(place)
    nowhere = place.system / "nowhere"

    def limit() -> int | None:
        whole, usable = hardware.total_memory(meminfo, nowhere, nowhere), hardware.total_memory(meminfo, groups, own)
        return usable if usable < whole else None

    return {
        "total": look(lambda: hardware.total_memory(meminfo, nowhere, nowhere)),
        "cgroup_limit": look(limit),
        "available": look(lambda: hardware.available_memory(meminfo, groups, own)),
    }


def _cgroup(place: Place) -> tuple[Path, Path]:
    return place.system / "sys/fs/cgroup", place.system / "proc/self/cgroup"


def gpus(place: Place) -> Document:
    """Return ``devices`` with memory and driver, the CUDA that the driver supports, and what Vulkan sees."""
    nvidia = look(lambda: _nvidia(place))
    others = look(lambda: _drm(place, known=bool(nvidia)))
    apple = look(lambda: _apple(place)) if place.platform.startswith("macos") else []
    found: list[Document] = []
    unknown: Document = {}
    for name, devices in (("nvidia", nvidia), ("drm", others), ("apple", apple)):
        if isinstance(devices, dict):
            unknown[name] = devices["unknown"]
        else:
            found += devices
    return {
        "devices": found,
        "unknown_of": unknown,
        "cuda_supported": look(lambda: _cuda(place)),
        "vulkan": look(lambda: _vulkan(place)),
    }


_ASKED = ("name", "memory.total", "memory.used", "driver_version", "compute_cap")


def _nvidia(place: Place) -> list[Document]:
    program = place.program("nvidia-smi")
    if program is None:
        return _nvidia_of_driver(place)
    said = place.ask(program, f"--query-gpu={','.join(_ASKED)}", "--format=csv,noheader,nounits")
    found = []
    for line in said.splitlines():
        words = [word.strip() for word in line.split(",")]
        if len(words) != len(_ASKED) or not words[1].isdigit():
            raise Unanswered(f"nvidia-smi says what nobody understands: {line.strip()[:80]}")
        used = int(words[2]) << 20 if words[2].isdigit() else None
        found.append(_gpu("NVIDIA", words[0], int(words[1]) << 20, used, words[3], words[4]))
    return found


def _gpu(*facts: object) -> Document:
    return dict(zip(("vendor", "name", "memory", "memory_used", "driver", "kind"), facts, strict=True))


def _nvidia_of_driver(place: Place) -> list[Document]:
    """Return what the kernel's module lists, which does not tell the memory."""
    found = []
    for card in sorted((place.system / "proc/driver/nvidia/gpus").glob("*/information")):
        text = card.read_text(encoding="utf-8", errors="replace")
        words = dict(re.findall(r"^(\w[\w ]*?):\s*(.*)$", text, re.MULTILINE))
        version = re.search(r"Kernel Module\D*([\d.]+)", place.read("proc/driver/nvidia/version"))
        found.append(_gpu("NVIDIA", words.get("Model", "?"), None, None, version and version[1], None))
    return found


def _cuda(place: Place) -> str | None:
    program = place.program("nvidia-smi")
    if program is None:
        return None
    match = re.search(r"CUDA Version:\s*([\d.]+)", place.ask(program))
    return match and match[1]


def _drm(place: Place, *, known: bool) -> list[Document]:
    """Return the cards that the kernel drives, without NVIDIA's where ``known`` already."""
    found = []
    for card in sorted((place.system / "sys/class/drm").glob("card*")):
        device = card / "device"
        if not card.name[4:].isdigit() or not (device / "vendor").exists():
            continue
        code, model = ((device / name).read_text().strip() for name in ("vendor", "device"))
        vendor = _VENDORS.get(code, code)
        if vendor == "NVIDIA" and known:
            continue
        sizes = [_number(device / f"mem_info_vram_{word}") for word in ("total", "used")]
        driver = (device / "driver").resolve().name if (device / "driver").exists() else None
        kind = _amd_kind(place) if vendor == "AMD" else None
        product = device / "product_name"
        name = (product.read_text().strip() if product.exists() else "") or f"device {model}"
        found.append(_gpu(vendor, name, *sizes, driver, kind))
    return found


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _amd_kind(place: Place) -> str | None:
    from llama_runner.llama_cpp.gpu_detection import NoGpu, find_gpus  # noqa: PLC0415 - only with such a card

    try:
        found = find_gpus("hip", place.environment, system=place.system)
    except (NoGpu, OSError, ValueError):
        return None
    return None if found is None else found.architectures


def _apple(place: Place) -> list[Document]:
    said = json.loads(place.ask("system_profiler", "SPDisplaysDataType", "-json"))
    return [
        _gpu("Apple", str(each.get("sppci_model", "?")), None, None, each.get("spdisplays_mtlgpufamilysupport"), None)
        for each in said["SPDisplaysDataType"]
    ]


def _vulkan(place: Place) -> list[Document] | None:
    """Return what Vulkan would compute with; None where nothing is installed that tells."""
    program = place.program("vulkaninfo")
    if program is None:
        return None
    found: list[Document] = []
    for line in place.ask(program, "--summary").splitlines():
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
