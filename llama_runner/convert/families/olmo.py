"""OLMo 1 to 3, OLMoE, and Seed-OSS, which is in the same file of the official script.

Follows ``OlmoModel``, ``Olmo2Model``, ``OlmoeModel`` and ``SeedOssModel`` of llama.cpp's conversion/olmo.py.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from llama_runner.convert import hyperparameters
from llama_runner.convert.families import decoder_parts, llama
from llama_runner.convert.families.family_definition import Family, Rule

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llama_runner.convert.gguf_metadata import KeyValues
    from llama_runner.convert.model_config import Config
    from llama_runner.convert.model_directory import ModelDirectory

OLMO_DEFAULTS: dict[str, Any] = {
    "vocab_size": 50304,
    "max_position_embeddings": 2048,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": None,
    "rope_theta": 10000.0,
    "rope_scaling": None,
    "clip_qkv": None,
    "tie_word_embeddings": False,
}
OLMO2_DEFAULTS = {**OLMO_DEFAULTS, "rms_norm_eps": 1e-5}
OLMO3_DEFAULTS = {**OLMO2_DEFAULTS, "sliding_window": 4096, "layer_types": None}
OLMOE_DEFAULTS = {
    **OLMO2_DEFAULTS,
    "max_position_embeddings": 4096,
    "hidden_size": 2048,
    "intermediate_size": 2048,
    "num_hidden_layers": 16,
    "num_attention_heads": 16,
    "num_experts_per_tok": 8,
    "num_experts": 64,
}
SEED_DEFAULTS: dict[str, Any] = {
    "vocab_size": 155136,
    "max_position_embeddings": 524288,
    "hidden_size": 4096,
    "intermediate_size": 27648,
    "num_hidden_layers": 64,
    "num_attention_heads": 80,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "rope_scaling": None,
    "tie_word_embeddings": False,
}
FULL_EVERY = 4  # layers of OLMo 3, of which one attends to everything
HEAD_NORMS = (Rule("blk.{bid}.attn_q_norm", ("queries",)), Rule("blk.{bid}.attn_k_norm", ("keys",)))
OLMO_RULES = (
    decoder_parts.EMBEDDINGS[0],
    decoder_parts.EMBEDDINGS[2],
    *(replace(rule, bias=False) for rule in llama.ATTENTION[1:]),
    *decoder_parts.FEED_FORWARD[1:],
)
OLMO2_RULES = (
    *decoder_parts.EMBEDDINGS,
    *decoder_parts.ATTENTION[1:],
    *HEAD_NORMS,
    Rule("blk.{bid}.post_attention_norm", ("width",)),
    *decoder_parts.FEED_FORWARD[1:],
    Rule("blk.{bid}.post_ffw_norm", ("width",)),
)
OLMOE_RULES = (
    *decoder_parts.EMBEDDINGS,
    *decoder_parts.ATTENTION,
    *HEAD_NORMS,
    decoder_parts.FEED_FORWARD[0],
    decoder_parts.ROUTER,
    *(
        replace(rule, shape=tuple(name.removeprefix("expert_") for name in rule.shape))
        for rule in decoder_parts.EXPERTS
    ),
)
SEED_RULES = (
    *decoder_parts.EMBEDDINGS,
    *decoder_parts.ATTENTION,
    Rule("blk.{bid}.post_attention_norm", ("width",)),
    *decoder_parts.FEED_FORWARD[1:],
)


def old_scaling(values: Mapping[str, Any], scaling: dict[str, Any]) -> dict[str, Any] | None:
    """Validate the only RoPE scaling of OLMo 1 and 2 in transformers: a type and a factor above one."""
    del values
    factor = scaling.get("factor")
    fits = len(scaling) == 2 and scaling.get("type") in ("linear", "dynamic")  # noqa: PLR2004
    return scaling if fits and isinstance(factor, float) and factor > 1.0 else None


def derive(values: dict[str, Any], model_type: str) -> dict[str, Any]:
    """Fill in the number of key heads, and OLMo 3's kinds of layers."""
    decoder_parts.key_heads(values, model_type)
    count = values["num_hidden_layers"]
    if model_type == "olmo3" and values["layer_types"] is None and type(count) is int:
        kinds = ("sliding_attention" if number % FULL_EVERY else "full_attention" for number in range(1, count + 1))
        values["layer_types"] = list(kinds)
    return values


def sparse_dimensions(config: Config) -> dict[str, int]:
    """Return the sizes that the shapes of the rules name, including experts."""
    return {**decoder_parts.dimensions(config), "experts": config.integer("num_local_experts", "num_experts")}


def write_olmo(values: KeyValues, config: Config, source: ModelDirectory, file_type: int) -> None:
    """Write OLMo's hyperparameters."""
    del source
    hyperparameters.write(values, config, file_type)
    values.float32("{arch}.attention.layer_norm_epsilon", 1e-5)
    if (limit := config.find("clip_qkv")) is not None:
        values.float32("{arch}.attention.clamp_kqv", limit)


def write_olmo2(values: KeyValues, config: Config, source: ModelDirectory, file_type: int) -> None:
    """Write the hyperparameters of OLMo 2 and 3."""
    del source
    hyperparameters.write(values, config, file_type)
    if "sliding_window" in config.values:
        values.uint32("{arch}.attention.sliding_window", config.find("sliding_window"))
        kinds = config.find("layer_types") or []
        values.booleans("{arch}.attention.sliding_window_pattern", [kind == "sliding_attention" for kind in kinds])


def write_olmoe(values: KeyValues, config: Config, source: ModelDirectory, file_type: int) -> None:
    """Write OLMoE's hyperparameters."""
    del source
    hyperparameters.write(values, config, file_type)
    values.float32("{arch}.attention.layer_norm_rms_epsilon", 1e-5)


OLMO = Family(
    name="olmo",
    defaults={"olmo": OLMO_DEFAULTS},
    scaling=old_scaling,
    derive=derive,
    rules=OLMO_RULES,
    dimensions=decoder_parts.dimensions,
    rename=decoder_parts.rename,
    hyperparameters=write_olmo,
    vocabulary=decoder_parts.byte_level,
)
OLMO2 = replace(
    OLMO,
    name="olmo2",
    defaults={"olmo2": OLMO2_DEFAULTS},
    rules=OLMO2_RULES,
    hyperparameters=write_olmo2,
)
OLMO3 = replace(
    OLMO2,
    defaults={"olmo3": OLMO3_DEFAULTS},
    scaling=None,
    validated_rope=frozenset({"olmo3"}),
    new_rope=frozenset({"olmo3"}),
)
OLMOE = replace(
    OLMO,
    name="olmoe",
    defaults={"olmoe": OLMOE_DEFAULTS},
    scaling=None,
    validated_rope=frozenset({"olmoe"}),
    rules=OLMOE_RULES,
    dimensions=sparse_dimensions,
    hyperparameters=write_olmoe,
    stacks=decoder_parts.STACKS,
)
SEED_OSS = replace(
    OLMO,
    name="seed_oss",
    defaults={"seed_oss": SEED_DEFAULTS},
    scaling=None,
    validated_rope=frozenset({"seed_oss"}),
    rules=SEED_RULES,
    hyperparameters=decoder_parts.write_text_model,
)
