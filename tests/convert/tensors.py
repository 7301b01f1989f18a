"""Tensors for checkpoints that a test spoils, and the values that a conversion makes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np

from llama_runner.convert import convert


def entry(dtype: str, shape: tuple[int, ...], data: bytes | None = None) -> tuple[str, tuple[int, ...], bytes]:
    size = {"F32": 4, "I32": 4, "BF16": 2, "F16": 2, "I64": 8}.get(dtype, 1)
    return dtype, shape, bytes(size * int(np.prod(shape, dtype=int))) if data is None else data


def values_of(directory: Path, tmp_path: Path, wanted: str = "blk.0.ffn_up.weight") -> Any:
    convert(directory, tmp_path / f"{directory.name}.gguf", name="model", outtype="f32")
    reader = gguf.GGUFReader(tmp_path / f"{directory.name}.gguf")
    return next(tensor.data for tensor in reader.tensors if tensor.name == wanted)
