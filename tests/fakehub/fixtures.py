"""A hub for a test, and a user of it."""

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


@pytest.fixture
def user_of_the_hub(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the hub on loopback the Hub, for this process and its children, of a user who has nothing of it yet."""
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf home"))
