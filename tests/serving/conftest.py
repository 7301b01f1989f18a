from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.serving.play import Stage, wait_gone

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    """A stage on which nothing may be left running."""
    for name in [*filter(lambda name: name.startswith("LLAMA_"), os.environ), "GGML_FAKE"]:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GGML_FAKE", "{}")
    stage = Stage(tmp_path)
    yield stage
    for server in stage.servers:
        server.stop()
        wait_gone(server.pid)
        assert not server._keeper.is_alive(), "the thread ends with its server"
