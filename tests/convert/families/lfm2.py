"""Tiny models of LFM2, dense and with experts."""

from __future__ import annotations

from typing import Any

from tests.convert.cases import Case
from tests.convert.checkpoints import Shapes
from tests.convert.tiny import ALL, GPT2_TOKENS, HEAD, HEAD_NORMS, expand, sizes_of, tiny

CONFIG: dict[str, Any] = {
    "architectures": ["Lfm2ForCausalLM"], "model_type": "lfm2", "vocab_size": GPT2_TOKENS, "hidden_size": 64,
    "block_ff_dim": 144, "block_auto_adjust_ff_dim": True, "block_ffn_dim_multiplier": 1.0, "block_multiple_of": 32,
    "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128,
    "norm_eps": 1e-6, "rope_theta": 500000.0, "conv_L_cache": 3, "full_attn_idxs": [1, 3], "bos_token_id": 330,
    "eos_token_id": 330,
}  # fmt: skip
BODY = """
model.embed_tokens.weight vocabulary width
model.embedding_norm.weight width
model.layers.{b}.operator_norm.weight width
model.layers.{b}.ffn_norm.weight width
model.layers.{b}.feed_forward.w1.weight inner width
model.layers.{b}.feed_forward.w2.weight width inner
model.layers.{b}.feed_forward.w3.weight inner width
"""
ATTENTION = """
model.layers.{b}.self_attn.q_proj.weight queries width
model.layers.{b}.self_attn.k_proj.weight keys width
model.layers.{b}.self_attn.v_proj.weight keys width
model.layers.{b}.self_attn.out_proj.weight width queries
""" + HEAD_NORMS.replace("_norm", "_layernorm")
CONVOLUTION = """
model.layers.{b}.conv.conv.weight width 1 cache
model.layers.{b}.conv.in_proj.weight 192 width
model.layers.{b}.conv.out_proj.weight width width
"""


def lfm2(*, inner: int = 96, attending: tuple[int, ...] = (1, 3), outtypes: tuple[str, ...] = ("auto",),
         dtype: str = "BF16", shards: int = 0, head: str = "", **changes: Any) -> Case:  # fmt: skip
    """A model of which the ``attending`` blocks have attention; ``inner`` is the width that follows from the rest."""
    config = {**CONFIG, **changes}
    sizes = {**sizes_of(config), "inner": inner, "cache": config["conv_L_cache"] or 3}
    shapes: Shapes = expand(BODY + head, sizes)
    for block in range(config["num_hidden_layers"]):
        shapes |= expand(ATTENTION if block in attending else CONVOLUTION, sizes, range(block, block + 1))
    return Case(lambda d: tiny(d, config, shapes, dtype=dtype, shards=shards), outtypes, pre="gpt-2")


SPARSE_CONFIG: dict[str, Any] = {
    "architectures": ["Lfm2MoeForCausalLM"], "model_type": "lfm2_moe", "vocab_size": GPT2_TOKENS, "hidden_size": 64,
    "intermediate_size": 96, "moe_intermediate_size": 32, "num_experts": 4, "num_experts_per_tok": 2,
    "num_dense_layers": 1, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2,
    "max_position_embeddings": 128, "norm_eps": 1e-6, "rope_theta": 500000.0, "conv_L_cache": 3, "conv_bias": False,
    "use_expert_bias": True, "norm_topk_prob": True, "routed_scaling_factor": 1.0, "bos_token_id": 330,
    "eos_token_id": 330, "layer_types": ["conv", "full_attention", "conv", "full_attention"],
}  # fmt: skip
DENSE_PART = "".join(line + "\n" for line in BODY.splitlines() if ".feed_forward." in line)
SPARSE_PART = """
model.layers.{b}.feed_forward.gate.weight experts width
model.layers.{b}.feed_forward.expert_bias experts
model.layers.{b}.feed_forward.experts.{e}.w1.weight expert_inner width
model.layers.{b}.feed_forward.experts.{e}.w2.weight width expert_inner
model.layers.{b}.feed_forward.experts.{e}.w3.weight expert_inner width
"""


def lfm2_moe(
    *, outtypes: tuple[str, ...] = ("auto",), dtype: str = "BF16", shards: int = 0, **changes: Any
) -> Case:  # fmt: skip
    """A model with experts after the first ``num_dense_layers`` blocks."""
    config = {**SPARSE_CONFIG, **changes}
    sizes = {**sizes_of(config), "cache": config["conv_L_cache"]}
    shapes: Shapes = expand(BODY.replace(DENSE_PART, ""), sizes)
    for block, kind in enumerate(config["layer_types"]):
        own = range(block, block + 1)
        shapes |= expand(CONVOLUTION if kind == "conv" else ATTENTION, sizes, own)
        shapes |= expand(DENSE_PART if block < (config["num_dense_layers"] or 0) else SPARSE_PART, sizes, own)
    return Case(lambda d: tiny(d, config, shapes, dtype=dtype, shards=shards), outtypes, pre="gpt-2")


KINDS = ["conv", "full_attention", "conv", "full_attention"]
SPARSE_FEW: dict[str, Any] = dict.fromkeys(("norm_eps", "rope_theta", "max_position_embeddings"))
FEW: dict[str, Any] = dict.fromkeys(("norm_eps", "rope_theta", "max_position_embeddings", "conv_L_cache"))
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}
CASES = {
    "lfm2": lfm2(outtypes=ALL),
    "f16": lfm2(dtype="F16", shards=3, outtypes=ALL),
    "f32": lfm2(dtype="F32", shards=2, outtypes=ALL, conv_L_cache=4),
    "kinds": lfm2(layer_types=KINDS, full_attn_idxs=None),
    "all-attend": lfm2(attending=(0, 1, 2, 3), full_attn_idxs=None, num_key_value_heads=4),
    "none-attends": lfm2(attending=(), full_attn_idxs=[], num_key_value_heads=1),
    "one-key": lfm2(num_key_value_heads=1, dtype="F16"),
    "as-given": lfm2(inner=144, block_auto_adjust_ff_dim=False),
    "as-given-anew": lfm2(inner=160, block_auto_adjust_ff_dim=False, block_ff_dim=None, intermediate_size=160),
    "both-given": lfm2(inner=144, block_auto_adjust_ff_dim=False, intermediate_size=160),
    "wider": lfm2(inner=128, block_ffn_dim_multiplier=1.3),
    "few": lfm2(dtype="F16", **FEW),
    "first-names": lfm2(theta=10000.0, tie_embedding=False, head=HEAD),
    "untied": lfm2(head=HEAD, tie_word_embeddings=False),
    "parameters": lfm2(rope_theta=None, rope_parameters={"rope_type": "default", "rope_theta": 50000.0}),
    "yarn": lfm2(rope_scaling=YARN),
    "experts": lfm2_moe(outtypes=ALL),
    "experts-f16": lfm2_moe(dtype="F16", shards=2, num_dense_layers=2),
    "experts-f32": lfm2_moe(dtype="F32", num_dense_layers=0, shards=3, outtypes=("auto", "q8_0")),
    "experts-one-key": lfm2_moe(num_key_value_heads=1, conv_L_cache=4, num_experts=3),
    "experts-all-attend": lfm2_moe(layer_types=["full_attention"] * 4, num_key_value_heads=4),
    "experts-parameters": lfm2_moe(
        rope_theta=None, rope_parameters={"rope_type": "default", "rope_theta": 50000.0}, norm_eps=1e-5
    ),
    "experts-few": lfm2_moe(**SPARSE_FEW),
    "old-name": lfm2(architectures=["LFM2ForCausalLM"]),
}
