"""Tiny models of the first generations: GPT-2, GPT-BigCode, GPT-NeoX, Falcon, StarCoder 2, StableLM."""

from __future__ import annotations

from typing import Any

from tests.convert.tiny import ALL, GATED, GPT2_TOKENS, HEAD, OUT_BIAS, QKV_BIASES, built

GPT2: dict[str, Any] = {
    "architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "vocab_size": GPT2_TOKENS, "n_embd": 64, "n_layer": 2,
    "n_head": 4, "n_ctx": 128, "n_positions": 128, "layer_norm_epsilon": 1e-4, "bos_token_id": 330, "eos_token_id": 330,
}  # fmt: skip
WIDTHS = {"vocabulary": GPT2_TOKENS, "width": 64, "blocks": 2, "positions": 128, "fused": 192, "inner": 256}
GPT2_TABLE = """
wte.weight vocabulary width
wpe.weight positions width
ln_f.weight width
ln_f.bias width
h.{b}.ln_1.weight width
h.{b}.ln_1.bias width
h.{b}.ln_2.weight width
h.{b}.ln_2.bias width
h.{b}.attn.c_attn.weight width fused
h.{b}.attn.c_attn.bias fused
h.{b}.attn.c_proj.weight width width
h.{b}.attn.c_proj.bias width
h.{b}.mlp.c_fc.weight width inner
h.{b}.mlp.c_fc.bias inner
h.{b}.mlp.c_proj.weight inner width
h.{b}.mlp.c_proj.bias width
"""
PREFIXED = "\n".join(f"transformer.{line}" for line in GPT2_TABLE.split("\n") if line) + "\n"
BIGCODE = {**GPT2, "architectures": ["GPTBigCodeForCausalLM"], "model_type": "gpt_bigcode", "n_ctx": None}
BIGCODE_TABLE = PREFIXED.replace(" width fused", " fused width").replace(" width inner", " inner width").replace(
    "mlp.c_proj.weight inner width", "mlp.c_proj.weight width inner")  # fmt: skip
ONE_KEY = {**WIDTHS, "fused": 96}

NEOX: dict[str, Any] = {
    "architectures": ["GPTNeoXForCausalLM"], "model_type": "gpt_neox", "vocab_size": GPT2_TOKENS, "hidden_size": 64,
    "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 128,
    "rotary_pct": 0.5, "layer_norm_eps": 1e-4, "use_parallel_residual": False, "tie_word_embeddings": False,
}  # fmt: skip
NEOX_HEAD = "embed_out.weight vocabulary width\n"
NEOX_TABLE = """
gpt_neox.embed_in.weight vocabulary width
embed_out.weight vocabulary width
gpt_neox.final_layer_norm.weight width
gpt_neox.final_layer_norm.bias width
gpt_neox.layers.{b}.input_layernorm.weight width
gpt_neox.layers.{b}.input_layernorm.bias width
gpt_neox.layers.{b}.post_attention_layernorm.weight width
gpt_neox.layers.{b}.post_attention_layernorm.bias width
gpt_neox.layers.{b}.attention.query_key_value.weight 192 width
gpt_neox.layers.{b}.attention.query_key_value.bias 192
gpt_neox.layers.{b}.attention.dense.weight width width
gpt_neox.layers.{b}.attention.dense.bias width
gpt_neox.layers.{b}.attention.rotary_emb.inv_freq 4
gpt_neox.layers.{b}.mlp.dense_h_to_4h.weight inner width
gpt_neox.layers.{b}.mlp.dense_h_to_4h.bias inner
gpt_neox.layers.{b}.mlp.dense_4h_to_h.weight width inner
gpt_neox.layers.{b}.mlp.dense_4h_to_h.bias width
"""

FALCON: dict[str, Any] = {
    "architectures": ["FalconForCausalLM"], "model_type": "falcon", "vocab_size": GPT2_TOKENS, "hidden_size": 64,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_kv_heads": 2, "new_decoder_architecture": True,
    "layer_norm_epsilon": 1e-4, "bias": False, "parallel_attn": True, "multi_query": True,
}  # fmt: skip
FALCON_TABLE = """
transformer.word_embeddings.weight vocabulary width
transformer.ln_f.weight width
transformer.ln_f.bias width
transformer.h.{b}.self_attention.query_key_value.weight fused width
transformer.h.{b}.self_attention.dense.weight width width
transformer.h.{b}.mlp.dense_h_to_4h.weight 256 width
transformer.h.{b}.mlp.dense_4h_to_h.weight width 256
"""
TWO_NORMS = """
transformer.h.{b}.ln_attn.weight width
transformer.h.{b}.ln_attn.bias width
transformer.h.{b}.ln_mlp.weight width
transformer.h.{b}.ln_mlp.bias width
"""
ONE_NORM = """
transformer.h.{b}.input_layernorm.weight width
transformer.h.{b}.input_layernorm.bias width
"""
OLD_FALCON = {**FALCON, "new_decoder_architecture": False, "num_kv_heads": 1}
REFINED = {**FALCON, "architectures": ["RWForCausalLM"], "model_type": "RefinedWebModel", "num_attention_heads": None,
           "n_head": 4, "num_hidden_layers": None, "n_layer": 2, "num_kv_heads": None}  # fmt: skip

