"""StarCoder (GPT-BigCode: GPT-2 with one key head) and StarCoder 2.

Follows ``StarCoderModel`` and ``StarCoder2Model`` of llama.cpp's conversion/starcoder.py. A GPT-BigCode with several
key heads is refused: llama.cpp reads one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_runner.convert.families import decoder_parts
from llama_runner.convert.families.family_definition import Family, Rule

if TYPE_CHECKING:
    from llama_runner.convert.gguf_metadata import KeyValues
    from llama_runner.convert.model_config import Config
    from llama_runner.convert.model_directory import ModelDirectory

FIRST_DEFAULTS: dict[str, Any] = {
    "vocab_size": 50257,
    "n_positions": 1024,
    "n_embd": 768,
    "n_layer": 12,
    "n_head": 12,
    "layer_norm_epsilon": 1e-5,
    "tie_word_embeddings": True,
}
SECOND_DEFAULTS: dict[str, Any] = {
    "vocab_size": 49152,
    "max_position_embeddings": 4096,
    "hidden_size": 3072,
    "intermediate_size": 12288,
    "num_hidden_layers": 30,
    "num_attention_heads": 24,
    "num_key_value_heads": 2,
    "norm_epsilon": 1e-5,
    "rope_theta": 10000.0,
    "rope_scaling": None,
    "tie_word_embeddings": True,
}
FIRST_RULES = (
    Rule("token_embd", ("vocabulary", "width")),
    Rule("position_embd", ("positions", "width")),
    Rule("output_norm", ("width",), needs_bias=True),
    Rule("output", ("vocabulary", "width"), optional=True),
    Rule("blk.{bid}.attn_norm", ("width",), needs_bias=True),
    Rule("blk.{bid}.attn_qkv", ("fused", "width"), needs_bias=True),
    Rule("blk.{bid}.attn_output", ("width", "width"), needs_bias=True),
    Rule("blk.{bid}.ffn_norm", ("width",), needs_bias=True),
    Rule("blk.{bid}.ffn_up", ("inner", "width"), needs_bias=True),
    Rule("blk.{bid}.ffn_down", ("width", "inner"), needs_bias=True),
)
SECOND_RULES = (
    Rule("token_embd", ("vocabulary", "width")),
    Rule("output_norm", ("width",), needs_bias=True),
    Rule("output", ("vocabulary", "width"), optional=True),
    Rule("blk.{bid}.attn_norm", ("width",), needs_bias=True),
    *decoder_parts.ATTENTION[1:],
    Rule("blk.{bid}.ffn_norm", ("width",), needs_bias=True),
    Rule("blk.{bid}.ffn_up", ("inner", "width"), needs_bias=True),
    Rule("blk.{bid}.ffn_down", ("width", "inner"), needs_bias=True),
)


def first_dimensions(config: Config) -> dict[str, int]:
    """Return the sizes of StarCoder that the shapes of the rules name."""
    width = config.integer("n_embd")
    return {
        "blocks": config.integer("n_layer"),
        "vocabulary": config.integer("vocab_size"),
        "positions": config.integer("n_positions"),
        "width": width,
        "fused": width + 2 * (width // config.integer("n_head")),
        "inner": 4 * width,
    }


def rename_first(name: str, config: Config) -> str | None:
    """Drop the masks."""
    return None if name.endswith(".attn.bias") else decoder_parts.rename(name, config)


def write_first(values: KeyValues, config: Config, source: ModelDirectory, file_type: int) -> None:
    """Write StarCoder's hyperparameters."""
    del source
    width = config.integer("n_embd")
    values.uint32("{arch}.context_length", config.integer("n_positions"))
    values.uint32("{arch}.embedding_length", width)
    values.uint32("{arch}.feed_forward_length", 4 * width)
    values.uint32("{arch}.block_count", config.integer("n_layer"))
    values.uint32("{arch}.attention.head_count", config.integer("n_head"))
    values.uint32("{arch}.attention.head_count_kv", 1)
    values.float32("{arch}.attention.layer_norm_epsilon", config.number("layer_norm_epsilon"))
    values.uint32("general.file_type", file_type)


STARCODER = Family(
    name="starcoder",
    defaults={"gpt_bigcode": FIRST_DEFAULTS},
    rules=FIRST_RULES,
    dimensions=first_dimensions,
    rename=rename_first,
    hyperparameters=write_first,
    vocabulary=decoder_parts.byte_level,
)
STARCODER2 = Family(
    name="starcoder2",
    defaults={"starcoder2": SECOND_DEFAULTS},
    validated_rope=frozenset({"starcoder2"}),
    rules=SECOND_RULES,
    dimensions=decoder_parts.dimensions,
    rename=decoder_parts.rename,
    hyperparameters=decoder_parts.write_text_model,
    vocabulary=decoder_parts.byte_level,
)
