"""Granite and SmolLM3: Llama with multipliers, and Granite's fused experts.

Follows ``GraniteModel`` and ``GraniteMoeModel`` of llama.cpp's conversion/granite.py, ``SmolLM3Model`` of llama.py.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from llama_runner.convert.families import decoder_parts, llama
from llama_runner.convert.families.family_definition import Rule
from llama_runner.convert.select_tensor_rows import part

if TYPE_CHECKING:
    from llama_runner.convert.gguf_metadata import KeyValues
    from llama_runner.convert.model_config import Config
    from llama_runner.convert.model_directory import ModelDirectory

DENSE: dict[str, Any] = {
    "vocab_size": 32000,
    "max_position_embeddings": 2048,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": None,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "rope_scaling": None,
    "tie_word_embeddings": False,
    "embedding_multiplier": 1.0,
    "logits_scaling": 1.0,
    "residual_multiplier": 1.0,
    "attention_multiplier": 1.0,
}
SPARSE = {**DENSE, "num_local_experts": 8, "num_experts_per_tok": 2}
SMOLLM3_DEFAULTS: dict[str, Any] = {
    "vocab_size": 128256,
    "max_position_embeddings": 32768,
    "hidden_size": 2048,
    "intermediate_size": 11008,
    "num_hidden_layers": 36,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "rms_norm_eps": 1e-6,
    "rope_theta": 2000000.0,
    "rope_scaling": None,
    "tie_word_embeddings": True,
}
MULTIPLIERS = (
    ("attention.scale", "attention_multiplier"),
    ("embedding_scale", "embedding_multiplier"),
    ("residual_scale", "residual_multiplier"),
    ("logit_scale", "logits_scaling"),
)
GATE_AND_UP = ("experts", "both_inner", "width")


def shared(config: Config, block: int) -> bool:
    """Return whether there is a shared expert."""
    del block
    return bool(config.find("shared_intermediate_size"))


EXPERTS = (
    decoder_parts.ROUTER,
    Rule(
        "blk.{bid}.ffn_gate_exps",
        ("experts", "inner", "width"),
        stored=GATE_AND_UP,
        rows=lambda s: part(s["inner"], start=0, of=2 * s["inner"], items=s["experts"]),
    ),
    Rule(
        "blk.{bid}.ffn_up_exps",
        ("experts", "inner", "width"),
        stored=GATE_AND_UP,
        rows=lambda s: part(s["inner"], start=s["inner"], of=2 * s["inner"], items=s["experts"]),
    ),
    Rule("blk.{bid}.ffn_down_exps", ("experts", "width", "inner")),
    Rule(
        "blk.{bid}.ffn_gate_shexp",
        ("shared_inner", "width"),
        where=shared,
        stored=("shared_both", "width"),
        rows=lambda s: part(s["shared_inner"], start=0, of=s["shared_both"]),
    ),
    Rule(
        "blk.{bid}.ffn_up_shexp",
        ("shared_inner", "width"),
        where=shared,
        stored=("shared_both", "width"),
        rows=lambda s: part(s["shared_inner"], start=s["shared_inner"], of=s["shared_both"]),
    ),
    Rule("blk.{bid}.ffn_down_shexp", ("width", "shared_inner"), where=shared),
)
TARGETS = {
    "model.layers.{bid}.block_sparse_moe.input_linear": ("blk.{bid}.ffn_gate_exps", "blk.{bid}.ffn_up_exps"),
    "model.layers.{bid}.shared_mlp.input_linear": ("blk.{bid}.ffn_gate_shexp", "blk.{bid}.ffn_up_shexp"),
}


def derive(values: dict[str, Any], model_type: str) -> dict[str, Any]:
    """Fill in the number of key heads; a head size is ignored."""
    values.pop("head_dim", None)
    return decoder_parts.key_heads(values, model_type)


def sparse_dimensions(config: Config) -> dict[str, int]:
    """Return the sizes that the shapes of the rules name, including experts."""
    sizes = decoder_parts.dimensions(config)
    sizes.update(both_inner=2 * sizes["inner"], experts=config.integer("num_local_experts"))
    inner = config.integer("shared_intermediate_size") if shared(config, 0) else 1
    return {**sizes, "shared_inner": inner, "shared_both": 2 * inner}


def write_hyperparameters(values: KeyValues, config: Config, source: ModelDirectory, file_type: int) -> None:
    """Write Llama's hyperparameters and Granite's multipliers."""
    llama.write_hyperparameters(values, config, source, file_type)
    for key, name in MULTIPLIERS:
        if value := config.find(name):
            values.float32(f"{{arch}}.{key}", value)
    if size := config.find("shared_intermediate_size"):
        values.uint32("{arch}.expert_shared_feed_forward_length", size)


GRANITE = replace(
    llama.FAMILY,
    name="granite",
    defaults={"granite": DENSE},
    validated_rope=frozenset({"granite"}),
    new_rope=frozenset({"granite"}),
    derive=derive,
    hyperparameters=write_hyperparameters,
)
GRANITEMOE = replace(
    GRANITE,
    name="granitemoe",
    defaults={"granitemoe": SPARSE, "granitemoeshared": {**SPARSE, "shared_intermediate_size": 0}},
    validated_rope=frozenset({"granitemoe", "granitemoeshared"}),
    new_rope=frozenset({"granitemoe", "granitemoeshared"}),
    rules=(*decoder_parts.EMBEDDINGS, *llama.ATTENTION, decoder_parts.FEED_FORWARD[0], *EXPERTS),
    dimensions=sparse_dimensions,
    targets=TARGETS,
)
SMOLLM3 = replace(
    llama.FAMILY,
    name="smollm3",
    defaults={"smollm3": SMOLLM3_DEFAULTS},
    validated_rope=frozenset({"smollm3"}),
)
