"""Small GGUF files, written with the gguf package."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np


def write(path: Path, *, shards: int = 0, index: int = 0, vocabulary: int = 3) -> Path:
    """Write a small sound file with the gguf package."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_context_length(512)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q4_K_M)
    writer.add_token_list([f"token{i}" for i in range(vocabulary)])
    writer.add_token_scores([0.0] * vocabulary)
    writer.add_chat_template("{{ messages }}")
    if shards:
        writer.add_uint16("split.no", index)
        writer.add_uint16("split.count", shards)
    writer.add_tensor("a", np.zeros((4, 32), dtype=np.float32))
    writer.add_tensor("b", np.zeros((3, 64), dtype=np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def split(file: Path, target: Path, tensors: int = 10) -> list[Path]:
    """Write a model of 16-bit tensors again, in several files as llama-gguf-split does."""
    reader = gguf.GGUFReader(file)
    writer = gguf.GGUFWriter(target, "llama", split_max_tensors=tensors)
    for name, field in reader.fields.items():
        if not name.startswith(("GGUF.", "general.architecture")):
            element = field.types[1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(name, field.contents(), field.types[0], element)
    for tensor in reader.tensors:
        kind = gguf.GGMLQuantizationType(tensor.tensor_type)
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return sorted(target.parent.glob(f"{target.stem}-*.gguf"))
