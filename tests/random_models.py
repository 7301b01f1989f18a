"""Models with random weights and the demo model's tokenizer, of any size: what memory and speed depend on."""

from __future__ import annotations

import subprocess
from pathlib import Path

import gguf
import numpy as np
from filelock import FileLock

from tests.shared_root import shared_root


def random_model(root: Path, quantization: str = "f16") -> Path:
    """Return a model of 100 M random weights, which is kept between runs. ``root`` is that of the run."""
    directory = shared_root() / "random-models"
    directory.mkdir(exist_ok=True)
    plain, wanted = directory / "random-100m-f16.gguf", directory / f"random-100m-{quantization}.gguf"
    with FileLock(directory / "lock"):
        if not plain.exists():
            demo = next((root / "models" / "gguf").glob("local__demo__*/model.q4_k_m.gguf"))
            write_random_model(demo, plain.with_suffix(".part")).replace(plain)
        if not wanted.exists():
            program = next((root / "bins").glob("*/*/llama-quantize"))
            part = wanted.with_suffix(".part")
            subprocess.run([program, plain, part, quantization, "2"], check=True, capture_output=True)
            part.replace(wanted)
    return wanted


def write_random_model(
    demo: Path,
    target: Path,
    *,
    hidden: int = 768,
    layers: int = 12,
    heads: int = 12,
    kv_heads: int = 4,
    feed_forward: int = 2048,
    vocabulary: int = 8192,
    context: int = 32768,
) -> Path:
    """Write a Llama of 16-bit random weights. ``demo`` is the demo model as GGUF; its tokenizer gets more tokens."""
    reader = gguf.GGUFReader(demo)
    changed = {
        "llama.block_count": layers,
        "llama.context_length": context,
        "llama.embedding_length": hidden,
        "llama.feed_forward_length": feed_forward,
        "llama.attention.head_count": heads,
        "llama.attention.head_count_kv": kv_heads,
        "llama.attention.key_length": hidden // heads,
        "llama.attention.value_length": hidden // heads,
        "llama.rope.dimension_count": hidden // heads,
        "llama.vocab_size": vocabulary,
        "general.file_type": int(gguf.LlamaFileType.MOSTLY_F16),
    }
    writer = gguf.GGUFWriter(target, "llama")
    for name, field in reader.fields.items():
        if name.startswith(("GGUF.", "general.architecture")):
            continue
        value = changed.get(name, field.contents())
        if name == "tokenizer.ggml.tokens":
            value = [*value, *(f"<|{number}|>" for number in range(vocabulary - len(value)))]
        elif name == "tokenizer.ggml.token_type":
            value = [*value, *[int(gguf.TokenType.NORMAL)] * (vocabulary - len(value))]
        element = field.types[1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(name, value, field.types[0], element)
    key_width = kv_heads * (hidden // heads)
    shapes = {"token_embd": (vocabulary, hidden), "output_norm": (hidden,), "output": (vocabulary, hidden)}
    for layer in range(layers):
        block = {"attn_norm": (hidden,), "attn_q": (hidden, hidden), "attn_k": (key_width, hidden)}
        block |= {"attn_v": (key_width, hidden), "attn_output": (hidden, hidden), "ffn_norm": (hidden,)}
        block |= {"ffn_gate": (feed_forward, hidden), "ffn_up": (feed_forward, hidden)}
        block["ffn_down"] = (hidden, feed_forward)
        shapes |= {f"blk.{layer}.{name}": shape for name, shape in block.items()}
    kinds = {name: np.float32 if len(shape) == 1 else np.float16 for name, shape in shapes.items()}
    for name, shape in shapes.items():
        size = int(np.prod(shape)) * np.dtype(kinds[name]).itemsize
        writer.add_tensor_info(f"{name}.weight", shape, np.dtype(kinds[name]), size)
    random = np.random.default_rng(7)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for name, shape in shapes.items():
        weights = random.standard_normal(shape, dtype=np.float32) * (hidden**-0.5)
        writer.write_tensor_data((np.abs(weights) + 0.5 if len(shape) == 1 else weights).astype(kinds[name]))
    writer.close()
    return target
