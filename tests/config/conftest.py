"""What the tests of the configuration file share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.config.files import Write, write_in


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Return a function that writes a configuration file."""
    return write_in(tmp_path / "project")
