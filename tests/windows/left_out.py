"""Plugin of pytest for Windows' Python: skips the tests that cannot run there, each with its reason.

``left_out.txt`` names files and tests: a line has the beginning of a test's id and, after two spaces, the reason. A
whole file is not imported. What a test itself asks of the system and does not get is found when it runs: a symbolic
link, which Windows refuses to most users, and functions of Python that only POSIX has. A package that asks for them
fails the test.
"""

from __future__ import annotations

import traceback
from collections.abc import Generator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
NO_PRIVILEGE = 1314
"""The error of Windows for a symbolic link of a user who is no administrator."""


def left_out() -> dict[str, str]:
    """Return the reasons by the beginning of a test's id."""
    lines = Path(__file__).with_suffix(".txt").read_text(encoding="utf-8").splitlines()
    pairs = (line.split("  ", 1) for line in lines if line and not line.startswith("#"))
    return {name: reason.strip() for name, reason in pairs}


def is_named(nodeid: str, name: str) -> bool:
    """Whether a name of ``left_out.txt`` is that of a test, with any parameters, or of its file."""
    return nodeid == name or nodeid.startswith((f"{name}[", f"{name}::"))


def lacking(error: Exception) -> str | None:
    """Return what a test asked of the system that Windows has not; None for any other error."""
    module = str(getattr(getattr(error, "obj", None), "__name__", ""))
    if isinstance(error, OSError) and getattr(error, "winerror", None) == NO_PRIVILEGE:
        missing = "a symbolic link"
    elif isinstance(error, AttributeError) and module in ("os", "signal", "socket"):
        missing = f"{module}.{error.name}"
    else:
        return None
    files = [Path(frame.filename) for frame in traceback.extract_tb(error.__traceback__)]
    ours = [path.relative_to(REPOSITORY).parts[0] for path in files if path.is_relative_to(REPOSITORY)]
    return missing if ours[-1:] == ["tests"] else None


def pytest_report_header() -> str:
    """Say where the reasons for whole files are; skipped tests show theirs."""
    return f"left out: {len(left_out())} files and tests, with reasons in tests/windows/left_out.txt"


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Leave out whole files and directories."""
    if not collection_path.is_relative_to(REPOSITORY):
        return None
    return True if collection_path.relative_to(REPOSITORY).as_posix() in left_out() else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip single tests."""
    reasons = left_out()
    for item in items:
        for name, reason in reasons.items():
            if is_named(item.nodeid, name):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup() -> Generator[None, object, object]:
    """Skip a test whose fixtures ask for what Windows has not."""
    return (yield from _skip_if_lacking())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None, object, object]:
    """Skip a test that asks for what Windows has not."""
    return (yield from _skip_if_lacking())


def _skip_if_lacking() -> Generator[None, object, object]:
    try:
        return (yield)
    except (OSError, AttributeError) as error:
        if missing := lacking(error):
            pytest.skip(f"asks for {missing}, which Windows has not")
        raise
