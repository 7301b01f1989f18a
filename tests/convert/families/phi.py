"""Tiny Phi 2, Phi 3 with its long RoPE, and the one with experts."""

from __future__ import annotations

from typing import Any

from tests.convert.tiny import ALL, ATTENTION, EMBEDDINGS, GPT2_TOKENS, HEAD, OUT_BIAS, QKV_BIASES, built

CONFIG: dict[str, Any] = {
    "architectures": ["PhiForCausalLM"],
    "model_type": "phi",
    "vocab_size": GPT2_TOKENS,
    "hidden_size": 64,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    "partial_rotary_factor": 0.4,
    "layer_norm_eps": 1e-4,
    "rope_theta": 20000.0,
}
PHI2 = """
model.embed_tokens.weight vocabulary width
model.final_layernorm.weight width
model.final_layernorm.bias width
lm_head.weight vocabulary width
lm_head.bias vocabulary
model.layers.{b}.input_layernorm.weight width
model.layers.{b}.input_layernorm.bias width
model.layers.{b}.self_attn.q_proj.weight width width
model.layers.{b}.self_attn.k_proj.weight width width
model.layers.{b}.self_attn.v_proj.weight width width
model.layers.{b}.self_attn.dense.weight width width
model.layers.{b}.self_attn.q_proj.bias width
model.layers.{b}.self_attn.k_proj.bias width
model.layers.{b}.self_attn.v_proj.bias width
model.layers.{b}.self_attn.dense.bias width
model.layers.{b}.mlp.fc1.weight inner width
model.layers.{b}.mlp.fc1.bias inner
model.layers.{b}.mlp.fc2.weight width inner
model.layers.{b}.mlp.fc2.bias width
"""
PHI3_CONFIG: dict[str, Any] = {
    **CONFIG, "architectures": ["Phi3ForCausalLM"], "model_type": "phi3", "vocab_size": 420, "intermediate_size": 96,
    "partial_rotary_factor": None, "layer_norm_eps": None, "num_key_value_heads": 2, "rms_norm_eps": 1e-5,
    "original_max_position_embeddings": 64,
}  # fmt: skip
PHI3 = """
model.embed_tokens.weight vocabulary width
model.norm.weight width
lm_head.weight vocabulary width
model.layers.{b}.input_layernorm.weight width
model.layers.{b}.self_attn.qkv_proj.weight fused width
model.layers.{b}.self_attn.o_proj.weight width queries
model.layers.{b}.post_attention_layernorm.weight width
model.layers.{b}.mlp.gate_up_proj.weight 192 width
model.layers.{b}.mlp.down_proj.weight width inner
"""
FUSED = {"fused": 128}
ALL_HEADS = {"fused": 192}
SHORT, LONG = [1.0 + n / 16 for n in range(8)], [1.5 + n for n in range(8)]
ROPE = {"type": "longrope", "short_factor": SHORT, "long_factor": LONG}
MOE_CONFIG: dict[str, Any] = {
    **PHI3_CONFIG, "architectures": ["PhiMoEForCausalLM"], "model_type": "phimoe", "num_local_experts": 3,
    "num_experts_per_tok": 2, "original_max_position_embeddings": None,
    "rope_scaling": {**ROPE, "long_mscale": 1.2, "short_mscale": 1.1, "original_max_position_embeddings": 64},
}  # fmt: skip
MOE = (
    EMBEDDINGS
    + HEAD
    + ATTENTION
    + QKV_BIASES
    + OUT_BIAS
    + """
model.norm.bias width
lm_head.bias vocabulary
model.layers.{b}.input_layernorm.bias width
model.layers.{b}.post_attention_layernorm.bias width
model.layers.{b}.block_sparse_moe.gate.weight experts width
model.layers.{b}.block_sparse_moe.experts.{e}.w1.weight inner width
model.layers.{b}.block_sparse_moe.experts.{e}.w2.weight width inner
model.layers.{b}.block_sparse_moe.experts.{e}.w3.weight inner width
"""
)
PHI4 = {"tokenizer_config.json": {"tokenizer_class": "GPT2Tokenizer"}}
CLASS = {"tokenizer_config.json": {"tokenizer_class": "LlamaTokenizer"}}

CASES = {
    "phi2": built(CONFIG, PHI2, outtypes=ALL),
    "phi2-f16": built({**CONFIG, "partial_rotary_factor": None}, PHI2, outtypes=ALL, dtype="F16", shards=2),
    "phi2-few": built({**CONFIG, "layer_norm_eps": None, "max_position_embeddings": None}, PHI2, dtype="F32"),
    "phi3": built(PHI3_CONFIG, PHI3, outtypes=ALL, tokenizer="spm", sizes=FUSED, files=CLASS),
    "phi3-long": built({**PHI3_CONFIG, "rope_scaling": ROPE}, PHI3, outtypes=ALL, tokenizer="spm", sizes=FUSED),
    "phi3-su": built({**PHI3_CONFIG, "rope_scaling": {**ROPE, "type": "su"}, "sliding_window": 32}, PHI3,
                     tokenizer="spm", sizes=FUSED, dtype="F16"),
    "phi3-as-long": built({**PHI3_CONFIG, "rope_scaling": {**ROPE, "type": "yarn"}, "max_position_embeddings": 64},
                          PHI3, tokenizer="spm", sizes=FUSED, dtype="F32"),
    "phi3-refused": built({**PHI3_CONFIG, "rope_scaling": {**ROPE, "type": "yarn", "factor": 2.0}}, PHI3,
                          tokenizer="spm", sizes=FUSED),
    "phi3-few": built({**PHI3_CONFIG, "num_key_value_heads": None, "rms_norm_eps": None, "rope_theta": None,
                       "original_max_position_embeddings": None}, PHI3, tokenizer="spm", sizes=ALL_HEADS),
    "phi4": built({**PHI3_CONFIG, "vocab_size": GPT2_TOKENS}, PHI3, sizes=FUSED, files=PHI4),
    "phimoe": built(MOE_CONFIG, MOE, outtypes=ALL, tokenizer="spm"),
    "phimoe-f16": built(MOE_CONFIG, MOE, tokenizer="spm", dtype="F16", shards=3),
}  # fmt: skip
