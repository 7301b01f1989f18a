"""What the tests of llama.cpp's programs share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.llama_cpp.stored import HERE
from tests.llama_cpp.tiny_llama import Bench


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """Return a root to execute steps in, with a space and an umlaut in its path."""
    return Bench(tmp_path / "a root with ü")


@pytest.fixture(scope="session")
def programs(binaries: Path) -> Path:
    """Return a directory with the real programs."""
    found = [path.parent for path in binaries.glob(f"bins/{HERE}/*/llama-server")]
    return max((path for path in found if (path / "llama-quantize").exists()), key=lambda path: path.stat().st_mtime)
