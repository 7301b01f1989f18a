"""Memory of GPUs that a server holds: what nvidia-smi and the kernel tell, for as long as one is willing to wait."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import psutil
import pytest

from llama_runner.cli import text_output
from llama_runner.serving.status_probe import look_at_all
from llama_runner.system import gpu_memory
from llama_runner.system.find_programs import find_program
from llama_runner.system.gpu_memory import gpu_memory_of
from tests.serving.play import Stage, until

if TYPE_CHECKING:
    from pathlib import Path

GIB = 1 << 30


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "programs"
    path.mkdir()
    monkeypatch.setenv("PATH", f"{path}{os.pathsep}{os.environ['PATH']}")
    return path


def nvidia_smi(programs: Path, script: str) -> None:
    (programs / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n")
    (programs / "nvidia-smi").chmod(0o755)


def words(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def client(pid: Path, name: str, *lines: str) -> None:
    (pid / "fdinfo").mkdir(parents=True, exist_ok=True)
    (pid / "fdinfo" / name).write_text("pos:\t0\nflags:\t02100002\n" + "".join(f"{line}\n" for line in lines))


def test_a_server_is_shown_with_what_it_holds_on_each_gpu(stage: Stage, programs: Path) -> None:
    server, other = stage.ready(alias="a"), stage.ready(alias="b")
    asked = programs / "asked"
    lines = (
        f"{server.pid}, 00000000:01:00.0, 2048\n{server.pid}, 00000000:C1:00.0, 512\n"
        f"{server.pid}, 00000000:C1:00.0, 512\n{other.pid}, 00000000:01:00.0, [N/A]\n1, 00000000:01:00.0, 9"
    )
    nvidia_smi(programs, f"echo \"$@\" >> {asked}\ncat <<'END'\n{lines}\nEND")
    first, second = look_at_all(stage.registry)
    assert first["vram"] == {"0000:01:00.0": 2 * GIB, "0000:c1:00.0": GIB}
    assert second["vram"] is None, "it is not known"
    words = "--query-compute-apps=pid,gpu_bus_id,used_memory --format=csv,noheader,nounits\n"
    assert asked.read_text() == words, "once, for all servers"
    assert "VRAM 2.0 GiB on 0000:01:00.0 + 1.0 GiB on 0000:c1:00.0" in text_output.running(first)
    assert "VRAM" not in text_output.running(second)


@pytest.mark.parametrize("script", ["exit 9", "echo 'No devices were found'", "echo 1,2; echo '-1, x, y'; echo ,,,"])
def test_an_nvidia_smi_without_answers_is_ignored(programs: Path, script: str) -> None:
    nvidia_smi(programs, script)
    assert gpu_memory_of([1, 2]) == {}


def test_an_nvidia_smi_that_hangs_is_killed(programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hang").symlink_to(find_program("sleep") or "")
    nvidia_smi(programs, f"{tmp_path}/hang 3600 & wait")
    monkeypatch.setattr(gpu_memory, "TIMEOUT_S", 0.3)
    assert gpu_memory_of([1]) == {}
    until(lambda: not [each for each in psutil.process_iter() if str(tmp_path) in words(each)], "its end")


def test_an_nvidia_smi_that_cannot_be_started_is_ignored(programs: Path) -> None:
    (programs / "nvidia-smi").write_bytes(b"\x7fELF")
    (programs / "nvidia-smi").chmod(0o755)
    assert gpu_memory_of([1]) == {}


def test_nothing_is_asked_where_no_server_runs(programs: Path, tmp_path: Path) -> None:
    nvidia_smi(programs, f"touch {tmp_path / 'asked'}")
    assert gpu_memory_of([]) == {}
    assert not (tmp_path / "asked").exists()


def test_the_kernel_tells_of_amd(tmp_path: Path, programs: Path) -> None:
    nvidia_smi(programs, "exit 1")
    pid = tmp_path / "17"
    first = ("drm-driver:\tamdgpu", "drm-client-id:\t5", "drm-pdev:\t0000:03:00.0")
    client(pid, "3", *first, "drm-memory-vram:\t1048576 KiB", "drm-memory-gtt:\t9 KiB")
    client(pid, "4", *first, "drm-memory-vram:\t1048576 KiB")
    newer = ("drm-total-vram:\t99 GiB", "drm-resident-vram:\t2 GiB")
    client(pid, "5", "drm-client-id:\t6", "drm-pdev:\t0000:03:00.0", *newer)
    client(pid, "6", "drm-client-id:\t7", "drm-pdev:\t0000:04:00.0", "drm-resident-vram0:\t1024 MiB")
    client(pid, "7", "drm-client-id:\t8", "drm-pdev:\t0000:05:00.0", "drm-memory-vram:\t0")
    client(pid, "8", "drm-client-id:\tnone", "drm-memory-vram:\tmuch PiB")
    (pid / "fdinfo" / "9").write_bytes(b"\xff\xfe")
    client(tmp_path / "18", "0")
    assert gpu_memory_of([17, 18, 19], tmp_path) == {17: {"0000:03:00.0": 3 * GIB, "0000:04:00.0": GIB}}
