"""Command R (Cohere 1 and 2): parallel attention and feed-forward network, tied embeddings.

Follows ``CommandR2Model`` and ``Cohere2Model`` of llama.cpp's conversion/command_r.py. Biases, which the official
script takes for Cohere 2 where they are all zero, are refused.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from llama_runner.convert import hyperparameters
from llama_runner.convert.families import decoder_parts
from llama_runner.convert.families.family_definition import Family, Rule

if TYPE_CHECKING:
    from llama_runner.convert.gguf_metadata import KeyValues
    from llama_runner.convert.model_config import Config
    from llama_runner.convert.model_directory import ModelDirectory

FIRST_DEFAULTS: dict[str, Any] = {
    "vocab_size": 256000,
    "max_position_embeddings": 8192,
    "hidden_size": 8192,
    "logit_scale": 0.0625,
    "intermediate_size": 22528,
    "num_hidden_layers": 40,
    "num_attention_heads": 64,
    "num_key_value_heads": None,
    "layer_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "rope_scaling": None,
    "use_qk_norm": False,
    "tie_word_embeddings": True,
}
SECOND_DEFAULTS = {**FIRST_DEFAULTS, "sliding_window": 4096}


def with_head_norms(config: Config, block: int) -> bool:
    """Return whether each head has a norm."""
    del block
    return bool(config.find("use_qk_norm"))


RULES = (
    Rule("token_embd", ("vocabulary", "width")),
    Rule("output_norm", ("width",)),
    *(replace(rule, bias=False) for rule in decoder_parts.ATTENTION),
    *(replace(rule, bias=False) for rule in decoder_parts.FEED_FORWARD[1:]),
)
HEAD_NORMS = (
    Rule("blk.{bid}.attn_q_norm", ("heads", "head"), where=with_head_norms),
    Rule("blk.{bid}.attn_k_norm", ("kv_heads", "head"), where=with_head_norms),
)


def derive_first(values: dict[str, Any], model_type: str) -> dict[str, Any]:
    """Fill in the number of key heads; a named longer context takes precedence."""
    decoder_parts.key_heads(values, model_type)
    if "model_max_length" in values:
        values["max_position_embeddings"] = values["model_max_length"]
    return values


def derive_second(values: dict[str, Any], model_type: str) -> dict[str, Any]:
    """Fill in the number of key heads and the head size."""
    decoder_parts.key_heads(values, model_type)
    width, heads = values["hidden_size"], values["num_attention_heads"]
    if type(width) is int and type(heads) is int and heads > 0:
        values["head_dim"] = width // heads
    return values


def write_first(values: KeyValues, config: Config, source: ModelDirectory, file_type: int) -> None:
    """Write Cohere 1's hyperparameters."""
    del source
    hyperparameters.write(values, config, file_type)
    values.float32("{arch}.logit_scale", config.number("logit_scale"))
    values.string("{arch}.rope.scaling.type", "none")


def write_second(values: KeyValues, config: Config, source: ModelDirectory, file_type: int) -> None:
    """Write Cohere 2's hyperparameters."""
    del source
    hyperparameters.write(values, config, file_type)
    values.float32("{arch}.logit_scale", config.number("logit_scale"))
    values.uint32("{arch}.attention.sliding_window", config.integer("sliding_window"))
    values.uint32("{arch}.vocab_size", config.integer("vocab_size"))
    size = config.integer("hidden_size") // config.integer("num_attention_heads")
    values.uint32("{arch}.rope.dimension_count", int(config.share("rotary_pct") * size))
    values.string("{arch}.rope.scaling.type", "none")


COHERE = Family(
    name="command-r",
    defaults={"cohere": FIRST_DEFAULTS},
    validated_rope=frozenset({"cohere"}),
    new_rope=frozenset({"cohere"}),
    derive=derive_first,
    rules=(*RULES, *HEAD_NORMS),
    dimensions=decoder_parts.dimensions,
    rename=decoder_parts.rename,
    hyperparameters=write_first,
    vocabulary=decoder_parts.byte_level,
)
COHERE2 = replace(
    COHERE,
    name="cohere2",
    defaults={"cohere2": SECOND_DEFAULTS},
    validated_rope=frozenset({"cohere2"}),
    new_rope=frozenset({"cohere2"}),
    derive=derive_second,
    rules=RULES,
    hyperparameters=write_second,
)
