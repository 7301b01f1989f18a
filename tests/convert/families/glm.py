"""Tiny GLM-4s: the first, that of April 2025, and GLM-4.5 with experts and a block that predicts a further token."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tests.convert.cases import Case
from tests.convert.checkpoints import write_json
from tests.convert.tiny import (
    ALL,
    ATTENTION,
    EMBEDDINGS,
    EXPERTS,
    FAST,
    GATED,
    GPT2_TOKENS,
    HEAD,
    HEAD_NORMS,
    QKV_BIASES,
    expand,
    sizes_of,
    tiny,
)

if TYPE_CHECKING:
    from pathlib import Path

CONFIG: dict[str, Any] = {
    "architectures": ["Glm4ForCausalLM"], "model_type": "glm4", "vocab_size": GPT2_TOKENS, "hidden_size": 64,
    "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "head_dim": 32, "partial_rotary_factor": 0.5, "max_position_embeddings": 128, "rms_norm_eps": 1e-5,
    "rope_theta": 50000.0, "tie_word_embeddings": False, "attention_bias": False,
    "eos_token_id": [330, 331], "pad_token_id": 330,
}  # fmt: skip
FIRST: dict[str, Any] = {"architectures": ["GlmForCausalLM"], "model_type": "glm", "head_dim": 16}
SPARSE: dict[str, Any] = {
    "architectures": ["Glm4MoeForCausalLM"], "model_type": "glm4_moe", "num_hidden_layers": 3,
    "moe_intermediate_size": 32, "n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2,
    "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1, "routed_scaling_factor": 1.5, "norm_topk_prob": True,
}  # fmt: skip
BODY = """
model.layers.{b}.mlp.gate_up_proj.weight both width
model.layers.{b}.mlp.down_proj.weight width inner
"""
NORMS_BEHIND = """
model.layers.{b}.post_self_attn_layernorm.weight width
model.layers.{b}.post_mlp_layernorm.weight width
"""
SHARED = """
model.layers.{b}.mlp.gate.e_score_correction_bias experts
model.layers.{b}.mlp.shared_experts.gate_proj.weight shared_inner width
model.layers.{b}.mlp.shared_experts.up_proj.weight shared_inner width
model.layers.{b}.mlp.shared_experts.down_proj.weight width shared_inner
"""
PREDICTING = """
model.layers.{b}.eh_proj.weight width twice
model.layers.{b}.enorm.weight width
model.layers.{b}.hnorm.weight width
model.layers.{b}.shared_head.norm.weight width
"""
OWN_EMBEDDING = """
model.layers.{b}.embed_tokens.weight vocabulary width
model.layers.{b}.shared_head.head.weight vocabulary width
"""
SPECIALS = ("<|user|>", "[gMASK]", "<|observation|>")
END = {"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
FEW: dict[str, Any] = dict.fromkeys((
    "partial_rotary_factor", "max_position_embeddings", "rms_norm_eps", "rope_theta", "tie_word_embeddings",
    "eos_token_id", "pad_token_id",
))  # fmt: skip
YARN = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64, "beta_fast": 32.0, "beta_slow": 1.0}


def special(directory: Path, settings: dict[str, Any]) -> Path:
    """Give a checkpoint the special tokens by which GLM-4 is known."""
    path = directory / "tokenizer.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    first = document["added_tokens"][0]
    document["added_tokens"] += [{**first, "id": first["id"] + n, "content": t} for n, t in enumerate(SPECIALS, 1)]
    write_json(path, document)
    write_json(directory / "tokenizer_config.json", {**FAST, **settings})
    return directory


def glm(directory: Path, *, dtype: str = "BF16", shards: int = 0, head: bool = True, biases: bool = False,
        settings: dict[str, Any] | None = None, **changes: Any) -> Path:  # fmt: skip
    """A dense GLM-4, of the first kind or of April 2025."""
    config = {**CONFIG, **changes}
    table = EMBEDDINGS + HEAD * head + ATTENTION + BODY + QKV_BIASES * biases
    table += NORMS_BEHIND * (config["model_type"] == "glm4")
    shapes = expand(table, {**sizes_of(config), "both": 2 * config["intermediate_size"]})
    tiny(directory, config, shapes, dtype=dtype, shards=shards)
    return special(directory, END if settings is None else settings)


def moe(directory: Path, *, dtype: str = "BF16", shards: int = 0, head: bool = True, biases: bool = False,
        norms: bool = False, own: bool = False, **changes: Any) -> Path:  # fmt: skip
    """A GLM-4.5; with ``own`` the block that predicts has an embedding and an output matrix of its own."""
    config = {**CONFIG, **SPARSE, **changes}
    count, extra = config["num_hidden_layers"], config.get("num_nextn_predict_layers") or 0
    inner = (config["moe_intermediate_size"] or 0) * (config["n_shared_experts"] or 1)
    sizes = {**sizes_of(config), "shared_inner": inner, "twice": 2 * config["hidden_size"]}
    first = config["first_k_dense_replace"] or 1
    shapes = expand(EMBEDDINGS + HEAD * head, sizes)
    shapes |= expand(ATTENTION + QKV_BIASES * biases + HEAD_NORMS * norms, sizes, range(count + extra))
    shapes |= expand(GATED, sizes, range(first)) | expand(EXPERTS + SHARED, sizes, range(first, count + extra))
    if extra:
        shapes |= expand(PREDICTING + OWN_EMBEDDING * own, sizes, range(count, count + extra))
    tiny(directory, config, shapes, dtype=dtype, shards=shards)
    return special(directory, END)


CASES = {
    "glm": Case(lambda d: glm(d, biases=True, **FIRST), ALL, pre="gpt-2"),
    "glm-few": Case(lambda d: glm(d, head=False, shards=2, dtype="F16", settings={}, num_key_value_heads=4,
                                  **{**FEW, **FIRST, "tie_word_embeddings": True}), pre="gpt-2"),
    "glm-old-names": Case(lambda d: glm(d, dtype="F32", seq_length=512, layernorm_epsilon=1e-6, rope_ratio=500,
                                        ffn_hidden_size=96, **{**FIRST, "head_dim": 24}), ("auto", "q8_0"),
                          pre="gpt-2"),
    "glm4": Case(glm, ALL, pre="gpt-2"),
    "glm4-few": Case(lambda d: glm(d, shards=2, dtype="F16", settings={"bos_token": "[gMASK]"}, **FEW), pre="gpt-2"),
    "glm4-tied": Case(lambda d: glm(d, head=False, biases=True, dtype="F32", tie_word_embeddings=True,
                                    num_key_value_heads=1), ("auto", "q8_0"), pre="gpt-2"),
    "glm4-all-heads": Case(lambda d: glm(d, num_key_value_heads=4, head_dim=16, partial_rotary_factor=1.0,
                                         rope_scaling=YARN), pre="gpt-2"),
    "glm4-number": Case(lambda d: glm(d, eos_token_id=331, bos_token_id=332, settings={}), pre="gpt-2"),
    "moe": Case(lambda d: moe(d, biases=True), ALL, pre="gpt-2"),
    "moe-predicts": Case(lambda d: moe(d, norms=True, biases=True, own=True, num_nextn_predict_layers=1), ALL,
                         pre="gpt-2"),
    "moe-shares": Case(lambda d: moe(d, shards=3, dtype="F16", num_nextn_predict_layers=1, n_shared_experts=2,
                                     first_k_dense_replace=2), ("auto", "q8_0"), pre="gpt-2"),
    "moe-few": Case(lambda d: moe(d, dtype="F32", head=False, **{
        **FEW, "tie_word_embeddings": True, "n_group": None, "topk_group": None, "routed_scaling_factor": None,
        "norm_topk_prob": None, "first_k_dense_replace": None, "n_shared_experts": None, "head_dim": None}),
        pre="gpt-2"),
    "moe-yarn": Case(lambda d: moe(d, rope_scaling=YARN, norm_topk_prob=False, num_key_value_heads=4), pre="gpt-2"),
    "moe-refused": Case(lambda d: moe(d, **{**FEW, "tie_word_embeddings": False, "rope_scaling": {"type": "linear"}}),
                        pre="gpt-2"),
}  # fmt: skip