STARCODER2: dict[str, Any] = {
    "architectures": ["Starcoder2ForCausalLM"], "model_type": "starcoder2", "vocab_size": GPT2_TOKENS,
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128, "norm_epsilon": 1e-4, "rope_theta": 100000,
    "sliding_window": 64,
}  # fmt: skip
NORMS = """
model.embed_tokens.weight vocabulary width
model.norm.weight width
model.norm.bias width
model.layers.{b}.input_layernorm.weight width
model.layers.{b}.input_layernorm.bias width
"""
SECOND_NORM = """
model.layers.{b}.post_attention_layernorm.weight width
model.layers.{b}.post_attention_layernorm.bias width
"""
MATRICES = """
model.layers.{b}.self_attn.q_proj.weight queries width
model.layers.{b}.self_attn.k_proj.weight keys width
model.layers.{b}.self_attn.v_proj.weight keys width
model.layers.{b}.self_attn.o_proj.weight width queries
"""
STARCODER2_TABLE = (
    NORMS
    + SECOND_NORM
    + MATRICES
    + QKV_BIASES
    + OUT_BIAS
    + """
model.layers.{b}.mlp.c_fc.weight inner width
model.layers.{b}.mlp.c_fc.bias inner
model.layers.{b}.mlp.c_proj.weight width inner
model.layers.{b}.mlp.c_proj.bias width
"""
)
STABLELM: dict[str, Any] = {
    **STARCODER2, "architectures": ["StableLmForCausalLM"], "model_type": "stablelm", "norm_epsilon": None,
    "layer_norm_eps": 1e-4, "sliding_window": None, "tie_word_embeddings": False, "use_parallel_residual": True,
}  # fmt: skip
STABLELM_TABLE = NORMS + SECOND_NORM + MATRICES + GATED + HEAD
EPOCH = {"architectures": ["StableLMEpochForCausalLM"], "model_type": "stablelm_epoch", "norm_eps": 1e-4,
         "layer_norm_eps": None, "rope_pct": 0.25, "use_parallel_residual": None}  # fmt: skip

CASES = {
    "gpt2": built(GPT2, GPT2_TABLE, outtypes=ALL, sizes=WIDTHS, dtype="F32"),
    "gpt2-prefix": built(GPT2, PREFIXED, outtypes=ALL, sizes=WIDTHS, dtype="BF16", shards=2),
    "gpt2-head": built({**GPT2, "layer_norm_epsilon": None}, PREFIXED + HEAD, sizes=WIDTHS, dtype="F16"),
    "bigcode": built(BIGCODE, BIGCODE_TABLE, outtypes=ALL, sizes=ONE_KEY),
    "bigcode-few": built({**BIGCODE, "layer_norm_epsilon": None}, BIGCODE_TABLE + HEAD, sizes=ONE_KEY, dtype="F32"),
    "bigcode-sharded": built(BIGCODE, BIGCODE_TABLE, sizes=ONE_KEY, dtype="F16", shards=2),
    "neox": built(NEOX, NEOX_TABLE, outtypes=ALL, dtype="F16"),
    "neox-few": built({**NEOX, "rotary_pct": None, "layer_norm_eps": None, "use_parallel_residual": None}, NEOX_TABLE,
                      shards=3),
    "falcon": built(FALCON, FALCON_TABLE + TWO_NORMS + HEAD, outtypes=ALL, sizes={"fused": 128}),
    "falcon-old": built(OLD_FALCON, FALCON_TABLE + ONE_NORM, sizes={"fused": 96}, dtype="F32"),
    "falcon-refined": built(REFINED, FALCON_TABLE + ONE_NORM + HEAD, sizes={"fused": 96, "blocks": 2}, outtypes=ALL),
    "falcon-every-key": built({**FALCON, "num_kv_heads": None}, FALCON_TABLE + TWO_NORMS, sizes={"fused": 192},
                              dtype="F16", shards=2),
    "starcoder2": built(STARCODER2, STARCODER2_TABLE, outtypes=ALL),
    "starcoder2-few": built({**STARCODER2, "norm_epsilon": None, "rope_theta": None}, STARCODER2_TABLE + HEAD,
                            dtype="F32"),
    "stablelm": built(STABLELM, STABLELM_TABLE, outtypes=ALL),
    "stablelm-few": built({**STABLELM, "layer_norm_eps": None, "use_parallel_residual": None},
                          STABLELM_TABLE + QKV_BIASES, dtype="F16"),
    "stablelm-epoch": built({**STABLELM, **EPOCH}, STABLELM_TABLE, outtypes=ALL, dtype="F32", shards=2),
}  # fmt: skip
