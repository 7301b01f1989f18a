"""GPT-2: learned positions, fused attention, transposed matrices.

Follows ``GPT2Model`` of llama.cpp's conversion/gpt2.py, but leaves out the masks that the oldest checkpoints carry,
where the official script gives up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_runner.convert.families import decoder_parts
from llama_runner.convert.families.family_definition import Family, Rule

if TYPE_CHECKING:
    from llama_runner.convert.gguf_metadata import KeyValues
    from llama_runner.convert.model_config import Config
    from llama_runner.convert.model_directory import ModelDirectory

DEFAULTS: dict[str, Any] = {
    "vocab_size": 50257,
    "n_positions": 1024,
    "n_embd": 768,
    "n_layer": 12,
    "n_head": 12,
    "layer_norm_epsilon": 1e-5,
    "tie_word_embeddings": True,
}
RULES = (
    Rule("token_embd", ("vocabulary", "width")),
    Rule("position_embd", ("positions", "width")),
    Rule("output_norm", ("width",), needs_bias=True),
    Rule("output", ("vocabulary", "width"), optional=True),
    Rule("blk.{bid}.attn_norm", ("width",), needs_bias=True),
    Rule("blk.{bid}.attn_qkv", ("fused", "width"), needs_bias=True, transposed=True),
    Rule("blk.{bid}.attn_output", ("width", "width"), needs_bias=True, transposed=True),
    Rule("blk.{bid}.ffn_norm", ("width",), needs_bias=True),
    Rule("blk.{bid}.ffn_up", ("inner", "width"), needs_bias=True, transposed=True),
    Rule("blk.{bid}.ffn_down", ("width", "inner"), needs_bias=True, transposed=True),
)
MASKS = (".attn.bias", ".attn.masked_bias")


def dimensions(config: Config) -> dict[str, int]:
    """Return the sizes that the shapes of the rules name."""
    width = config.integer("n_embd")
    return {
        "blocks": config.integer("n_layer"),
        "vocabulary": config.integer("vocab_size"),
        "positions": config.integer("n_positions"),
        "width": width,
        "fused": 3 * width,
        "inner": 4 * width,
    }


def rename(name: str, config: Config) -> str | None:
    """Drop the masks."""
    return None if name.endswith(MASKS) else decoder_parts.rename(name, config)


def write_hyperparameters(values: KeyValues, config: Config, source: ModelDirectory, file_type: int) -> None:
    """Write GPT-2's hyperparameters."""
    del source
    width = config.integer("n_embd")
    values.uint32("{arch}.block_count", config.integer("n_layer"))
    values.uint32("{arch}.context_length", config.integer("n_ctx"))
    values.uint32("{arch}.embedding_length", width)
    values.uint32("{arch}.feed_forward_length", 4 * width)
    values.uint32("{arch}.attention.head_count", config.integer("n_head"))
    values.float32("{arch}.attention.layer_norm_epsilon", config.number("layer_norm_epsilon"))
    values.uint32("general.file_type", file_type)


FAMILY = Family(
    name="gpt2",
    defaults={"gpt2": DEFAULTS},
    rules=RULES,
    dimensions=dimensions,
    rename=rename,
    hyperparameters=write_hyperparameters,
    vocabulary=decoder_parts.byte_level,
)
