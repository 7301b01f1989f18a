"""What doctor sees: figures that agree with the system's own, on other machines too, and never a secret."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from llama_runner.doctor import Machine, collect_report
from llama_runner.doctor.machine_probes import DocumentRedactor
from llama_runner.llama_cpp.backend_build_options import BACKENDS
from llama_runner.store.artifacts import Store

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
posix = pytest.mark.skipif(os.name != "posix", reason="the programs are shell scripts")

PROC = {
    "proc/cpuinfo": "processor\t: 0\nmodel name\t: Great CPU 9\nflags\t\t: fpu avx avx2 avx512f amx_tile tsc\n",
    "proc/meminfo": "MemTotal:  2097152 kB\nMemAvailable:  1048576 kB\n",
    "proc/self/cgroup": "0::/a\n",
    "proc/sys/kernel/osrelease": "6.1.0-test\n",
    "etc/os-release": 'NAME="Other"\nPRETTY_NAME="Other Linux 3"\n',
    "sys/fs/cgroup/a/memory.max": "536870912\n",
    "sys/fs/cgroup/a/cpu.max": "150000 100000\n",
}


def machine(tmp_path: Path, files: dict[str, str], **programs: str) -> Machine:
    """Return a machine that has these files and, in its PATH, these shell scripts."""
    (tmp_path / "machine").mkdir()
    for name, text in files.items():
        path = tmp_path / "machine" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "bin").mkdir()
    for name, script in programs.items():
        program = tmp_path / "bin" / name.replace("_", "-")
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
    environment = {"PATH": str(tmp_path / "bin"), "HOME": str(tmp_path / "home")}
    return Machine("linux-x86_64", environment, tmp_path / "machine", timeout=20)


def seen(tmp_path: Path, place: Machine | None = None) -> dict[str, Any]:
    return collect_report(Store(tmp_path / "root", lambda _event: None), machine=place)


@linux
def test_the_figures_are_those_of_this_machine(tmp_path: Path) -> None:
    document = seen(tmp_path)
    meminfo = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    assert document["memory"]["total"] == int(meminfo["MemTotal"].split()[0]) * 1024
    assert 0 < document["memory"]["available"] <= document["memory"]["total"]
    flags = set(Path("/proc/cpuinfo").read_text().split())
    assert set(document["cpu"]["features"]) <= flags
    assert document["cpu"]["affinity"] == len(os.sched_getaffinity(0))
    assert document["system"]["kernel"] == os.uname().release
    assert document["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert set(document["toolchains"]["backends"]) == set(BACKENDS) - {"metal"}
    json.dumps(document)


@linux
def test_another_machine_is_seen_as_it_is(tmp_path: Path) -> None:
    document = seen(tmp_path, machine(tmp_path, PROC | {".dockerenv": ""}))
    assert document["system"]["distribution"] == "Other Linux 3"
    assert document["system"]["container"] == "docker"
    assert document["cpu"]["model"] == "Great CPU 9"
    assert document["cpu"]["features"] == ["amx_tile", "avx", "avx2", "avx512f"]
    assert document["cpu"]["quota"] == 1.5
    assert document["memory"] == {"total": 2 << 30, "cgroup_limit": 512 << 20, "available": 1 << 30}


@linux
def test_wsl_is_told_from_other_linux(tmp_path: Path) -> None:
    files = PROC | {"proc/sys/kernel/osrelease": "5.15.1-microsoft-standard-WSL2\n"}
    assert seen(tmp_path, machine(tmp_path, files))["system"]["wsl"]


@linux
def test_a_machine_without_compilers_hears_what_to_install(tmp_path: Path) -> None:
    document = seen(tmp_path, machine(tmp_path, PROC))
    first = document["problems"][0]
    assert first["blocks"]
    assert "no C compiler found" in first["what"]
    assert "apt-get install -y g++" in first["hint"]
    assert document["verdict"].startswith("something stands in the way: no C compiler")
    assert document["toolchains"]["backends"]["vulkan"]["missing"][0] == "glslc"
    assert "glslc" in document["toolchains"]["backends"]["vulkan"]["install"]


@linux
def test_nothing_that_cannot_be_read_stops_the_rest(tmp_path: Path) -> None:
    document = seen(tmp_path, machine(tmp_path, {}))
    assert "cpuinfo" in document["cpu"]["model"]["unknown"]
    assert "os-release" in document["system"]["distribution"]["unknown"]
    assert document["versions"]["llama_runner"]


SMI = """case "$*" in
  *--query-gpu*) echo "NVIDIA H200, 143771, 1024, 570.1, 9.0";;
  *) echo "| CUDA Version: 12.8 |";;
