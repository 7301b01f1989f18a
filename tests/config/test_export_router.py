"""llama.cpp's own router reads the preset files that `config export --to ini` writes."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import threading
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from llama_runner.config.export_file import export_config
from tests.config.exports import config_with, specs_of


def _answer(url: str, body: object = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as reply:
        return json.load(reply)


@pytest.fixture
def model(binaries: Path, tmp_path: Path) -> Path:
    """Return the demo model, under a name with a space."""
    made = next(path for path in (binaries / "models" / "gguf").rglob("*.gguf") if "demo" in path.parent.name)
    return Path(shutil.copy(made, tmp_path / "demo model.gguf"))


def test_the_router_lists_the_models_by_their_names_and_serves_one(binaries: Path, model: Path, tmp_path: Path) -> None:
    (program,) = binaries.glob("bins/*/cpu-b*/llama-server")
    config = config_with(
        {
            "demo:8b": {
                "source": str(model),
                "ctx_size": 256,
                "threads": 1,
                "aliases": ["small"],
                "llama": {"parallel": 1, "mmap": False, "flash-attn": "off", "warmup": False},
                "sampling": {"temperature": 0.5, "seed": 1},
            },
            "M:Q4_K_M": {"source": str(model), "hidden": True, "template": {"enable_thinking": False}},
            "hash": {"source": "/m/a#b.gguf"},
            "ünïcode name": {"source": str(model)},
        },
        tmp_path,
    )
    found = export_config(config, specs_of(config), "ini")
    preset = tmp_path / "presets.ini"
    preset.write_text(found.text, encoding="utf-8")
    environment = {**os.environ, "XDG_CONFIG_HOME": os.devnull, "LLAMA_CACHE": str(tmp_path / "cache")}
    words = [program, "--models-preset", preset, "--port", "0", "--host", "127.0.0.1"]
    with subprocess.Popen([*map(str, words)], env=environment, stderr=subprocess.PIPE, text=True) as router:
        try:
            assert router.stderr is not None
            said = (re.search(r"listening on (http://\S+)", line) for line in router.stderr)
            base = next(match[1] for match in said if match)
            threading.Thread(target=router.stderr.read, daemon=True).start()  # what it says of its models
            listed = _answer(f"{base}/models")["data"]
            names = {each["id"]: each["aliases"] for each in listed}
            assert names == {"demo-8b": ["demo:8b", "small"], "M:Q4_K_M": [], "ünïcode name": []}
            asked = {"model": "demo:8b", "prompt": "a", "n_predict": 1}
            assert _answer(f"{base}/completion", asked)["tokens_predicted"] == 1
            loaded = {each["id"]: each["status"] for each in _answer(f"{base}/models")["data"]}["demo-8b"]
            assert loaded["value"] == "loaded"
            for words_of in (["--ctx-size", "256"], ["--no-mmap"], ["--flash-attn", "off"], ["--threads", "1"]):
                assert " ".join(words_of) in " ".join(loaded["args"])
        finally:
            router.terminate()
            router.wait(30)
