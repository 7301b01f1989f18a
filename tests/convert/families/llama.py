"""Tiny relatives of Llama: Mixtral, SmolLM3, Granite and its experts. Llama itself is in `tests.convert.cases`."""

from __future__ import annotations

from typing import Any

from tests.convert.tiny import ALL, ATTENTION, EMBEDDINGS, GATED, GPT2_TOKENS, HEAD, QKV_BIASES, built

CONFIG: dict[str, Any] = {
    "architectures": ["MixtralForCausalLM"],
    "model_type": "mixtral",
    "vocab_size": GPT2_TOKENS,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "rope_theta": 1000000.0,
    "tie_word_embeddings": False,
    "bos_token_id": 330,
    "eos_token_id": 330,
}
NAMES = ("rms_norm_eps", "rope_theta", "max_position_embeddings", "bos_token_id")
FEW: dict[str, Any] = {**CONFIG, **dict.fromkeys(NAMES)}
MIXTRAL = {"num_local_experts": 3, "num_experts_per_tok": 2}
MIXTRAL_EXPERTS = """
model.layers.{b}.block_sparse_moe.gate.weight experts width
model.layers.{b}.block_sparse_moe.experts.{e}.w1.weight inner width
model.layers.{b}.block_sparse_moe.experts.{e}.w2.weight width inner
model.layers.{b}.block_sparse_moe.experts.{e}.w3.weight inner width
"""
SMOLLM3 = {"architectures": ["SmolLM3ForCausalLM"], "model_type": "smollm3", "tie_word_embeddings": None}
GRANITE = {"architectures": ["GraniteForCausalLM"], "model_type": "granite"}
MULTIPLIERS = {"attention_multiplier": 0.125, "embedding_multiplier": 12.0, "residual_multiplier": 0.22,
               "logits_scaling": 0.0, "head_dim": 16}  # fmt: skip
GRANITE_MOE = {"architectures": ["GraniteMoeForCausalLM"], "model_type": "granitemoe", **MIXTRAL}
GRANITE_SHARED = {**GRANITE_MOE, "architectures": ["GraniteMoeSharedForCausalLM"], "model_type": "granitemoeshared",
                  "shared_intermediate_size": 40}  # fmt: skip
GRANITE_EXPERTS = """
model.layers.{b}.block_sparse_moe.router.layer.weight experts width
model.layers.{b}.block_sparse_moe.input_linear.weight experts 192 width
model.layers.{b}.block_sparse_moe.output_linear.weight experts width inner
"""
SHARED = """
model.layers.{b}.shared_mlp.input_linear.weight 80 width
model.layers.{b}.shared_mlp.output_linear.weight width 40
"""
BODY = EMBEDDINGS + ATTENTION
LLAMA3_ROPE = {"factor": 8.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0, "rope_type": "llama3",
               "original_max_position_embeddings": 32}  # fmt: skip
LINEAR = {"type": "linear", "factor": 2.0}

CASES = {
    "mixtral": built({**CONFIG, **MIXTRAL}, BODY + HEAD + MIXTRAL_EXPERTS, outtypes=ALL),
    "mixtral-sharded": built({**CONFIG, **MIXTRAL}, BODY + HEAD + MIXTRAL_EXPERTS, dtype="F16", shards=3),
    "mixtral-few": built({**FEW, **MIXTRAL, "head_dim": 8}, BODY + HEAD + MIXTRAL_EXPERTS, dtype="F32",
                         tokenizer="gpt2"),
    "smollm3": built({**CONFIG, **SMOLLM3}, BODY + GATED, outtypes=ALL),
    "smollm3-few": built({**FEW, **SMOLLM3}, BODY + GATED, dtype="F16"),
    "smollm3-llama3": built({**CONFIG, **SMOLLM3, "rope_scaling": LLAMA3_ROPE}, BODY + GATED),
    "granite": built({**CONFIG, **GRANITE, **MULTIPLIERS}, BODY + HEAD + GATED, outtypes=ALL),
    "granite-few": built({**FEW, **GRANITE}, BODY + HEAD + GATED + QKV_BIASES, dtype="F32"),
    "granite-old-rope": built({**CONFIG, **GRANITE, "rope_scaling": LINEAR}, BODY + HEAD + GATED),
    "granitemoe": built({**CONFIG, **GRANITE_MOE, **MULTIPLIERS}, BODY + HEAD + GRANITE_EXPERTS, outtypes=ALL),
    "granitemoe-few": built({**FEW, **GRANITE_MOE}, BODY + HEAD + GRANITE_EXPERTS, dtype="F16", shards=2),
    "granitemoe-shared": built({**CONFIG, **GRANITE_SHARED}, BODY + HEAD + GRANITE_EXPERTS + SHARED, outtypes=ALL),
}  # fmt: skip
