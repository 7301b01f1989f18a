"""A model that is not there yet is made in a process of its own."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.gateway.conftest import Start

ONE = "[defaults]\nthreads = 1\n[models.one]\ndemo = true\n"


def without_models(tmp_path: Path, binaries: Path) -> None:
    """Make a root with the compiled programs, and with no model; the gateway of the test uses it."""
    for build in (binaries / "bins").glob("*/cpu-*"):
        target = tmp_path / "root" / "bins" / build.parent.name / build.name
        shutil.copytree(build, target, copy_function=os.link)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="only Linux says what a process has loaded")
def test_the_gateway_does_not_load_numpy_to_make_a_model(gateway: Start, tmp_path: Path, binaries: Path) -> None:
    without_models(tmp_path, binaries)
    running = gateway(ONE, PYTHONNODEBUGRANGES="1")  # in an interpreter of its own: a fork has what its parent loaded
    assert running.chat("one")[0] == 200
    assert list((tmp_path / "root" / "models").rglob("*.gguf"))
    assert "numpy" not in Path(f"/proc/{running.process.pid}/maps").read_text(encoding="utf-8")


def test_why_a_model_cannot_be_made_is_told(gateway: Start, tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text('{"architectures": ["Nothing"]}', encoding="utf-8")
    running = gateway(f'[models.one]\nsource = "{model}"\n')
    status, told = running.chat("one")
    assert status == 500
    assert told["error"]["code"] == "load_failed"
    assert "unsupported architecture: Nothing" in told["error"]["message"]
    assert running.metric("load_failures_total") == 1, "a mistake of the configuration is not tried again"
