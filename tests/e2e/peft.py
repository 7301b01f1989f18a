"""PEFT adapters of the demo model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from llama_runner.demo import MODEL_DIRECTORY


def write_peft(directory: Path, seed: int, *, rank: int = 4, base: str | None = "acme/demo", **settings: Any) -> Path:
    """Write a directory with an adapter of the queries and the output of attention that changes what the model says."""
    config = json.loads((MODEL_DIRECTORY / "config.json").read_text(encoding="utf-8"))
    width = config["hidden_size"]
    numbers = np.random.RandomState(seed).standard_normal
    tensors = {}
    for layer in range(config["num_hidden_layers"]):
        for module in ("q_proj", "o_proj"):
            name = f"base_model.model.model.layers.{layer}.self_attn.{module}"
            tensors[f"{name}.lora_A.weight"] = numbers((rank, width)).astype("f4")
            tensors[f"{name}.lora_B.weight"] = (numbers((width, rank)) / 4).astype("f4")
    directory.mkdir(parents=True, exist_ok=True)
    save_file(tensors, directory / "adapter_model.safetensors")
    found = {"peft_type": "LORA", "r": rank, "lora_alpha": 2 * rank, "base_model_name_or_path": base, **settings}
    (directory / "adapter_config.json").write_text(json.dumps(found), encoding="utf-8")
    return directory
