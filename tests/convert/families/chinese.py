"""Tiny models of ERNIE 4.5 and Hunyuan, those without experts."""

from __future__ import annotations

from typing import Any

from tests.convert.families.llama import CONFIG as LLAMA
from tests.convert.tiny import (
    ALL,
    ATTENTION,
    ATTENTION_BIASES,
    EMBEDDINGS,
    FAST,
    GATED,
    GATED_BIASES,
    HEAD,
    HEAD_NORMS,
    built,
)
from tests.convert.variations import ROPES

BODY = EMBEDDINGS + ATTENTION + GATED
ERNIE: dict[str, Any] = {
    **LLAMA, "architectures": ["Ernie4_5ForCausalLM"], "model_type": "ernie4_5", "vocab_size": 420, "head_dim": 24,
    "tie_word_embeddings": True, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
HUNYUAN: dict[str, Any] = {
    **LLAMA, "architectures": ["HunYuanDenseV1ForCausalLM"], "model_type": "hunyuan_v1_dense", "head_dim": 24,
    "rope_theta": 10000.0, "eod_token_id": 331,
}  # fmt: skip
FEW: dict[str, Any] = dict.fromkeys((
    "rms_norm_eps", "rope_theta", "max_position_embeddings", "tie_word_embeddings", "bos_token_id", "eos_token_id",
))  # fmt: skip
NORMED = BODY + HEAD_NORMS.replace("q_norm", "query_layernorm").replace("k_norm", "key_layernorm")
STRETCHED: dict[str, Any] = {
    "max_position_embeddings": 32768,
    "rope_scaling": {"type": "dynamic", "alpha": 1000.0, "factor": 1.0, "beta_fast": 32, "beta_slow": 1, "mscale": 1.0},
}
ENDS = {"generation_config.json": {"eos_token_id": [7, 8], "temperature": 0.7}}
ONE_END = {"generation_config.json": {"eos_token_id": [7]}}
PIECES: dict[str, Any] = {"tokenizer": "spm"}
CASES = {
    "ernie": built(ERNIE, BODY, outtypes=ALL, **PIECES),
    "ernie-first": built(
        {**ERNIE, "architectures": ["Ernie4_5_ForCausalLM"]}, BODY.replace("model.", "ernie."), dtype="F16", shards=2,
        **PIECES,
    ),
    "ernie-untied": built({**ERNIE, "tie_word_embeddings": False}, BODY + HEAD, dtype="F32", shards=3, **PIECES),
    "ernie-biases": built({**ERNIE, "use_bias": True}, BODY + ATTENTION_BIASES + GATED_BIASES, dtype="F16", **PIECES),
    "ernie-every-key": built({**ERNIE, "num_key_value_heads": 4}, BODY, dtype="F32", **PIECES),
    "ernie-one-key": built({**ERNIE, "num_key_value_heads": 1}, BODY, **PIECES),
    "ernie-few": built({**ERNIE, **FEW}, BODY, dtype="F16", **PIECES),
    "ernie-prefix": built(ERNIE, BODY, files={"tokenizer_config.json": {"add_prefix_space": True}}, **PIECES),
    "ernie-no-prefix": built(ERNIE, BODY, files={"tokenizer_config.json": {"add_prefix_space": False}}, **PIECES),
    **{f"ernie-{kind}": built({**ERNIE, "rope_scaling": rope}, BODY, **PIECES)
       for kind, rope in ROPES.items() if kind in ("linear", "dynamic", "yarn")},
    "hunyuan": built({**HUNYUAN, **STRETCHED}, NORMED + HEAD, outtypes=ALL),
    "hunyuan-tied": built({**HUNYUAN, "tie_word_embeddings": True}, NORMED, dtype="F16", shards=2),
    "hunyuan-tied-copy": built({**HUNYUAN, "tie_word_embeddings": True}, NORMED + HEAD, dtype="F32"),
    "hunyuan-plain": built(HUNYUAN, BODY + HEAD, dtype="F32", shards=3),
    "hunyuan-biases": built({**HUNYUAN, "attention_bias": True}, BODY + HEAD + ATTENTION_BIASES, dtype="F16"),
    "hunyuan-every-key": built({**HUNYUAN, "num_key_value_heads": None}, NORMED + HEAD),
    "hunyuan-one-key": built({**HUNYUAN, "num_key_value_heads": 1}, NORMED + HEAD),
    "hunyuan-few": built({**HUNYUAN, **FEW, "head_dim": None}, BODY + HEAD, dtype="F16"),
    "hunyuan-one-expert": built({**HUNYUAN, "num_experts": 1}, BODY + HEAD),
    "hunyuan-turns": built(HUNYUAN, NORMED + HEAD, files={"tokenizer_config.json": FAST, **ENDS}),
    "hunyuan-one-end": built(HUNYUAN, NORMED + HEAD, files={"tokenizer_config.json": FAST, **ONE_END}),
    "hunyuan-xdrope": built({**HUNYUAN, "rope_scaling": {"type": "xdrope", "alpha": 20.0}}, NORMED + HEAD),
    "hunyuan-no-alpha": built({**HUNYUAN, "max_position_embeddings": 262144, "rope_scaling": {"type": "dynamic"}},
                              NORMED + HEAD),
    "hunyuan-yarn": built({**HUNYUAN, "rope_scaling": ROPES["yarn"]}, NORMED + HEAD),
}  # fmt: skip
