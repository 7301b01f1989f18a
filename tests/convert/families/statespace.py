"""Tiny models with state spaces: Mamba 2, Jamba, Qwen3-Next and Qwen3.5."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.convert.cases import Case
from tests.convert.families.qwen import SHARED_EXPERT
from tests.convert.tiny import (
    ALL,
    EMBEDDINGS,
    EXPERTS,
    FAST,
    GATED,
    GPT2_TOKENS,
    HEAD_NORMS,
    built,
    expand,
    sizes_of,
    tiny,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.convert.checkpoints import Shapes

MAMBA2: dict[str, Any] = {
    "architectures": ["Mamba2ForCausalLM"], "model_type": "mamba2", "vocab_size": GPT2_TOKENS, "hidden_size": 64,
    "num_hidden_layers": 2, "head_dim": 16, "num_heads": 8, "n_groups": 2, "state_size": 32, "conv_kernel": 4,
    "expand": 2, "chunk_size": 16, "layer_norm_epsilon": 1e-6, "tie_word_embeddings": False, "use_conv_bias": True,
    "use_bias": False, "bos_token_id": 330, "eos_token_id": 330,
}  # fmt: skip
MAMBA2_TABLE = """
backbone.embeddings.weight vocabulary width
backbone.norm_f.weight width
backbone.layers.{b}.norm.weight width
backbone.layers.{b}.mixer.A_log state_heads
backbone.layers.{b}.mixer.D state_heads
backbone.layers.{b}.mixer.dt_bias state_heads
backbone.layers.{b}.mixer.conv1d.weight channels 1 kernel
backbone.layers.{b}.mixer.conv1d.bias channels
backbone.layers.{b}.mixer.in_proj.weight projected width
backbone.layers.{b}.mixer.norm.weight inner
backbone.layers.{b}.mixer.out_proj.weight width inner
"""
HEAD = "lm_head.weight vocabulary width\n"


def mamba2(table: str = MAMBA2_TABLE + HEAD, *, dtype: str = "BF16", shards: int = 0, rows: int = 0,
           outtypes: tuple[str, ...] = ("auto",), tokenizer: str = "gpt2", old: dict[str, Any] | None = None,
           **changes: Any) -> Case:  # fmt: skip
    """A Mamba 2; ``old`` are settings under the names of the first files, ``rows`` the rows of the embedding."""
    config = {**MAMBA2, **changes}
    width, expand = config["hidden_size"] or (old or {})["d_model"], config["expand"] or 2
    inner, groups, state = width * expand, config["n_groups"] or 1, config["state_size"] or 128
    heads = inner // (config["head_dim"] or 64)
    sizes = {"vocabulary": rows or config["vocab_size"], "width": width, "inner": inner, "state_heads": heads,
             "channels": inner + 2 * groups * state, "projected": 2 * inner + 2 * groups * state + heads,
             "kernel": config["conv_kernel"] or 4, "blocks": 2}  # fmt: skip
    files = {"tokenizer_config.json": FAST} if tokenizer == "gpt2" else None
    return built({**config, **(old or {})}, table, sizes=sizes, dtype=dtype, shards=shards, outtypes=outtypes,
                 tokenizer=tokenizer, files=files)  # fmt: skip


CODESTRAL = MAMBA2_TABLE.replace("backbone.", "model.backbone.") + HEAD.replace("lm_head", "model.lm_head")
QWEN_NEXT: dict[str, Any] = {
    "architectures": ["Qwen3NextForCausalLM"], "model_type": "qwen3_next", "vocab_size": GPT2_TOKENS, "hidden_size": 64,
    "intermediate_size": 96, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32,
    "max_position_embeddings": 128, "rms_norm_eps": 1e-5, "rope_theta": 1000000.0, "partial_rotary_factor": 0.25,
    "tie_word_embeddings": False, "linear_conv_kernel_dim": 4, "linear_key_head_dim": 16, "linear_value_head_dim": 16,
    "linear_num_key_heads": 2, "linear_num_value_heads": 4, "full_attention_interval": 4, "num_experts": 3,
    "num_experts_per_tok": 2, "moe_intermediate_size": 32, "shared_expert_intermediate_size": 40,
    "decoder_sparse_step": 1, "mlp_only_layers": [], "norm_topk_prob": True, "bos_token_id": 330, "eos_token_id": 330,
}  # fmt: skip
FULL = (
    """
