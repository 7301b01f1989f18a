"""Tiny DeepSeeks: with and without latent queries, dense blocks at the start, shared experts, YaRN."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.convert.cases import Case
from tests.convert.checkpoints import write_json
from tests.convert.tiny import ALL, EMBEDDINGS, EXPERTS, GATED, GPT2_TOKENS, HEAD, expand, sizes_of, tiny

if TYPE_CHECKING:
    from pathlib import Path

CONFIG: dict[str, Any] = {
    "architectures": ["DeepseekV3ForCausalLM"],
    "model_type": "deepseek_v3",
    "vocab_size": GPT2_TOKENS,
    "hidden_size": 64,
    "intermediate_size": 96,
    "moe_intermediate_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "n_group": 2,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    "routed_scaling_factor": 1.5,
    "norm_topk_prob": True,
    "scoring_func": "sigmoid",
    "q_lora_rank": 48,
    "kv_lora_rank": 32,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "v_head_dim": 24,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "rope_theta": 50000.0,
    "tie_word_embeddings": False,
    "bos_token_id": 330,
    "eos_token_id": 330,
}
YARN = {"type": "yarn", "factor": 40, "beta_fast": 32, "beta_slow": 1, "mscale": 0.707, "mscale_all_dim": 0.707,
        "original_max_position_embeddings": 64}  # fmt: skip
LITE: dict[str, Any] = {"architectures": ["DeepseekV2ForCausalLM"], "model_type": "deepseek_v2", "q_lora_rank": None,
        "n_shared_experts": 2, "scoring_func": "softmax", "norm_topk_prob": False, "rope_scaling": YARN}  # fmt: skip
BODY = """
model.layers.{b}.input_layernorm.weight width
model.layers.{b}.self_attn.kv_a_proj_with_mqa.weight latent_and_rotated width
model.layers.{b}.self_attn.kv_a_layernorm.weight latent
model.layers.{b}.self_attn.kv_b_proj.weight both latent
model.layers.{b}.self_attn.o_proj.weight width values
model.layers.{b}.post_attention_layernorm.weight width
"""
DIRECT = "model.layers.{b}.self_attn.q_proj.weight queries width\n"
LATENT = """
model.layers.{b}.self_attn.q_a_proj.weight query_latent width
model.layers.{b}.self_attn.q_a_layernorm.weight query_latent
model.layers.{b}.self_attn.q_b_proj.weight queries query_latent
"""
SHARED = """
model.layers.{b}.mlp.shared_experts.gate_proj.weight shared_inner width
model.layers.{b}.mlp.shared_experts.up_proj.weight shared_inner width
model.layers.{b}.mlp.shared_experts.down_proj.weight width shared_inner
"""
CORRECTION = "model.layers.{b}.mlp.gate.e_score_correction_bias experts\n"
NAMES = ("rms_norm_eps", "rope_theta", "max_position_embeddings", "routed_scaling_factor", "norm_topk_prob",
         "num_key_value_heads", "n_group", "topk_group")  # fmt: skip
FEW: dict[str, Any] = dict.fromkeys(NAMES)


def deepseek(
    directory: Path, *, dtype: str = "BF16", shards: int = 0, head: bool = True, extra: int = 0, **changes: Any
) -> Path:
    """A DeepSeek; ``extra`` blocks at the end predict further tokens."""
    config = {**CONFIG, **changes}
    heads, latent, key = config["num_attention_heads"], config["kv_lora_rank"], config["qk_nope_head_dim"]
    value, rotated, count = config["v_head_dim"], config["qk_rope_head_dim"], config["num_hidden_layers"]
    sizes = {
        **sizes_of(config), "latent": latent, "latent_and_rotated": latent + rotated, "values": heads * value,
        "both": heads * (key + value), "queries": heads * (key + rotated), "query_latent": config["q_lora_rank"] or 0,
        "shared_inner": config["moe_intermediate_size"] * (config["n_shared_experts"] or 0),
    }  # fmt: skip
    table = BODY + (LATENT if config["q_lora_rank"] else DIRECT)
    shapes = expand(EMBEDDINGS + (HEAD if head else ""), sizes)
    shapes.update(expand(table, sizes, range(count + extra)))
    first = config["first_k_dense_replace"] or 0
    if first:
        shapes.update(expand(GATED, sizes, range(first)))
    experts = EXPERTS + (SHARED if config["n_shared_experts"] else "")
    experts += CORRECTION if config["model_type"] == "deepseek_v3" else ""
    shapes.update(expand(experts, sizes, range(first, count + extra)))
    tiny(directory, config, shapes, dtype=dtype, shards=shards)
    said = {name: value for name, value in config.items() if value is not None}
    write_json(directory / "config.json", {**said, "q_lora_rank": config["q_lora_rank"]})  # null counts as said
    return directory


CASES = {
    "v3": Case(deepseek, ALL, pre="gpt-2"),
    "v3-predicts": Case(lambda d: deepseek(d, extra=1, dtype="F16", num_nextn_predict_layers=1, rope_scaling=YARN),
                        pre="gpt-2"),
    "v3-few": Case(lambda d: deepseek(d, shards=3, dtype="F32", first_k_dense_replace=2,
                                      **{**FEW, "num_key_value_heads": 4}), pre="gpt-2"),
    "v3-tied": Case(lambda d: deepseek(d, tie_word_embeddings=True), ("q8_0",), pre="gpt-2"),
    "v3-blocks": Case(lambda d: deepseek(d, qk_nope_head_dim=32, v_head_dim=32), ("q8_0", "f16"), pre="gpt-2"),
    "v2": Case(lambda d: deepseek(d, **{**LITE, "q_lora_rank": 48, "head_dim": 20}), ALL, pre="gpt-2"),
    "v2-lite": Case(lambda d: deepseek(d, **LITE), ALL, pre="gpt-2"),
    "v2-few": Case(lambda d: deepseek(d, **{**LITE, **FEW, "rope_scaling": None, "first_k_dense_replace": None},
                                      shards=2, head=False, dtype="F16", tie_word_embeddings=True), pre="gpt-2"),
}  # fmt: skip