esac"""


@posix
def test_an_nvidia_gpu_is_seen_with_memory_driver_and_cuda(tmp_path: Path) -> None:
    place = machine(tmp_path, PROC | {"proc/driver/nvidia/version": "x"}, nvidia_smi=SMI)
    document = seen(tmp_path, place)
    [gpu] = document["gpus"]["devices"]
    assert (gpu["vendor"], gpu["name"], gpu["memory"]) == ("NVIDIA", "NVIDIA H200", 143771 << 20)
    assert (gpu["memory_used"], gpu["driver"], gpu["kind"]) == (1 << 30, "570.1", "9.0")
    assert document["gpus"]["cuda_supported"] == "12.8"
    said = [problem for problem in document["problems"] if "NVIDIA GPU, but nvcc" in problem["what"]]
    assert said[0]["hint"] == BACKENDS["cuda"].install


@posix
@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("/bin/sleep 600", "nvidia-smi did not answer within 0.2 s"),
        ("echo broken driver; exit 9", "nvidia-smi exited with 9: broken driver"),
        ("kill -SEGV $$", "nvidia-smi was killed by signal 11"),
        (r"printf 'no\033[31m sense'", "unexpected output of nvidia-smi: no?[31m sense"),
        (
            "while :; do echo yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy; done",
            "prints more than",
        ),
    ],
)
def test_a_driver_that_is_broken_is_a_finding(tmp_path: Path, script: str, why: str) -> None:
    place = machine(tmp_path, PROC, nvidia_smi=script)
    document = seen(tmp_path, place.replace(timeout=0.2) if "600" in script else place)
    assert why in document["gpus"]["unknown_of"]["nvidia"]
    assert any(why in problem["what"] for problem in document["problems"])
    assert document["cpu"]["model"] == "Great CPU 9"


def test_an_amd_gpu_is_seen_as_the_kernel_lists_it(tmp_path: Path) -> None:
    card = "sys/class/drm/card0/device/"
    files = {card + "vendor": "0x1002\n", card + "device": "0x744c\n", card + "mem_info_vram_total": "25753026560\n"}
    files |= {"sys/class/kfd/kfd/topology/nodes/1/properties": "gfx_target_version 110000\n"}
    [gpu] = seen(tmp_path, machine(tmp_path, PROC | files))["gpus"]["devices"]
    assert (gpu["vendor"], gpu["name"], gpu["memory"], gpu["kind"]) == ("AMD", "device 0x744c", 25753026560, "gfx1100")


@posix
def test_what_vulkan_sees_is_told(tmp_path: Path) -> None:
    said = (
        "GPU0:\n\tapiVersion = 1.3.2\n\tdeviceType = PHYSICAL_DEVICE_TYPE_CPU\n\tdeviceName = soft\n\tdriverInfo = Mesa"
    )
    place = machine(tmp_path, PROC, vulkaninfo=f"printf '%s\\n' '{said}'")
    expected = {"name": "soft", "driver": "Mesa", "api": "1.3.2", "type": "cpu"}
    assert seen(tmp_path, place)["gpus"]["vulkan"] == [expected]


def test_a_store_is_counted(tmp_path: Path) -> None:
    (tmp_path / "root/models/a").mkdir(parents=True)
    (tmp_path / "root/models/a/x").write_bytes(b"123")
    (tmp_path / "root/models/y").write_bytes(b"4567")
    parts = seen(tmp_path)["store"]["parts"]
    assert parts["models"] == {"bytes": 7, "files": 2}
    assert parts["vendor"] == {"bytes": 0, "files": 0}


def test_the_home_directory_and_secrets_are_taken_out_of_any_text(tmp_path: Path) -> None:
    environment = {"HOME": "/home/anna", "MY_TOKEN": "s3cr3t-value", "HTTPS_PROXY": "http://u:p@ss-word@proxy:3128"}
    hiding = DocumentRedactor(environment)
    assert hiding.text("/home/anna/x and /home/annabel") == "~/x and /home/annabel"
    assert hiding.text("a s3cr3t-value b") == "a <hidden> b"
    assert hiding.text("http://u:p@ss-word@proxy:3128") == "http://proxy:3128"
    assert hiding.text("https://h/file?sig=abc&x") == "https://h/file"
    assert hiding.all({"a": ["p@ss-word", 3, None]}) == {"a": ["<hidden>", 3, None]}
