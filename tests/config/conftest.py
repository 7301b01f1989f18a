"""What the tests of the configuration file share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.config.files import Write, write_in


@pytest.fixture
def root(tmp_path: Path, binaries: Path) -> Path:
    """Return a root of its own with the programs that are built, and none that other tests adopt."""
    path = tmp_path / "a röot"
    for build in (binaries / "bins").glob("*/cpu*-b[0-9]*"):
        link = path / "bins" / build.parent.name / build.name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(build)
    return path


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Return a function that writes a configuration file."""
    return write_in(tmp_path / "project")
