"""Tiny models that see or hear, of which the text part is compared: Gemma 3 and 3n, and those of Qwen."""

from __future__ import annotations

from typing import Any

from tests.convert.cases import Case
from tests.convert.checkpoints import encoded
from tests.convert.families import gemma, qwen
from tests.convert.families.quantized import FP8, Entries, of_another, scaled
from tests.convert.tiny import ALL, ATTENTION, EMBEDDINGS, GATED, HEAD, HEAD_NORMS, QKV_BIASES, built, sizes_of

SEEING = """
visual.patch_embed.proj.weight 8 3 2 2 2
visual.blocks.0.norm1.weight 8
visual.blocks.0.attn.qkv.weight 24 8
visual.blocks.0.attn.qkv.bias 24
visual.blocks.0.mlp.fc1.weight 16 8
visual.merger.ln_q.weight 8
visual.merger.mlp.0.weight 32 32
"""
TOWER = """
vision_tower.vision_model.embeddings.patch_embedding.weight 8 3 2 2
vision_tower.vision_model.encoder.layers.0.self_attn.q_proj.weight 8 8
vision_tower.vision_model.encoder.layers.0.self_attn.q_proj.bias 8
vision_tower.vision_model.post_layernorm.weight 8
multi_modal_projector.mm_input_projection_weight 8 width
multi_modal_projector.mm_soft_emb_norm.weight 8
"""
SECOND_VISION = {"depth": 1, "embed_dim": 8, "hidden_size": 64, "num_heads": 2}
THIRD_VISION = {**SECOND_VISION, "deepstack_visual_indexes": [0], "out_hidden_size": 64}


def inside(table: str) -> str:
    """The names that the text part has in checkpoints that were saved with its prefix."""
    return table.replace("model.", "model.language_model.")


def first(table: str) -> str:
    """The names of the text part in the first checkpoints of Gemma 3."""
    return "".join(f"language_model.{line}\n" for line in table.splitlines() if line)


def composite(
    architecture: str, model_type: str, text_type: str, text: dict[str, Any], table: str, *, flat: bool = False,
    vision: dict[str, Any] | None = None, outside: tuple[str, ...] = (), own: dict[str, Any] | None = None,
    part: dict[str, Any] | None = None,
    sizes: dict[str, Any] | None = None,
    more: dict[str, int] | None = None, **options: Any,
) -> Case:  # fmt: skip
    """A composite model; ``flat`` puts the settings of the text part at the top, those ``outside`` stand beside it.

    ``own`` are more settings beside the text part, ``part`` more of the text part itself.
    """
    settings = {key: value for key, value in text.items() if key not in ("architectures", "model_type")}
    settings = {key: value for key, value in settings.items() if value is not None}
    inner = {key: value for key, value in settings.items() if key not in outside}
    around = {"architectures": [architecture], "model_type": model_type, "vision_config": vision or SECOND_VISION,
              "image_token_id": 10, "vision_start_token_id": 11, **(own or {})}  # fmt: skip
    if flat:
        around |= settings
    else:
        around |= {key: settings[key] for key in outside}
        around["text_config"] = {"model_type": text_type, **inner, **(part or {})}
    return built(around, table, sizes=more or sizes_of({**text, **(sizes or {})}), **options)


MROPE: dict[str, Any] = {"type": "mrope", "mrope_section": [2, 3, 3]}
QWEN2: dict[str, Any] = {**qwen.CONFIG, "rope_scaling": MROPE}
TABLE2 = EMBEDDINGS + ATTENTION + QKV_BIASES + GATED
KEPT = ("rms_norm_eps", "rope_theta", "max_position_embeddings", "bos_token_id", "tie_word_embeddings")
FEW: dict[str, Any] = dict.fromkeys(KEPT)
YARN = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "mrope_section": [2, 3, 3]}


def qwen2vl(table: str = TABLE2 + HEAD, *, flat: bool = True, **options: Any) -> Case:
    """A Qwen2-VL; ``text`` changes settings of the text part."""
    text = {**QWEN2, **options.pop("text", {})}
    return composite("Qwen2VLForConditionalGeneration", "qwen2_vl", "qwen2_vl_text", text, table + SEEING, flat=flat,
                     **options)  # fmt: skip


def qwen25vl(table: str = TABLE2 + HEAD, *, flat: bool = True, **options: Any) -> Case:
    """A Qwen2.5-VL."""
    text = {**QWEN2, "sliding_window": 64, "use_sliding_window": False, "max_window_layers": 2,
            **options.pop("text", {})}  # fmt: skip
    return composite("Qwen2_5_VLForConditionalGeneration", "qwen2_5_vl", "qwen2_5_vl_text", text, table + SEEING,
                     flat=flat, **options)  # fmt: skip