model.layers.{b}.self_attn.q_proj.weight gated width
model.layers.{b}.self_attn.k_proj.weight keys width
model.layers.{b}.self_attn.v_proj.weight keys width
model.layers.{b}.self_attn.o_proj.weight width queries
"""
    + HEAD_NORMS
)
LINEAR = """
model.layers.{b}.linear_attn.A_log value_heads
model.layers.{b}.linear_attn.dt_bias value_heads
model.layers.{b}.linear_attn.conv1d.weight mixed 1 kernel
model.layers.{b}.linear_attn.norm.weight value_head
model.layers.{b}.linear_attn.out_proj.weight width values
"""
FUSED = """
model.layers.{b}.linear_attn.in_proj_qkvz.weight fused width
model.layers.{b}.linear_attn.in_proj_ba.weight both_heads width
"""
NORMS = """
model.layers.{b}.input_layernorm.weight width
model.layers.{b}.post_attention_layernorm.weight width
"""
PREDICTING = """
mtp.fc.weight width twice_width
mtp.norm.weight width
mtp.pre_fc_norm_embedding.weight width
mtp.pre_fc_norm_hidden.weight width
"""


def hybrid_shapes(config: Mapping[str, Any], network: str, linear: str, *, predicting: int = 1) -> Shapes:
    """The tensors of a Qwen with linear attention; ``predicting`` blocks predict more tokens."""
    sizes = sizes_of({"head_dim": 256, **{key: value for key, value in config.items() if value is not None}})
    keys, values = config["linear_num_key_heads"], config["linear_num_value_heads"]
    key, value = config["linear_key_head_dim"] * keys, config["linear_value_head_dim"] * values
    sizes |= {"gated": 2 * sizes["queries"], "value_heads": values, "both_heads": 2 * values, "values": value,
              "mixed": 2 * key + value, "fused": 2 * (key + value), "kernel": config["linear_conv_kernel_dim"],
              "value_head": config["linear_value_head_dim"], "twice_width": 2 * sizes["width"],
              "shared_inner": config.get("shared_expert_intermediate_size") or 0,
              "both_inner": 2 * sizes["expert_inner"]}  # fmt: skip
    shapes = expand(EMBEDDINGS + ("" if config.get("tie_word_embeddings") else HEAD), sizes)
    for block in range(sizes["blocks"]):
        full = not (block + 1) % (config.get("full_attention_interval") or 4)
        shapes |= expand(NORMS + network + (FULL if full else LINEAR + linear), sizes, range(block, block + 1))
    if predicting:
        more = expand(NORMS + network + FULL, sizes, range(predicting))
        shapes |= expand(PREDICTING, sizes) | {name.replace("model.", "mtp."): shape for name, shape in more.items()}
    return shapes


def qwen_next(*, dtype: str = "BF16", shards: int = 0, outtypes: tuple[str, ...] = ("auto",), predicting: int = 1,
              **changes: Any) -> Case:  # fmt: skip
    """A Qwen3-Next."""
    config = {**QWEN_NEXT, **changes}
    shapes = hybrid_shapes(config, EXPERTS + SHARED_EXPERT, FUSED, predicting=predicting)
    options = () if predicting else ("--no-mtp",)
    return Case(lambda d: tiny(d, config, shapes, dtype=dtype, shards=shards), outtypes, pre="gpt-2", options=options)


ROPE35 = {"rope_type": "default", "rope_theta": 50000.0, "partial_rotary_factor": 0.5, "mrope_interleaved": True,
          "mrope_section": [3, 3, 2]}  # fmt: skip
QWEN35: dict[str, Any] = {
    **QWEN_NEXT, "rope_theta": None, "partial_rotary_factor": None, "rope_parameters": ROPE35,
    "mtp_num_hidden_layers": 1, "layer_types": ["linear_attention"] * 3 + ["full_attention"], "num_experts": None,
    "num_experts_per_tok": None, "moe_intermediate_size": None, "shared_expert_intermediate_size": None,
}  # fmt: skip
QWEN35_SPARSE: dict[str, Any] = {
    **{key: QWEN_NEXT[key] for key in ("num_experts", "num_experts_per_tok", "moe_intermediate_size")},
    "shared_expert_intermediate_size": 40, "intermediate_size": None,
}  # fmt: skip
APART = """
model.layers.{b}.linear_attn.in_proj_qkv.weight mixed width
model.layers.{b}.linear_attn.in_proj_z.weight values width
model.layers.{b}.linear_attn.in_proj_a.weight value_heads width
model.layers.{b}.linear_attn.in_proj_b.weight value_heads width
"""
TOGETHER = """
model.layers.{b}.mlp.gate.weight experts width
model.layers.{b}.mlp.experts.gate_up_proj experts both_inner width
model.layers.{b}.mlp.experts.down_proj experts width expert_inner
"""


def qwen35(*, sparse: bool = False, alone: bool = False, dtype: str = "BF16", shards: int = 0, predicting: int = 1,
           outtypes: tuple[str, ...] = ("auto",), **changes: Any) -> Case:  # fmt: skip
    """A Qwen3.5 that sees; ``alone`` is the text part as a model of its own."""
    text = {**QWEN35, **(QWEN35_SPARSE if sparse else {}), **changes}
    kind, name = ("qwen3_5_moe", "Qwen3_5Moe") if sparse else ("qwen3_5", "Qwen3_5")
    text |= {"model_type": f"{kind}_text", "architectures": None}
    network = TOGETHER + SHARED_EXPERT if sparse else GATED
    filled = {**text, "intermediate_size": text["intermediate_size"] or 0}
    shapes = hybrid_shapes(filled, network, APART, predicting=predicting)
    if alone:
        config = {**text, "architectures": [f"{name}ForCausalLM"]}
    else:
        settings = {key: value for key, value in text.items() if value is not None}
        config = {"architectures": [f"{name}ForConditionalGeneration"], "model_type": kind, "text_config": settings,
                  "vision_config": {"depth": 1}, "tie_word_embeddings": text["tie_word_embeddings"]}  # fmt: skip
        shapes = {name.replace("model.", "model.language_model.", 1): shape for name, shape in shapes.items()}
        shapes |= {"model.visual.blocks.0.attn.qkv.weight": (24, 8), "model.visual.pos_embed.weight": (8, 8)}
    options = () if predicting else ("--no-mtp",)
    return Case(lambda d: tiny(d, config, shapes, dtype=dtype, shards=shards), outtypes, pre="gpt-2", options=options)


JAMBA: dict[str, Any] = {
    "architectures": ["JambaForCausalLM"], "model_type": "jamba", "vocab_size": 420, "hidden_size": 64,
    "intermediate_size": 96, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5, "max_position_embeddings": 128, "num_experts": 3, "num_experts_per_tok": 2,
    "expert_layer_period": 2, "expert_layer_offset": 1, "attn_layer_period": 4, "attn_layer_offset": 2,
    "mamba_d_state": 16, "mamba_d_conv": 4, "mamba_expand": 2, "mamba_dt_rank": 8, "tie_word_embeddings": False,
    "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
JAMBA_NORMS = """
model.layers.{b}.input_layernorm.weight width
model.layers.{b}.pre_ff_layernorm.weight width
"""
JAMBA_ATTENTION = """
model.layers.{b}.self_attn.q_proj.weight queries width
model.layers.{b}.self_attn.k_proj.weight keys width
model.layers.{b}.self_attn.v_proj.weight keys width
model.layers.{b}.self_attn.o_proj.weight width queries
"""
JAMBA_STATE = """
model.layers.{b}.mamba.A_log channels state
model.layers.{b}.mamba.D channels
model.layers.{b}.mamba.in_proj.weight twice_channels width
model.layers.{b}.mamba.conv1d.weight channels 1 kernel
model.layers.{b}.mamba.conv1d.bias channels
model.layers.{b}.mamba.x_proj.weight selected channels
model.layers.{b}.mamba.dt_proj.weight channels rank
model.layers.{b}.mamba.dt_proj.bias channels
model.layers.{b}.mamba.dt_layernorm.weight rank
model.layers.{b}.mamba.b_layernorm.weight state
model.layers.{b}.mamba.c_layernorm.weight state
model.layers.{b}.mamba.out_proj.weight width channels
"""
JAMBA_NETWORK = """
model.layers.{b}.feed_forward.gate_proj.weight inner width
model.layers.{b}.feed_forward.up_proj.weight inner width
model.layers.{b}.feed_forward.down_proj.weight width inner
"""
JAMBA_EXPERTS = "model.layers.{b}.feed_forward.router.weight experts width" + JAMBA_NETWORK.replace(
    "feed_forward.", "feed_forward.experts.{e}."
)


def jamba(*, dtype: str = "BF16", shards: int = 0, outtypes: tuple[str, ...] = ("auto",), mini: bool = False,
          **changes: Any) -> Case:  # fmt: skip
    """A Jamba; ``mini`` has the names of Mini-Jamba, where each network is that of experts."""
    config = {**JAMBA, **changes}
    filled = {"mamba_dt_rank": 4, "mamba_d_state": 16, "mamba_d_conv": 4}
    filled |= {key: value for key, value in config.items() if isinstance(value, int)}
    sizes, inner = sizes_of(filled), filled["mamba_expand"] * filled["hidden_size"]
    sizes |= {"channels": inner, "twice_channels": 2 * inner, "state": filled["mamba_d_state"],
              "kernel": filled["mamba_d_conv"], "rank": filled["mamba_dt_rank"],
              "selected": filled["mamba_dt_rank"] + 2 * filled["mamba_d_state"]}  # fmt: skip
    ends = EMBEDDINGS.replace(".norm.", ".final_layernorm.")
    shapes = expand(ends + ("" if config["tie_word_embeddings"] else HEAD), sizes)
    for block in range(sizes["blocks"]):
        attends = block % config["attn_layer_period"] == config["attn_layer_offset"]
        sparse = block % config["expert_layer_period"] == config["expert_layer_offset"]
        table = JAMBA_NORMS + (JAMBA_ATTENTION if attends else JAMBA_STATE)
        dense = JAMBA_NETWORK.replace("feed_forward.", "feed_forward.experts.0.") if mini else JAMBA_NETWORK
        shapes |= expand(table + (JAMBA_EXPERTS if sparse else dense), sizes, range(block, block + 1))
    if mini:
        shapes = {name.replace("feed_forward", "moe"): shape for name, shape in shapes.items()}
    return Case(lambda d: tiny(d, config, shapes, dtype=dtype, shards=shards, tokenizer="spm"), outtypes)


NUMBERS = ("head_dim", "n_groups", "state_size", "conv_kernel", "expand", "layer_norm_epsilon")
FEW: dict[str, Any] = dict.fromkeys(NUMBERS)
OTHER_NAMES: dict[str, Any] = dict.fromkeys(("hidden_size", "num_hidden_layers", "tie_word_embeddings"))
NEXT_FEW: dict[str, Any] = dict.fromkeys(
    ("rms_norm_eps", "rope_theta", "max_position_embeddings", "partial_rotary_factor", "full_attention_interval")
)
JAMBA_FEW: dict[str, Any] = dict.fromkeys(
    ("rms_norm_eps", "max_position_embeddings", "mamba_d_state", "mamba_d_conv", "mamba_dt_rank")
)
CASES = {
    "qwen35": qwen35(outtypes=ALL),
    "qwen35-f16": qwen35(dtype="F16", shards=2, tie_word_embeddings=True, linear_num_value_heads=6),
    "qwen35-f32": qwen35(dtype="F32", linear_num_value_heads=2, outtypes=("auto", "q8_0")),
    "qwen35-alone": qwen35(alone=True, num_key_value_heads=1, linear_value_head_dim=8),
    "qwen35-alone-f16": qwen35(alone=True, dtype="F16", shards=2, outtypes=ALL),
    "qwen35-alone-f32": qwen35(alone=True, dtype="F32"),
    "qwen35-no-sections": qwen35(rope_parameters={"rope_type": "default", "rope_theta": 5000.0}),
    "qwen35-predicts-no-more": qwen35(predicting=0, num_key_value_heads=4),
    "qwen35-untold": qwen35(mtp_num_hidden_layers=None, full_attention_interval=None, layer_types=None, predicting=2),
    "qwen35moe": qwen35(sparse=True, outtypes=ALL),
    "qwen35moe-f16": qwen35(sparse=True, dtype="F16", full_attention_interval=2, layer_types=None),
    "qwen35moe-alone-bf16": qwen35(sparse=True, alone=True, shards=2, outtypes=ALL),
    "qwen35moe-alone-f32": qwen35(sparse=True, alone=True, dtype="F32"),
    "qwen35moe-f32": qwen35(sparse=True, dtype="F32", shards=3, linear_num_value_heads=6, num_experts=5),
    "qwen35moe-alone": qwen35(sparse=True, alone=True, dtype="F16", moe_intermediate_size=40, tie_word_embeddings=True),
    "jamba": jamba(outtypes=ALL),
    "jamba-f16": jamba(dtype="F16", shards=2, tie_word_embeddings=True),
    "jamba-f32": jamba(dtype="F32", shards=3, num_key_value_heads=1, outtypes=("auto", "q8_0")),
    "jamba-few": jamba(**JAMBA_FEW),
    "jamba-auto-rank": jamba(mamba_dt_rank="auto", num_key_value_heads=4),
    "jamba-mini": jamba(mini=True, dtype="F16"),
    "jamba-periods": jamba(expert_layer_period=1, expert_layer_offset=0, attn_layer_period=2, attn_layer_offset=0),
    "jamba-state": jamba(mamba_d_state=8, mamba_expand=4, mamba_d_conv=2),
    "next": qwen_next(outtypes=ALL),
    "next-f16": qwen_next(dtype="F16", shards=2, num_key_value_heads=1),
    "next-f32": qwen_next(dtype="F32", shards=3, linear_num_value_heads=2, outtypes=("auto", "q8_0")),
    "next-tied": qwen_next(tie_word_embeddings=True, linear_num_value_heads=6, linear_value_head_dim=8),
    "next-few": qwen_next(head_dim=None, **NEXT_FEW),
    "next-interval": qwen_next(full_attention_interval=2, layer_types=["linear_attention", "full_attention"] * 2),
    "next-predicts-more": qwen_next(predicting=2, num_key_value_heads=4),
    "next-predicts-no-more": qwen_next(predicting=0),
    "next-parameters": qwen_next(
        rope_theta=None, partial_rotary_factor=None,
        rope_parameters={"rope_type": "default", "rope_theta": 50000.0, "partial_rotary_factor": 0.5}),
    "next-yarn": qwen_next(rope_scaling={"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}),
    "mamba2": mamba2(outtypes=ALL),
    "mamba2-tied": mamba2(MAMBA2_TABLE, tie_word_embeddings=True, dtype="F16", outtypes=ALL),
    "mamba2-f32": mamba2(dtype="F32", shards=3, n_groups=1, outtypes=("auto", "q8_0")),
    "mamba2-f64": mamba2(dtype="F64", outtypes=("f32",)),
    "mamba2-codestral": mamba2(CODESTRAL, n_groups=8, tokenizer="spm", vocab_size=432),
    "mamba2-few": mamba2(**FEW),
    "mamba2-padded": mamba2(vocab_size=333, rows=336),
    "mamba2-padded-to": mamba2(vocab_size=333, rows=352, pad_vocab_size_multiple=32, dtype="F16"),
    "mamba2-first-names": mamba2(
        MAMBA2_TABLE.replace("embeddings", "embedding"), old={"d_model": 64, "n_layer": 2},
        **OTHER_NAMES),
    "mamba2-heads": mamba2(head_dim=32, hidden_size=96, dtype="F32"),
    "mamba2-kernel": mamba2(conv_kernel=2, expand=4, dtype="F16"),
}  # fmt: skip
