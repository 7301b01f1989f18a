"""A hub for a test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakehub.hub import Hub


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    """Return a hub that is gone after the test."""
    with Hub(tmp_path / "hub") as running:
        yield running
