"""How many processors this process may use, whatever the machine has."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from llama_runner.system import hardware


def cgroup(tmp_path: Path, lines: str, files: dict[str, str]) -> float | None:
    (tmp_path / "cgroup").write_text(lines)
    for name, text in files.items():
        (tmp_path / "fs" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "fs" / name).write_text(text)
    return hardware.cgroup_quota(tmp_path / "fs", tmp_path / "cgroup")


def test_a_quota_of_the_unified_hierarchy_counts(tmp_path: Path) -> None:
    assert cgroup(tmp_path, "0::/a/b\n", {"a/b/cpu.max": "150000 100000\n"}) == 1.5


def test_the_tightest_quota_on_the_way_up_counts(tmp_path: Path) -> None:
    files = {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "200000 100000\n", "cpu.max": "800000 100000\n"}
    assert cgroup(tmp_path, "0::/a/b\n", files) == 2


def test_no_quota_is_no_limit(tmp_path: Path) -> None:
    assert cgroup(tmp_path, "0::/\n", {"cpu.max": "max 100000\n"}) is None
    assert cgroup(tmp_path, "0::/\n", {}) is None


def test_the_older_hierarchy_is_understood(tmp_path: Path) -> None:
    files = {"cpu/a/cpu.cfs_quota_us": "300000\n", "cpu/a/cpu.cfs_period_us": "100000\n"}
    assert cgroup(tmp_path, "4:memory:/x\n1:cpu,cpuacct:/a\n", files) == 3
    files = {"cpu/a/cpu.cfs_quota_us": "-1\n", "cpu/a/cpu.cfs_period_us": "100000\n"}
    assert cgroup(tmp_path, "1:cpu:/a\n", files) is None


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs affinity")
def test_affinity_is_respected() -> None:
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert hardware.physical_cores() == hardware.logical_processors() == 1
    finally:
        os.sched_setaffinity(0, allowed)
    assert 1 <= hardware.physical_cores() <= len(allowed)


def test_a_fraction_of_a_processor_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "cgroup_quota", lambda: 0.25)
    assert hardware.physical_cores() == 1


def memory(tmp_path: Path, lines: str, files: dict[str, str], meminfo: str = "MemTotal:  1000 kB\n") -> int:
    (tmp_path / "meminfo").write_text(meminfo)
    (tmp_path / "cgroup").write_text(lines)
    for name, text in files.items():
        (tmp_path / "fs" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "fs" / name).write_text(text)
    return hardware.total_memory(tmp_path / "meminfo", tmp_path / "fs", tmp_path / "cgroup")


def test_without_a_limit_all_memory_of_the_machine_counts(tmp_path: Path) -> None:
    assert memory(tmp_path, "0::/\n", {}, "MemFree: 1 kB\nMemTotal:       16326428 kB\n") == 16326428 * 1024
    assert memory(tmp_path, "0::/a\n", {"a/memory.max": "max\n"}) == 1000 * 1024


def test_the_tightest_memory_limit_on_the_way_up_counts(tmp_path: Path) -> None:
    files = {"a/b/memory.max": "max\n", "a/memory.max": "500000\n", "memory.max": "700000\n"}
    assert memory(tmp_path, "0::/a/b\n", files) == 500000


def test_a_memory_limit_of_the_older_hierarchy_counts(tmp_path: Path) -> None:
    files = {"memory/a/memory.limit_in_bytes": "300000\n", "memory/memory.limit_in_bytes": "9223372036854771712\n"}
    assert memory(tmp_path, "4:memory:/a\n1:cpu,cpuacct:/x\n0::/\n", files) == 300000


def test_a_limit_beyond_what_the_machine_has_is_none(tmp_path: Path) -> None:
    assert memory(tmp_path, "0::/a\n", {"a/memory.max": "9223372036854771712\n"}) == 1000 * 1024


def test_memory_is_known_where_the_system_has_no_such_files(tmp_path: Path) -> None:
    absent = tmp_path / "absent"
    assert hardware.total_memory(absent, absent, absent) > 1 << 20


MEMINFO = "MemTotal:  1000 kB\nMemAvailable:   600 kB\n"


def left(tmp_path: Path, lines: str, files: dict[str, str], meminfo: str = MEMINFO) -> int:
    memory(tmp_path, lines, files, meminfo)
    return hardware.available_memory(tmp_path / "meminfo", tmp_path / "fs", tmp_path / "cgroup")


def test_without_a_limit_what_the_machine_has_left_is_available(tmp_path: Path) -> None:
    assert left(tmp_path, "0::/\n", {}) == 600 * 1024
    assert left(tmp_path, "0::/a\n", {"a/memory.max": "max\n", "a/memory.current": "5\n"}) == 600 * 1024


def test_what_a_cgroup_has_left_is_available_and_idle_pages_of_files_count_as_left(tmp_path: Path) -> None:
    files = {"a/memory.max": "500000\n", "a/memory.current": "400000\n"}
    assert left(tmp_path, "0::/a\n", files | {"a/memory.stat": "anon 300000\ninactive_file 70000\n"}) == 170000


def test_what_a_cgroup_of_the_older_hierarchy_has_left_is_available(tmp_path: Path) -> None:
    files = {"memory/memory.limit_in_bytes": "300000\n", "memory/memory.usage_in_bytes": "290000\n"}
    stat = {"memory/memory.stat": "inactive_file 1\ntotal_inactive_file 5000\n"}
    assert left(tmp_path, "4:memory:/\n0::/\n", files | stat) == 15000
    assert (
        left(tmp_path, "4:memory:/\n0::/\n", files | {"memory/memory.limit_in_bytes": "9223372036854771712\n"}) > 15000
    )


def test_available_memory_is_known_where_the_system_has_no_such_files(tmp_path: Path) -> None:
    absent = tmp_path / "absent"
    assert 1 << 20 < hardware.available_memory(absent, absent, absent) <= hardware.total_memory(absent, absent, absent)


def test_the_platform_is_named_as_in_the_documentation() -> None:
    system, _, architecture = hardware.platform_tag().partition("-")
    assert system in {"linux", "macos", "windows"}
    assert architecture


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="Linux")
def test_processor_features_are_sorted_and_many() -> None:
    features = hardware.cpu_features()
    assert list(features) == sorted(features)
    assert len(features) > 5
