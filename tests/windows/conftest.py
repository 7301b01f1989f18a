"""What the tests with the real Windows programs share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.shared_root import shared_root
from tests.windows.commands import call


@pytest.fixture(scope="session")
def root() -> Path:
    """Return a root that keeps the programs; what is made of the demo model is made by this run."""
    path = shared_root() / "a röot"
    call("prepare", "--demo", "--root", path)
    return path
