"""Packages of npm that tests of the page use, fetched once for all runs."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from filelock import FileLock

from tests.conftest import shared_root


def node_modules(name: str, *packages: str) -> Path:
    """Return a directory with packages; skip the test where npm cannot fetch them."""
    directory = shared_root() / f"npm-{name}"
    with FileLock(f"{directory}.lock"):
        if not directory.is_dir():
            part = directory.with_name(f"{directory.name}.part")  # what is killed leaves no half of a package
            shutil.rmtree(part, ignore_errors=True)
            once = ["--no-audit", "--no-fund", "--fetch-retries", "0", "--fetch-timeout", "30000"]
            command = ["npm", "install", "--prefix", str(part), *once, *packages]
            try:
                done = shutil.which("npm") and subprocess.run(command, check=False, capture_output=True, timeout=180)
            except subprocess.TimeoutExpired:
                done = None
            if not done or done.returncode:
                pytest.skip(f"npm cannot fetch {packages[0]}")
            part.replace(directory)
    return directory / "node_modules"
