"""LoRA adapters for tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from gguf import GGUFReader, GGUFWriter


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
