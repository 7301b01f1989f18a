"""DeepSeek V2, V2-Lite and V3: multi-head latent attention, some dense blocks, then experts.

Follows ``DeepseekV2Model`` of llama.cpp's conversion/deepseek.py. Models that read pages share that class there; they
are refused here.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from llama_runner.convert import hyperparameters
from llama_runner.convert.errors import BadHyperparameter
from llama_runner.convert.families import decoder_parts
from llama_runner.convert.families.family_definition import Family, Rule
from llama_runner.convert.model_config import Config, full_rope
from llama_runner.convert.select_tensor_rows import Rows, part
from llama_runner.convert.tensor_plan import NUMBER

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llama_runner.convert.gguf_metadata import KeyValues
    from llama_runner.convert.model_directory import ModelDirectory

DEFAULTS: dict[str, dict[str, Any]] = {
    "deepseek_v2": {
        "vocab_size": 32000,
        "max_position_embeddings": 2048,
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "moe_intermediate_size": 1407,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": None,
        "n_shared_experts": 2,
        "n_routed_experts": 64,
        "num_experts_per_tok": None,
        "n_group": None,
        "topk_group": None,
        "first_k_dense_replace": 0,
        "routed_scaling_factor": 1.0,
        "norm_topk_prob": False,
        "kv_lora_rank": 512,
        "q_lora_rank": 1536,
        "qk_rope_head_dim": 64,
        "qk_nope_head_dim": 128,
        "v_head_dim": 128,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "rope_scaling": None,
        "tie_word_embeddings": False,
    },
    "deepseek_v3": {
        "vocab_size": 129280,
        "max_position_embeddings": 4096,
        "hidden_size": 7168,
        "intermediate_size": 18432,
        "moe_intermediate_size": 2048,
        "num_hidden_layers": 61,
        "num_attention_heads": 128,
        "num_key_value_heads": 128,
        "n_shared_experts": 1,
        "n_routed_experts": 256,
        "num_experts_per_tok": 8,
        "n_group": 8,
        "topk_group": 4,
        "first_k_dense_replace": 3,
        "routed_scaling_factor": 2.5,
        "norm_topk_prob": True,
        "kv_lora_rank": 512,
        "q_lora_rank": 1536,
        "qk_rope_head_dim": 64,
        "qk_nope_head_dim": 128,
        "v_head_dim": 128,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "rope_scaling": None,
        "tie_word_embeddings": False,
    },
}
CORRECTION = "e_score_correction_bias"


def compressed(config: Config, block: int) -> bool:
    """Return whether queries are computed from a latent vector."""
    del block
    return config.find("q_lora_rank") is not None


def direct(config: Config, block: int) -> bool:
    """Return whether queries are computed directly, as in V2-Lite."""
    return not compressed(config, block)


def dense_blocks(config: Config) -> int:
    """Return the number of dense blocks at the start: all of them in a model without experts."""
    if config.find("first_k_dense_replace") is not None:
        return config.count("first_k_dense_replace")
    return config.integer("num_hidden_layers") if config.find("n_routed_experts") is None else 0


def dense(config: Config, block: int) -> bool:
    """Return whether the block is one of the dense ones."""
    return block < dense_blocks(config)


def sparse(config: Config, block: int) -> bool:
    """Return whether the block has experts."""
    return not dense(config, block)


def shared(config: Config, block: int) -> bool:
    """Return whether the block has experts, one of them shared."""
    return sparse(config, block) and bool(config.find("n_shared_experts"))


def key_rows(sizes: Mapping[str, int]) -> Rows:
    """Return the rows of each head for the keys without position."""
    return part(sizes["key"], start=0, of=sizes["key"] + sizes["value"], items=sizes["heads"])


def value_rows(sizes: Mapping[str, int]) -> Rows:
    """Return the rows of each head for the values."""
    return part(sizes["value"], start=sizes["key"], of=sizes["key"] + sizes["value"], items=sizes["heads"])


RULES = (
    *decoder_parts.EMBEDDINGS,
    Rule("blk.{bid}.attn_norm", ("width",)),
    Rule("blk.{bid}.attn_q", ("queries", "width"), where=direct),
    Rule("blk.{bid}.attn_q_a", ("query_latent", "width"), where=compressed),
    Rule("blk.{bid}.attn_q_a_norm", ("query_latent",), where=compressed),
    Rule("blk.{bid}.attn_q_b", ("queries", "query_latent"), where=compressed),
    Rule("blk.{bid}.attn_kv_a_mqa", ("latent_and_rotated", "width")),
    Rule("blk.{bid}.attn_kv_a_norm", ("latent",)),
    Rule("blk.{bid}.attn_k_b", ("heads", "latent", "key"), stored=("both", "latent"), rows=key_rows, transposed=True),
    Rule("blk.{bid}.attn_v_b", ("heads", "value", "latent"), stored=("both", "latent"), rows=value_rows),
    Rule("blk.{bid}.attn_output", ("width", "values")),
    decoder_parts.FEED_FORWARD[0],
    *(replace(rule, bias=False, where=dense) for rule in decoder_parts.FEED_FORWARD[1:]),
    replace(decoder_parts.ROUTER, where=sparse),
    Rule("blk.{bid}.exp_probs_b", ("experts",), bias=True, optional=True, where=sparse),
    *(replace(rule, where=sparse) for rule in decoder_parts.EXPERTS),
    Rule("blk.{bid}.ffn_gate_shexp", ("shared_inner", "width"), where=shared),
    Rule("blk.{bid}.ffn_up_shexp", ("shared_inner", "width"), where=shared),
    Rule("blk.{bid}.ffn_down_shexp", ("width", "shared_inner"), where=shared),
)


def dimensions(config: Config) -> dict[str, int]:
    """Return the sizes that the shapes of the rules name."""
    heads, latent = config.integer("num_attention_heads"), config.integer("kv_lora_rank")
    key, value = config.integer("qk_nope_head_dim"), config.integer("v_head_dim")
    rotated = config.integer("qk_rope_head_dim")
    moe = config.find("n_routed_experts") is not None
    inner = config.integer("moe_intermediate_size") if moe else 0
    return {
        "blocks": config.integer("num_hidden_layers"),
        "vocabulary": config.integer("vocab_size"),
        "width": config.integer("hidden_size"),
        "inner": config.integer("intermediate_size"),
        "heads": heads,
        "key": key,
        "value": value,
        "both": heads * (key + value),
        "queries": heads * (key + rotated),
        "values": heads * value,
        "latent": latent,
        "latent_and_rotated": latent + rotated,
        "query_latent": config.integer("q_lora_rank") if compressed(config, 0) else 0,
        "experts": config.integer("n_routed_experts") if moe else 0,
        "expert_inner": inner,
        "shared_inner": inner * config.integer("n_shared_experts") if config.find("n_shared_experts") else 0,
    }


def rename(name: str, config: Config) -> str | None:
    """Drop the multi-token prediction blocks, and an output matrix that equals the embedding."""
    number = NUMBER.search(name) if name.startswith("model.layers.") else None
    if number and int(number[0]) >= config.integer("num_hidden_layers"):
        return None
    if name == "lm_head.weight" and config.find("tie_word_embeddings"):
        return None
    if name.endswith(CORRECTION):
        name = f"{name.removesuffix('_bias')}.bias"
    return decoder_parts.rename(name, config)


def write_hyperparameters(values: KeyValues, config: Config, source: ModelDirectory, file_type: int) -> None:
    """Write the sizes of the latent vectors; in llama.cpp all heads share one key and value."""
    del source
    hyperparameters.write(values, Config(config.architecture, {**config.values, "num_key_value_heads": 1}), file_type)
    latent, rotated = config.integer("kv_lora_rank"), config.integer("qk_rope_head_dim")
    values.uint32("{arch}.leading_dense_block_count", dense_blocks(config))
    values.uint32("{arch}.vocab_size", config.integer("vocab_size"))
    if (rank := config.find("q_lora_rank")) is not None:
        values.uint32("{arch}.attention.q_lora_rank", rank)
    values.uint32("{arch}.attention.kv_lora_rank", latent)
    values.uint32("{arch}.attention.key_length", latent + rotated)
    values.uint32("{arch}.attention.value_length", latent)
    values.uint32("{arch}.attention.key_length_mla", config.integer("qk_nope_head_dim") + rotated)
    values.uint32("{arch}.attention.value_length_mla", config.integer("v_head_dim"))
    _write_experts(values, config)
    values.uint32("{arch}.rope.dimension_count", rotated)
    if (scale := full_rope(config).get("mscale_all_dim")) is not None:
        if type(scale) not in (int, float):
            raise BadHyperparameter("rope_scaling.mscale_all_dim", f"is {scale!r}, a number is expected")
        values.float32("{arch}.rope.scaling.yarn_log_multiplier", 0.1 * scale)


def _write_experts(values: KeyValues, config: Config) -> None:
    values.uint32("{arch}.expert_feed_forward_length", config.integer("moe_intermediate_size", "intermediate_size"))
    if (count := config.find("n_routed_experts")) is not None:
        values.uint32("{arch}.expert_count", count)
    values.uint32("{arch}.expert_shared_count", config.find("n_shared_experts"))
    if (scale := config.find("routed_scaling_factor")) is not None:
        values.float32("{arch}.expert_weights_scale", scale)
    if config.find("norm_topk_prob"):
        values.boolean("{arch}.expert_weights_norm", value=True)


def derive(values: dict[str, Any], model_type: str) -> dict[str, Any]:
    """Fill in the number of key heads and the head size, which is the rotated part."""
    decoder_parts.key_heads(values, model_type)
    values["head_dim"] = values["qk_rope_head_dim"]
    return values


FAMILY = Family(
    name="deepseek2",
    defaults=DEFAULTS,
    validated_rope=frozenset(DEFAULTS),
    derive=derive,
    rules=RULES,
    dimensions=dimensions,
    rename=rename,
    hyperparameters=write_hyperparameters,
    vocabulary=decoder_parts.byte_level,
    targets={"model.layers.{bid}.self_attn.kv_b_proj": ("blk.{bid}.attn_k_b", "blk.{bid}.attn_v_b")},
    stacks=decoder_parts.STACKS,
)
