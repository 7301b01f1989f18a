"""Tiny models of families that vary Llama's block: OLMo, Cohere, Nemotron, EXAONE, MiniCPM, InternLM2, Seed-OSS."""

from __future__ import annotations

from typing import Any

from tests.convert.tiny import ALL, ATTENTION, EMBEDDINGS, GATED, GPT2_TOKENS, HEAD, HEAD_NORMS, QKV_BIASES, built

CONFIG: dict[str, Any] = {
    "vocab_size": GPT2_TOKENS,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-4,
    "rope_theta": 500000.0,
    "tie_word_embeddings": False,
    "bos_token_id": 330,
    "eos_token_id": 330,
}
NAMES = ("rms_norm_eps", "rope_theta", "max_position_embeddings", "bos_token_id", "layer_norm_eps")
FEW: dict[str, Any] = dict.fromkeys(NAMES)
SPM: dict[str, Any] = {**CONFIG, "vocab_size": 420, "bos_token_id": 1, "eos_token_id": 2}
MATRICES = """
model.layers.{b}.self_attn.q_proj.weight queries width
model.layers.{b}.self_attn.k_proj.weight keys width
model.layers.{b}.self_attn.v_proj.weight keys width
model.layers.{b}.self_attn.o_proj.weight width queries
"""
WIDE_NORMS = """
model.layers.{b}.self_attn.q_norm.weight queries
model.layers.{b}.self_attn.k_norm.weight keys
"""
AFTER = """
model.layers.{b}.post_attention_layernorm.weight width
model.layers.{b}.post_feedforward_layernorm.weight width
"""
EXPERTS = """
model.layers.{b}.mlp.gate.weight experts width
model.layers.{b}.mlp.experts.{e}.gate_proj.weight inner width
model.layers.{b}.mlp.experts.{e}.up_proj.weight inner width
model.layers.{b}.mlp.experts.{e}.down_proj.weight width inner
"""


def _named(architecture: str, model_type: str, **changes: Any) -> dict[str, Any]:
    return {**CONFIG, "architectures": [architecture], "model_type": model_type, **changes}


OLMO = _named("OlmoForCausalLM", "olmo", rms_norm_eps=None)
OLMO_TABLE = "model.embed_tokens.weight vocabulary width\n" + MATRICES + GATED
OLMO2 = _named("Olmo2ForCausalLM", "olmo2")
OLMO2_TABLE = EMBEDDINGS + HEAD + MATRICES + WIDE_NORMS + AFTER + GATED
OLMO3 = _named("Olmo3ForCausalLM", "olmo3", sliding_window=64)
KINDS = ["full_attention", "sliding_attention"] * 2
OLMOE = _named("OlmoeForCausalLM", "olmoe", num_experts=3, num_experts_per_tok=2)
OLMOE_TABLE = EMBEDDINGS + HEAD + ATTENTION + WIDE_NORMS + EXPERTS
SEED = _named("SeedOssForCausalLM", "seed_oss", head_dim=32)
COHERE = _named("CohereForCausalLM", "cohere", logit_scale=0.25, layer_norm_eps=1e-4, tie_word_embeddings=True,
                rms_norm_eps=None)  # fmt: skip
COHERE2 = {**COHERE, "architectures": ["Cohere2ForCausalLM"], "model_type": "cohere2", "rotary_pct": 0.5,
           "sliding_window": 64}  # fmt: skip
COHERE_TABLE = EMBEDDINGS + "model.layers.{b}.input_layernorm.weight width\n" + MATRICES + GATED
COHERE_NORMS = """
model.layers.{b}.self_attn.q_norm.weight 4 head
model.layers.{b}.self_attn.k_norm.weight 2 head
"""
NEMOTRON = {**SPM, "architectures": ["NemotronForCausalLM"], "model_type": "nemotron", "rms_norm_eps": None,
            "norm_eps": 1e-4, "partial_rotary_factor": 0.25}  # fmt: skip
NEMOTRON_TABLE = (
    EMBEDDINGS
    + HEAD
    + ATTENTION
    + """
model.norm.bias width
model.layers.{b}.input_layernorm.bias width
model.layers.{b}.post_attention_layernorm.bias width
model.layers.{b}.mlp.up_proj.weight inner width
model.layers.{b}.mlp.down_proj.weight width inner
"""
)
EXAONE = _named("ExaoneForCausalLM", "exaone", rms_norm_eps=None, layer_norm_epsilon=1e-4, activation_function="silu",
                num_layers=4, num_hidden_layers=None)  # fmt: skip
EXAONE_TABLE = """
transformer.wte.weight vocabulary width
transformer.ln_f.weight width
lm_head.weight vocabulary width
transformer.h.{b}.ln_1.weight width
transformer.h.{b}.attn.attention.q_proj.weight queries width
transformer.h.{b}.attn.attention.k_proj.weight keys width
transformer.h.{b}.attn.attention.v_proj.weight keys width
transformer.h.{b}.attn.attention.out_proj.weight width queries
transformer.h.{b}.ln_2.weight width
transformer.h.{b}.mlp.c_fc_0.weight inner width
transformer.h.{b}.mlp.c_fc_1.weight inner width
transformer.h.{b}.mlp.c_proj.weight width inner
"""
LLAMA3 = {"factor": 8.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0, "rope_type": "llama3",
          "original_max_position_embeddings": 32}  # fmt: skip
