"""Plugin of pytest for Windows' Python: skips the tests that ``left_out.txt`` names, each with its reason.

A line has the beginning of a test's id and, after two spaces, the reason. A whole file is not imported.
"""

from __future__ import annotations

from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


def left_out() -> dict[str, str]:
    """Return the reasons by the beginning of a test's id."""
    lines = Path(__file__).with_suffix(".txt").read_text(encoding="utf-8").splitlines()
    pairs = (line.split("  ", 1) for line in lines if line and not line.startswith("#"))
    return {name: reason.strip() for name, reason in pairs}


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Leave out whole files."""
    if not collection_path.is_relative_to(REPOSITORY):
        return None
    return True if collection_path.relative_to(REPOSITORY).as_posix() in left_out() else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip single tests."""
    reasons = left_out()
    for item in items:
        for name, reason in reasons.items():
            if item.nodeid == name or item.nodeid.startswith(f"{name}["):
                item.add_marker(pytest.mark.skip(reason=reason))