TABLE3 = EMBEDDINGS + ATTENTION + HEAD_NORMS + GATED
INTERLEAVED: dict[str, Any] = {"mrope_interleaved": True, "mrope_section": [6, 5, 5], "rope_type": "default"}
QWEN3: dict[str, Any] = {**qwen.CONFIG, "head_dim": 32, "rope_scaling": INTERLEAVED}
PACKED = """
model.layers.{b}.mlp.gate.weight experts width
model.layers.{b}.mlp.experts.gate_up_proj experts width both
model.layers.{b}.mlp.experts.down_proj experts expert_inner width
"""
SPARSE: dict[str, Any] = {**QWEN3, "num_experts": 3, "num_experts_per_tok": 2, "moe_intermediate_size": 32,
                          "decoder_sparse_step": 1, "mlp_only_layers": []}  # fmt: skip
TABLE3_SPARSE = EMBEDDINGS + ATTENTION + HEAD_NORMS + PACKED


def qwen3vl(table: str = TABLE3 + HEAD, **options: Any) -> Case:
    """A Qwen3-VL."""
    text = {**QWEN3, **options.pop("text", {})}
    return composite("Qwen3VLForConditionalGeneration", "qwen3_vl", "qwen3_vl_text", text,
                     inside(table) + "model." + SEEING.strip().replace("\n", "\nmodel."),
                     vision=options.pop("vision", THIRD_VISION), **options)  # fmt: skip


def qwen3vlmoe(table: str = TABLE3_SPARSE + HEAD, **options: Any) -> Case:
    """A Qwen3-VL with experts."""
    text = {**SPARSE, **options.pop("text", {})}
    table = table.replace("both", str(2 * text["moe_intermediate_size"]))
    return composite("Qwen3VLMoeForConditionalGeneration", "qwen3_vl_moe", "qwen3_vl_moe_text", text,
                     inside(table) + "model." + SEEING.strip().replace("\n", "\nmodel."),
                     vision=options.pop("vision", THIRD_VISION), **options)  # fmt: skip


GEMMA: dict[str, Any] = {**gemma.CONFIG, **gemma.GEMMA3}


def gemma3(table: str = first(gemma.THIRD), **options: Any) -> Case:
    """A Gemma 3 that sees."""
    text = {**GEMMA, **options.pop("text", {})}
    return composite("Gemma3ForConditionalGeneration", "gemma3", "gemma3_text", text, table + TOWER,
                     tokenizer="spm", **options)  # fmt: skip


GEMMA3N: dict[str, Any] = {
    **gemma.CONFIG, "vocab_size_per_layer_input": 400, "hidden_size_per_layer_input": 256, "laurel_rank": 64,
    "num_key_value_heads": 2, "altup_active_idx": 0, "altup_num_inputs": 4, "num_kv_shared_layers": 1,
    "sliding_window": 64, "layer_types": ["sliding_attention", "full_attention"],
    "activation_sparsity_pattern": [0.95, 0.0], "intermediate_size": [96, 96], "final_logit_softcapping": 20.0,
}  # fmt: skip
THIRD_N = (
    gemma.THIRD
    + """
model.embed_tokens_per_layer.weight stored_tokens all_blocks
model.per_layer_model_projection.weight all_blocks width
model.per_layer_projection_norm.weight per_block
model.altup_projections.0.weight width width
model.altup_projections.1.weight width width
model.altup_projections.2.weight width width
model.altup_unembed_projections.0.weight width width
model.altup_unembed_projections.1.weight width width
model.altup_unembed_projections.2.weight width width
model.layers.{b}.altup.correct_output_scale width
model.layers.{b}.altup.correction_coefs.weight 4 4
model.layers.{b}.altup.prediction_coefs.weight 16 4
model.layers.{b}.altup.modality_router.weight 4 width
model.layers.{b}.altup.router_norm.weight width
model.layers.{b}.laurel.linear_left.weight rank width
model.layers.{b}.laurel.linear_right.weight width rank
model.layers.{b}.laurel.post_laurel_norm.weight width
model.layers.{b}.per_layer_input_gate.weight per_block width
model.layers.{b}.per_layer_projection.weight width per_block
model.layers.{b}.post_per_layer_input_norm.weight width
"""
)
HEARING = """
model.audio_tower.conformer.0.norm.weight 8
model.embed_audio.embedding.weight 4 8
model.embed_vision.embedding_projection.weight width 8
model.vision_tower.timm_model.conv_stem.conv.weight 8 3 2 2
"""


def gemma3n(table: str = THIRD_N, *, alone: bool = False, **options: Any) -> Case:
    """A Gemma 3n; ``alone`` is the text part as a model of its own."""
    text = {**GEMMA3N, **options.pop("text", {})}
    inner = text["intermediate_size"]
    sizes = sizes_of({**text, "intermediate_size": inner[0] if isinstance(inner, list) else inner})
    block = text["hidden_size_per_layer_input"]
    sizes |= {"per_block": block, "all_blocks": block * text["num_hidden_layers"], "rank": text["laurel_rank"],
              "stored_tokens": text["vocab_size_per_layer_input"]}  # fmt: skip
    if alone:
        config = {**text, "architectures": ["Gemma3nForCausalLM"], "model_type": "gemma3n_text"}
        return built(config, table, sizes=sizes, tokenizer="spm", **options)
    return composite("Gemma3nForConditionalGeneration", "gemma3n", "gemma3n_text", text, inside(table) + HEARING,
                     tokenizer="spm", more=sizes, **options)  # fmt: skip