YARN = {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 64, "attention_factor": 1.2,
        "beta_fast": 32, "beta_slow": 1}  # fmt: skip
EXAONE4 = _named("Exaone4ForCausalLM", "exaone4", sliding_window=64, sliding_window_pattern=4)
EXAONE4_TABLE = EMBEDDINGS + HEAD + MATRICES + HEAD_NORMS + AFTER + GATED
MINICPM = {**SPM, "architectures": ["MiniCPMForCausalLM"], "model_type": "minicpm", "scale_emb": 12,
           "scale_depth": 1.4, "dim_model_base": 32, "tie_word_embeddings": None}  # fmt: skip
LONG = {"type": "longrope", "short_factor": [1.0 + n / 16 for n in range(8)],
        "long_factor": [1.5 + n for n in range(8)], "original_max_position_embeddings": 64}  # fmt: skip
INTERNLM = {**SPM, "architectures": ["InternLM2ForCausalLM"], "model_type": "internlm2"}
INTERNLM_HEAD = "output.weight vocabulary width\n"
INTERNLM_TABLE = """
model.tok_embeddings.weight vocabulary width
model.norm.weight width
output.weight vocabulary width
model.layers.{b}.attention_norm.weight width
model.layers.{b}.attention.wqkv.weight fused width
model.layers.{b}.attention.wo.weight width queries
model.layers.{b}.ffn_norm.weight width
model.layers.{b}.feed_forward.w1.weight inner width
model.layers.{b}.feed_forward.w2.weight width inner
model.layers.{b}.feed_forward.w3.weight inner width
"""
CHAT = {"tokenizer_config.json": {"added_tokens_decoder": {"400": {"content": "<|im_end|>", "special": True},
        "401": {"content": "<|plugin|>", "special": False}}, "eos_token": "</s>", "chat_template": "x"}}  # fmt: skip

CASES = {
    "olmo": built({**OLMO, "clip_qkv": 8.0}, OLMO_TABLE + HEAD, outtypes=ALL),
    "olmo-old-spelling": built({**OLMO, "architectures": ["OLMoForCausalLM"]}, OLMO_TABLE + HEAD, outtypes=ALL),
    "olmo-few": built({**OLMO, **FEW, "tie_word_embeddings": True}, OLMO_TABLE, dtype="F32"),
    "olmo-linear": built({**OLMO, "rope_scaling": {"type": "linear", "factor": 2.0}}, OLMO_TABLE + HEAD, dtype="F16"),
    "olmo2": built(OLMO2, OLMO2_TABLE, outtypes=ALL),
    "olmo2-few": built({**OLMO2, **FEW}, OLMO2_TABLE, dtype="F16", shards=2),
    "olmo3": built(OLMO3, OLMO2_TABLE, outtypes=ALL),
    "olmo3-kinds": built({**OLMO3, "layer_types": KINDS, "rope_scaling": YARN}, OLMO2_TABLE),
    "olmoe": built(OLMOE, OLMOE_TABLE, outtypes=ALL),
    "olmoe-few": built({**OLMOE, **FEW}, OLMOE_TABLE, dtype="F32", shards=3),
    "seed": built(SEED, EMBEDDINGS + HEAD + ATTENTION + QKV_BIASES + GATED, outtypes=ALL),
    "cohere": built(COHERE, COHERE_TABLE, outtypes=ALL),
    "cohere-norms": built({**COHERE, **FEW, "use_qk_norm": True, "model_max_length": 4096},
                          COHERE_TABLE + COHERE_NORMS, dtype="F16"),
    "cohere2": built(COHERE2, COHERE_TABLE, outtypes=ALL),
    "cohere2-few": built({**COHERE2, **FEW}, COHERE_TABLE, dtype="F16"),
    "nemotron": built(NEMOTRON, NEMOTRON_TABLE, outtypes=ALL, tokenizer="spm"),
    "nemotron-few": built({**NEMOTRON, **FEW, "norm_eps": None, "factor": 2.0, "partial_rotary_factor": None},
                          NEMOTRON_TABLE, tokenizer="spm", dtype="F16"),
    "exaone": built(EXAONE, EXAONE_TABLE, outtypes=ALL, sizes={"blocks": 4}),
    "exaone-llama3": built({**EXAONE, "rope_scaling": LLAMA3}, EXAONE_TABLE, dtype="F32", sizes={"blocks": 4}),
    "exaone4": built(EXAONE4, EXAONE4_TABLE, outtypes=ALL),
    "exaone4-global": built({**EXAONE4, "sliding_window": None, "layer_types": ["full_attention"] * 4,
                             "rope_scaling": LLAMA3}, EXAONE4_TABLE, dtype="F16"),
    "minicpm": built(MINICPM, EMBEDDINGS + ATTENTION + GATED, outtypes=ALL, tokenizer="spm"),
    "minicpm-long": built({**MINICPM, "rope_scaling": LONG}, EMBEDDINGS + HEAD + ATTENTION + GATED, tokenizer="spm",
                          dtype="F32"),
    "internlm2": built(INTERNLM, INTERNLM_TABLE, outtypes=ALL, tokenizer="spm", sizes={"fused": 128}),
    "internlm2-chat": built({**INTERNLM, "num_hidden_layers": 2}, INTERNLM_TABLE, tokenizer="spm", dtype="F16",
                            shards=2, files=CHAT, sizes={"fused": 128}),
}  # fmt: skip
