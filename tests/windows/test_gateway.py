"""``up`` with two models: the gateway answers for both, ``reload`` and ``down`` reach it by events."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from llama_runner.demo import ANSWER
from llama_runner.system.platforms import IS_WINDOWS
from tests.windows.commands import call, sentence, servers

pytestmark = pytest.mark.skipif(not IS_WINDOWS, reason="scripts/test_windows.sh runs it with Windows' Python")

CONFIG = """
[gateway]
listen = ["127.0.0.1:0"]

[defaults]
ctx_size = 512

[models.small]
source = "demo"

[models.large]
source = "demo"
quantization = "q8_0"
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "llama-runner.toml"
    path.write_text(CONFIG)
    return path


@pytest.fixture
def gateway(config: Path, root: Path) -> Iterator[dict[str, Any]]:
    """Start a gateway in the background; both models are prepared."""
    started = call("up", "--detach", "--json", "--config", config, "--root", root)
    yield json.loads(started.stdout.splitlines()[-1])
    if servers(root):
        call("down", "--config", config, "--root", root)


def models(url: str) -> set[str]:
    """Return the names that the gateway serves."""
    with urllib.request.urlopen(f"{url}/v1/models", timeout=200) as answer:
        return {each["id"] for each in json.load(answer)["data"]}


def test_19_02_the_gateway_answers_for_two_models_and_takes_reload_and_down(
    gateway: dict[str, Any], config: Path, root: Path
) -> None:
    url = gateway["url"]
    assert [sentence(url, name) for name in ("small", "large")] == [ANSWER, ANSWER]
    loaded = [psutil.Process(each["pid"]) for each in servers(root)]
    assert len(loaded) == 3
    config.write_text(f'{CONFIG}\n[models.third]\nsource = "demo"\n')
    call("reload", "--config", config, "--root", root)
    assert "third" in models(url)
    assert sentence(url, "third") == ANSWER
    call("down", "--config", config, "--root", root)
    assert psutil.wait_procs(loaded, 60)[1] == []
    assert servers(root) == []
