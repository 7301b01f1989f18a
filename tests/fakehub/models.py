"""GGUF files of any size, sound as far as their headers tell. Nothing could be computed with them."""

from __future__ import annotations

import random
from pathlib import Path

SEED = 7


def write_gguf(path: Path, size: int, *, seed: int = SEED) -> Path:
    """Write a model with one tensor of ``size`` random bytes; return its path."""
    import numpy as np
    from gguf import GGUFWriter

    writer = GGUFWriter(path, "llama")
    writer.add_context_length(512)
    data = np.frombuffer(random.Random(seed).randbytes(size), dtype=np.int8)
    writer.add_tensor("token_embd.weight", data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
