"""LoRA adapters and the real llama-server."""

from __future__ import annotations

import re
from pathlib import Path

from llama_runner import Runner
from tests.conftest import Command
from tests.e2e.lora import write_adapter
from tests.e2e.serving import request


def test_11_06_several_adapters_are_served_in_the_background_whatever_they_are_called(
    llama_runner: Command, root: Path, tmp_path: Path
) -> None:
    model = Runner(root).prepare(demo=True).model
    names = ("a.gguf", "b,c.gguf", '"d" e.gguf')
    adapters = [write_adapter(tmp_path / name, model, seed) for seed, name in enumerate(names)]
    words = [word for adapter in adapters for word in ("--lora", adapter)]
    started = llama_runner("run", "--demo", "--port", "0", "--detach", *words, "--root", root)
    try:
        assert started.code == 0, started
        url = re.search(r"^listening (\S+)", started.out, re.MULTILINE)[1]  # type: ignore[index]
        listed = request(url, "/lora-adapters")[1]
        assert [(each["path"], each["scale"]) for each in listed] == [(str(path), 1.0) for path in adapters]
        log = llama_runner("logs", "--root", root).out
        assert "DEPRECATED" not in log
    finally:
        llama_runner("stop", "--all", "--root", root)
