"""Tiny Gemma 1, 2 and 3."""

from __future__ import annotations

from typing import Any

from tests.convert.tiny import ALL, EMBEDDINGS, GATED, HEAD, HEAD_NORMS, built

CONFIG: dict[str, Any] = {
    "architectures": ["GemmaForCausalLM"],
    "model_type": "gemma",
    "vocab_size": 420,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "bos_token_id": 2,
    "eos_token_id": [1, 107],
}
NAMES = ("rms_norm_eps", "max_position_embeddings", "bos_token_id")
GEMMA2 = {"architectures": ["Gemma2ForCausalLM"], "model_type": "gemma2", "sliding_window": 64,
          "attn_logit_softcapping": 40.0, "final_logit_softcapping": 20.0}  # fmt: skip
GEMMA3 = {"architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3_text", "sliding_window": 64}
ATTENTION = """
model.layers.{b}.input_layernorm.weight width
model.layers.{b}.self_attn.q_proj.weight queries width
model.layers.{b}.self_attn.k_proj.weight keys width
model.layers.{b}.self_attn.v_proj.weight keys width
model.layers.{b}.self_attn.o_proj.weight width queries
model.layers.{b}.post_attention_layernorm.weight width
"""
POST_NORMS = """
model.layers.{b}.pre_feedforward_layernorm.weight width
model.layers.{b}.post_feedforward_layernorm.weight width
"""
FIRST = EMBEDDINGS + ATTENTION + GATED
SECOND = FIRST + POST_NORMS
THIRD = SECOND + HEAD_NORMS
FEW = dict.fromkeys(NAMES)
LINEAR = {"rope_type": "linear", "factor": 8.0}
SETTINGS = {"tokenizer_config.json": {"tokenizer_class": "GemmaTokenizer", "add_bos_token": True, "chat_template": "x",
            "added_tokens_decoder": {"2": {"content": "<bos>", "special": True}}}}  # fmt: skip

EMBEDDING: dict[str, Any] = {**CONFIG, **GEMMA3, "architectures": ["Gemma3TextModel"], "num_key_value_heads": 2,
                             "use_bidirectional_attention": True}  # fmt: skip
BARE = THIRD.replace("model.", "")
POOLING = {
    "modules.json": [{"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}],
    "1_Pooling/config.json": {"pooling_mode_mean_tokens": True},
}
CASES = {
    "embedding": built({**EMBEDDING, "num_hidden_layers": 6}, BARE, outtypes=ALL, tokenizer="spm", files=POOLING),
    "embedding-f32": built({**EMBEDDING, "sliding_window": 33, "num_key_value_heads": 1}, BARE, tokenizer="spm",
                           dtype="F32", shards=2),
    "embedding-few": built({**EMBEDDING, **FEW, "use_bidirectional_attention": None}, BARE, tokenizer="spm",
                           dtype="F16", files=POOLING),
    "embedding-every-window": built({**EMBEDDING, "sliding_window_pattern": 1}, BARE, tokenizer="spm"),
    "gemma": built(CONFIG, FIRST, outtypes=ALL, tokenizer="spm"),
    "gemma-f16": built(CONFIG, FIRST + HEAD, outtypes=ALL, tokenizer="spm", dtype="F16", files=SETTINGS),
    "gemma-f32": built({**CONFIG, "num_key_value_heads": 4}, FIRST, tokenizer="spm", dtype="F32", shards=2),
    "gemma-few": built({**CONFIG, **FEW}, FIRST, tokenizer="spm"),
    "gemma2": built({**CONFIG, **GEMMA2}, SECOND, outtypes=ALL, tokenizer="spm", files=SETTINGS),
    "gemma2-few": built({**CONFIG, **GEMMA2, **FEW, "sliding_window": None, "attn_logit_softcapping": None}, SECOND,
                        tokenizer="spm", dtype="F16"),
    "gemma3": built({**CONFIG, **GEMMA3}, THIRD, outtypes=ALL, tokenizer="spm", files=SETTINGS),
    "gemma3-linear": built({**CONFIG, **GEMMA3, "rope_scaling": LINEAR, "final_logit_softcapping": 30.0}, THIRD,
                           tokenizer="spm", dtype="F16"),
    "gemma3-few": built({**CONFIG, **GEMMA3, **FEW, "sliding_window": None}, THIRD + HEAD, tokenizer="spm",
                        dtype="F32", shards=2),
}  # fmt: skip