def fp8(name: str, shape: tuple[int, ...]) -> Entries:
    """The text part's matrices with scales of blocks."""
    if "visual." in name or len(shape) < 2 or "proj" not in name:
        return encoded({name: shape}, "BF16")
    return scaled("weight_scale_inv")(name, shape)


FEW_3N: dict[str, Any] = dict.fromkeys(
    ("rms_norm_eps", "max_position_embeddings", "layer_types", "activation_sparsity_pattern", "sliding_window",
     "final_logit_softcapping", "altup_active_idx", "num_kv_shared_layers")
)  # fmt: skip
CASES = {
    "gemma3n": gemma3n(outtypes=ALL),
    "gemma3n-f16": gemma3n(dtype="F16", shards=2, outtypes=("auto", "q8_0")),
    "gemma3n-f32": gemma3n(dtype="F32", text={"intermediate_size": 96, "vocab_size_per_layer_input": 420}),
    "gemma3n-few": gemma3n(text={**FEW_3N, "num_hidden_layers": 11, "intermediate_size": 96}),
    "gemma3n-alone": gemma3n(alone=True, text={"num_key_value_heads": 4, "activation_sparsity_pattern": [0.5, 0.9]}),
    "gemma3n-alone-f32": gemma3n(alone=True, dtype="F32", shards=2, outtypes=ALL),
    "gemma3n-alone-few": gemma3n(alone=True, text={**FEW_3N, "intermediate_size": 96}, dtype="F16"),
    "qwen2vl": qwen2vl(outtypes=ALL),
    "qwen2vl-tied": qwen2vl(TABLE2, text={"tie_word_embeddings": True}, dtype="F16", shards=2),
    "qwen2vl-few": qwen2vl(text=FEW, dtype="F32"),
    "qwen2vl-inside": qwen2vl(inside(TABLE2 + HEAD), flat=False, outtypes=("auto", "q8_0")),
    "qwen2vl-yarn": qwen2vl(text={"rope_scaling": YARN}),
    "qwen2vl-parameters": qwen2vl(flat=False, text={
        "rope_theta": None, "rope_scaling": None,
        "rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 50000.0}}),
    "qwen2vl-one-key": qwen2vl(text={"num_key_value_heads": 1}, dtype="F16"),
    "qwen2vl-every-key": qwen2vl(text={"num_key_value_heads": 4}, dtype="F32", shards=3),
    "qwen2vl-outside": qwen2vl(flat=False, outside=("tie_word_embeddings",)),
    "qwen25vl": qwen25vl(outtypes=ALL),
    "qwen25vl-tied": qwen25vl(TABLE2, text={"tie_word_embeddings": True}, dtype="F16"),
    "qwen25vl-inside": qwen25vl(inside(TABLE2 + HEAD), flat=False, dtype="F32", shards=2),
    "qwen25vl-few": qwen25vl(flat=False, text=FEW),
    "qwen25vl-no-rope": qwen25vl(text={"rope_scaling": None}),
    "qwen3vl": qwen3vl(outtypes=ALL),
    "qwen3vl-tied": qwen3vl(TABLE3, text={"tie_word_embeddings": True}, own={"tie_word_embeddings": True}, dtype="F16"),
    "qwen3vl-tied-outside": qwen3vl(TABLE3, text={"tie_word_embeddings": True}, outside=("tie_word_embeddings",)),
    "qwen3vl-few": qwen3vl(text={**FEW, "head_dim": None}, sizes={"head_dim": 128}, dtype="F32"),
    "qwen3vl-layers": qwen3vl(vision={**THIRD_VISION, "deepstack_visual_indexes": [1, 3, 5, 7]}, shards=3),
    "qwen3vl-no-layers": qwen3vl(vision={**THIRD_VISION, "deepstack_visual_indexes": []}),
    "qwen3vl-one-key": qwen3vl(text={"num_key_value_heads": 1}, dtype="F16"),
    "qwen3vl-fp8": of_another(qwen3vl(), FP8, fp8),
    "qwen3vlmoe": qwen3vlmoe(outtypes=ALL),
    "qwen3vlmoe-tied": qwen3vlmoe(TABLE3_SPARSE, text={"tie_word_embeddings": True}, dtype="F16", shards=2),
    "qwen3vlmoe-few": qwen3vlmoe(text={**FEW, "head_dim": None}, dtype="F32", outtypes=("auto", "q8_0")),
    "qwen3vlmoe-odd": qwen3vlmoe(text={"moe_intermediate_size": 40, "num_experts": 5}, outtypes=("q8_0",)),
    "gemma3": gemma3(outtypes=ALL),
    "gemma3-inside": gemma3(inside(gemma.THIRD) + HEAD, dtype="F16", shards=2),
    "gemma3-few": gemma3(text=dict.fromkeys(KEPT), dtype="F32"),
    "gemma3-linear": gemma3(text={"rope_scaling": {"rope_type": "linear", "factor": 8.0}}),
    "gemma3-one-key": gemma3(text={"num_key_value_heads": 1}),
}  # fmt: skip
