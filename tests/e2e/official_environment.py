"""Fixtures: the environment of llama.cpp's own converter, and roots that have it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from llama_runner.core.exit_codes import ExitCode
from llama_runner.system.hardware import platform_tag
from tests.conftest import MODULE, shared_root


@pytest.fixture(scope="module")
def environment() -> Path:
    """Return the environment of the official converter, where one was made: see scripts/reference_env.py."""
    found = sorted((shared_root() / "vendor").glob(f"converter-cpython-*-{platform_tag()}"))
    made = [path for path in found if (path / "bin" / "python").exists()]
    if not made:
        pytest.skip("there is no environment of the official converter")
    return made[-1]


@pytest.fixture(scope="module")
def vendor(environment: Path, binaries: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with the converter's tree, unpacked by what is tested here, and its environment."""
    root = tmp_path_factory.mktemp("official")
    shutil.copytree(
        binaries / "vendor", root / "vendor", copy_function=os.link, ignore=shutil.ignore_patterns("converter-*")
    )
    (root / "vendor" / environment.name).symlink_to(environment)
    words = ("convert", "--demo", "--converter", "official", "--root", root)
    done = subprocess.run([*MODULE, *words], check=False, capture_output=True, text=True)
    if done.returncode == ExitCode.TOOL and "no CPU build of torch" in done.stderr:
        pytest.skip("the environment is one of an earlier version, and cannot be made anew here")
    assert done.returncode == 0, done.stderr
    return root / "vendor"


@pytest.fixture
def root(root: Path, environment: Path, vendor: Path) -> Path:
    """Return a root that also has the converter's tree, as hard links, and its environment."""
    shutil.copytree(vendor, root / "vendor", copy_function=os.link, ignore=shutil.ignore_patterns("converter-*"))
    (root / "vendor" / environment.name).symlink_to((vendor / environment.name).resolve())
    return root
