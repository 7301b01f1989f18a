"""StableLM: partly rotated heads, layer norms, and head norms in the largest model.

Follows ``StableLMModel`` of llama.cpp's conversion/stablelm.py; a vocabulary without tokenizer.json is refused. The
norms of single heads are stacked as meant there, where the official script loses them and gives up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_runner.convert import hyperparameters
from llama_runner.convert.families import decoder_parts
from llama_runner.convert.families.family_definition import Family, Rule

if TYPE_CHECKING:
    from llama_runner.convert.gguf_metadata import KeyValues
    from llama_runner.convert.model_config import Config
    from llama_runner.convert.model_directory import ModelDirectory

DEFAULTS: dict[str, Any] = {
    "vocab_size": 50304,
    "max_position_embeddings": 4096,
    "hidden_size": 2560,
    "intermediate_size": 6912,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "layer_norm_eps": 1e-5,
    "rope_theta": 10000,
    "rope_scaling": None,
    "qk_layernorm": False,
    "use_parallel_residual": False,
    "partial_rotary_factor": 0.25,
    "tie_word_embeddings": False,
}


def with_head_norms(config: Config, block: int) -> bool:
    """Return whether each head has a norm."""
    del block
    return bool(config.find("qk_layernorm"))


RULES = (
    Rule("token_embd", ("vocabulary", "width")),
    Rule("output_norm", ("width",), needs_bias=True),
    Rule("output", ("vocabulary", "width"), optional=True),
    Rule("blk.{bid}.attn_norm", ("width",), needs_bias=True),
    *decoder_parts.ATTENTION[1:],
    Rule("blk.{bid}.attn_q_norm", ("heads", "head"), where=with_head_norms),
    Rule("blk.{bid}.attn_k_norm", ("kv_heads", "head"), where=with_head_norms),
    Rule("blk.{bid}.ffn_norm", ("width",), bias=True, optional=True),
    *decoder_parts.FEED_FORWARD[1:],
)
TARGETS = {
    "model.layers.{bid}.self_attn.q_layernorm.norms": ("blk.{bid}.attn_q_norm",),
    "model.layers.{bid}.self_attn.k_layernorm.norms": ("blk.{bid}.attn_k_norm",),
}
EPSILON: tuple[hyperparameters.Row, ...] = (
    ("attention.layer_norm_epsilon", "float32", ("layer_norm_eps", "norm_eps")),
)


def write_hyperparameters(values: KeyValues, config: Config, source: ModelDirectory, file_type: int) -> None:
    """Write StableLM's hyperparameters."""
    del source
    width, heads = config.integer("hidden_size"), config.integer("num_attention_heads")
    parallel = config.find("use_parallel_residual") if "use_parallel_residual" in config.values else True
    values.uint32("{arch}.context_length", config.integer("max_position_embeddings"))
    values.uint32("{arch}.embedding_length", width)
    values.uint32("{arch}.block_count", config.integer(*decoder_parts.BLOCKS))
    values.uint32("{arch}.feed_forward_length", config.integer("intermediate_size"))
    values.uint32("{arch}.rope.dimension_count", int(decoder_parts.rotary_share(config) * (width // heads)))
    values.uint32("{arch}.attention.head_count", heads)
    values.uint32("{arch}.attention.head_count_kv", config.integer("num_key_value_heads"))
    values.boolean("{arch}.use_parallel_residual", parallel)
    hyperparameters.rows(values, config, EPSILON)
    values.uint32("general.file_type", file_type)


FAMILY = Family(
    name="stablelm",
    defaults={"stablelm": DEFAULTS, "stablelm_epoch": {}},
    validated_rope=frozenset({"stablelm"}),
    rules=RULES,
    dimensions=decoder_parts.dimensions,
    rename=decoder_parts.rename,
    hyperparameters=write_hyperparameters,
    vocabulary=decoder_parts.byte_level,
    targets=TARGETS,
    stacks=(("blk.{bid}.attn_q_norm",), ("blk.{bid}.attn_k_norm",)),
)
