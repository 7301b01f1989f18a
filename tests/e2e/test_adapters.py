"""LoRA adapters and the real llama-server."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from gguf import GGUFReader, GGUFWriter

from llama_runner import Runner
from tests.conftest import Command
from tests.e2e.serving import request


def write_adapter(path: Path, model: Path, seed: int) -> Path:
    """Write a LoRA adapter of rank 2 for one matrix of a model."""
    base = GGUFReader(model)
    columns, rows = next(map(int, t.shape) for t in base.tensors if t.name == "blk.0.attn_q.weight")
    numbers = np.random.RandomState(seed).standard_normal
    writer = GGUFWriter(path, bytes(base.fields["general.architecture"].parts[-1]).decode())
    writer.add_string("general.type", "adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", 4.0)
    writer.add_tensor("blk.0.attn_q.weight.lora_a", numbers((2, columns)).astype("f4"))
    writer.add_tensor("blk.0.attn_q.weight.lora_b", numbers((rows, 2)).astype("f4"))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


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
