"""Tiny vision models with random weights, and what varies in them: for the projectors (mmproj) that are made of them.

Goldens are in tests/data/convert/official/projectors.json, written by tests/data/convert/make_official.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.convert.cases import Case
from tests.convert.checkpoints import copy_tokenizer, encoded, shard, write_json, write_safetensors
from tests.convert.tiny import ALL, FAST, expand

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

MEAN, STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
IMAGES: dict[str, Any] = {"image_mean": MEAN, "image_std": STD, "do_resize": True}
TEXT: dict[str, Any] = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 1, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 336, "rms_norm_eps": 1e-5,
}  # fmt: skip
VISION: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 2,
    "patch_size": 4, "image_size": 32,
}  # fmt: skip
SIZES = {"width": 32, "inner": 48, "patch": 4, "positions": 64, "text": 64, "tokens": 336, "blocks": 3, "experts": 0}
SIGLIP = """
{prefix}embeddings.patch_embedding.weight width 3 patch patch
{prefix}embeddings.patch_embedding.bias width
{prefix}embeddings.position_embedding.weight positions width
{prefix}encoder.layers.{{b}}.layer_norm1.weight width
{prefix}encoder.layers.{{b}}.layer_norm1.bias width
{prefix}encoder.layers.{{b}}.self_attn.q_proj.weight width width
{prefix}encoder.layers.{{b}}.self_attn.q_proj.bias width
{prefix}encoder.layers.{{b}}.self_attn.k_proj.weight width width
{prefix}encoder.layers.{{b}}.self_attn.k_proj.bias width
{prefix}encoder.layers.{{b}}.self_attn.v_proj.weight width width
{prefix}encoder.layers.{{b}}.self_attn.v_proj.bias width
{prefix}encoder.layers.{{b}}.self_attn.out_proj.weight width width
{prefix}encoder.layers.{{b}}.self_attn.out_proj.bias width
{prefix}encoder.layers.{{b}}.layer_norm2.weight width
{prefix}encoder.layers.{{b}}.layer_norm2.bias width
{prefix}encoder.layers.{{b}}.mlp.fc1.weight inner width
{prefix}encoder.layers.{{b}}.mlp.fc1.bias inner
{prefix}encoder.layers.{{b}}.mlp.fc2.weight width inner
{prefix}encoder.layers.{{b}}.mlp.fc2.bias width
{prefix}post_layernorm.weight width
{prefix}post_layernorm.bias width
"""
GEMMA3 = "\n".join((
    "language_model.model.embed_tokens.weight tokens text",
    SIGLIP.format(prefix="vision_tower.vision_model."),
    "multi_modal_projector.mm_input_projection_weight width text",
    "multi_modal_projector.mm_soft_emb_norm.weight width",
))  # fmt: skip
IDEFICS3 = "\n".join((
    "model.text_model.embed_tokens.weight tokens text",
    SIGLIP.format(prefix="model.vision_model."),
    "model.connector.modality_projection.proj.weight text joined",
    "lm_head.weight tokens text",
))  # fmt: skip
PIXTRAL = """
model.embed_tokens.weight tokens text
multi_modal_projector.linear_1.weight text width
multi_modal_projector.linear_2.weight text text
vision_tower.ln_pre.weight width
vision_tower.patch_conv.weight width 3 patch patch
vision_tower.transformer.layers.{b}.attention.k_proj.weight width width
vision_tower.transformer.layers.{b}.attention.o_proj.weight width width
vision_tower.transformer.layers.{b}.attention.q_proj.weight width width
vision_tower.transformer.layers.{b}.attention.v_proj.weight width width
vision_tower.transformer.layers.{b}.attention_norm.weight width
vision_tower.transformer.layers.{b}.feed_forward.down_proj.weight width inner
vision_tower.transformer.layers.{b}.feed_forward.gate_proj.weight inner width
vision_tower.transformer.layers.{b}.feed_forward.up_proj.weight inner width
vision_tower.transformer.layers.{b}.ffn_norm.weight width
lm_head.weight tokens text
"""
PIXTRAL_BIASES = "multi_modal_projector.linear_1.bias text\nmulti_modal_projector.linear_2.bias text\n"
MERGER = """
multi_modal_projector.norm.weight width
multi_modal_projector.patch_merger.merging_layer.weight width merged
"""
QWEN = """
visual.patch_embed.proj.weight width 3 2 patch patch
visual.blocks.{b}.norm1.weight width
visual.blocks.{b}.norm2.weight width
visual.blocks.{b}.attn.qkv.weight qkv width
visual.blocks.{b}.attn.qkv.bias qkv
visual.blocks.{b}.attn.proj.weight width width
visual.blocks.{b}.attn.proj.bias width
visual.merger.ln_q.weight width
visual.merger.mlp.0.weight merged merged
visual.merger.mlp.0.bias merged
visual.merger.mlp.2.weight text merged
visual.merger.mlp.2.bias text
model.embed_tokens.weight tokens text
lm_head.weight tokens text
"""
QWEN2 = (
    QWEN
    + """
visual.blocks.{b}.norm1.bias width
visual.blocks.{b}.norm2.bias width
visual.blocks.{b}.mlp.fc1.weight inner width
visual.blocks.{b}.mlp.fc1.bias inner
visual.blocks.{b}.mlp.fc2.weight width inner
visual.blocks.{b}.mlp.fc2.bias width
visual.merger.ln_q.bias width
"""
)
QWEN25 = (
    QWEN
    + """
visual.blocks.{b}.mlp.gate_proj.weight inner width
visual.blocks.{b}.mlp.gate_proj.bias inner
visual.blocks.{b}.mlp.up_proj.weight inner width
visual.blocks.{b}.mlp.up_proj.bias inner
visual.blocks.{b}.mlp.down_proj.weight width inner
visual.blocks.{b}.mlp.down_proj.bias width
"""
)
QWEN3 = """
model.visual.patch_embed.proj.weight width 3 2 patch patch
model.visual.patch_embed.proj.bias width
model.visual.pos_embed.weight positions width
model.visual.blocks.{b}.norm1.weight width
model.visual.blocks.{b}.norm1.bias width
model.visual.blocks.{b}.norm2.weight width
model.visual.blocks.{b}.norm2.bias width
model.visual.blocks.{b}.attn.qkv.weight qkv width
model.visual.blocks.{b}.attn.qkv.bias qkv
model.visual.blocks.{b}.attn.proj.weight width width
model.visual.blocks.{b}.attn.proj.bias width
model.visual.blocks.{b}.mlp.linear_fc1.weight inner width
model.visual.blocks.{b}.mlp.linear_fc1.bias inner
model.visual.blocks.{b}.mlp.linear_fc2.weight width inner
model.visual.blocks.{b}.mlp.linear_fc2.bias width
model.visual.merger.norm.weight width
model.visual.merger.norm.bias width
model.visual.merger.linear_fc1.weight merged merged
model.visual.merger.linear_fc1.bias merged
model.visual.merger.linear_fc2.weight text merged
model.visual.merger.linear_fc2.bias text
model.language_model.embed_tokens.weight tokens text
lm_head.weight tokens text
"""
STACKED = """
model.visual.deepstack_merger_list.{n}.norm.weight merged
model.visual.deepstack_merger_list.{n}.norm.bias merged
model.visual.deepstack_merger_list.{n}.linear_fc1.weight merged merged
model.visual.deepstack_merger_list.{n}.linear_fc1.bias merged
model.visual.deepstack_merger_list.{n}.linear_fc2.weight text merged
model.visual.deepstack_merger_list.{n}.linear_fc2.bias text
"""
BREAK = {"added_tokens": [{"id": 12, "content": "[IMG_BREAK]"}]}
LISTED = {"added_tokens_decoder": {"3": {"content": "[IMG]"}, "7": {"content": "[IMG_BREAK]"}}}


def seeing(
    config: Mapping[str, Any],
    table: str,
    *,
    outtypes: tuple[str, ...] = ("auto",),
    dtype: str = "BF16",
    shards: int = 0,
    delicate: str = "",
    files: Mapping[str, Any] | None = None,
    text_dtype: str = "",
    name: str = "tiny",
    **sizes: int,
) -> Case:
    """A case of a vision model; ``files`` are JSON files beside config.json, None for one that is left out."""

    def build(directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        write_json(directory / "config.json", config)
        every = {**SIZES, "qkv": 3 * 32, "merged": 4 * 32, "joined": 4 * 32, **sizes}
        shapes = expand(table, every)
        tensors = {
            name: encoded({name: shape}, (text_dtype or dtype) if is_text(name) else dtype, delicate=delicate)[name]
            for name, shape in shapes.items()
        }
        write_safetensors(directory / "model.safetensors", tensors)
        if shards:
            shard(directory, shards)
        copy_tokenizer(directory, "gpt2")
        for file, content in {
            "tokenizer_config.json": FAST,
            "preprocessor_config.json": IMAGES,
            **(files or {}),
        }.items():
            if content is None:
                (directory / file).unlink(missing_ok=True)
            else:
                write_json(directory / file, content)

    return Case(build, outtypes, name=name, projector=True)


def is_text(name: str) -> bool:
    """Whether a tensor is one of the text part."""
    return "embed_tokens" in name or name.startswith("lm_head")


def gemma3(vision: Mapping[str, Any] = VISION, **changes: Any) -> dict[str, Any]:
    return {
        "architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3",
        "text_config": {**TEXT, "model_type": "gemma3_text", "head_dim": 16},
        "vision_config": {**vision, "model_type": "siglip_vision_model"}, **changes,
    }  # fmt: skip


def idefics3(vision: Mapping[str, Any] = VISION, **changes: Any) -> dict[str, Any]:
    return {
        "architectures": ["Idefics3ForConditionalGeneration"], "model_type": "idefics3",
        "text_config": {**TEXT, "model_type": "llama", "architectures": ["VLlama3ForCausalLM"]},
        "vision_config": {"model_type": "idefics3", **vision},
        "scale_factor": 2, **changes,
    }  # fmt: skip


def smolvlm(vision: Mapping[str, Any] = VISION, **changes: Any) -> dict[str, Any]:
    names: dict[str, Any] = {"architectures": ["SmolVLMForConditionalGeneration"], "model_type": "smolvlm"}
    return {**idefics3({**vision, "model_type": "smolvlm_vision"}), **names, **changes}


def pixtral(vision: Mapping[str, Any] = VISION, **changes: Any) -> dict[str, Any]:
    return {
        "architectures": ["LlavaForConditionalGeneration"], "model_type": "llava",
        "text_config": {**TEXT, "model_type": "mistral"},
        "vision_config": {**vision, "model_type": "pixtral", "hidden_act": "silu", "head_dim": 16},
        "vision_feature_layer": -1, **changes,
    }  # fmt: skip


def mistral3(vision: Mapping[str, Any] = VISION, **changes: Any) -> dict[str, Any]:
    names = {"architectures": ["Mistral3ForConditionalGeneration"], "model_type": "mistral3", "spatial_merge_size": 2}
    return {**pixtral(vision), **names, **changes}


QWEN2_VISION: dict[str, Any] = {
    "depth": 3, "embed_dim": 32, "hidden_size": 64, "mlp_ratio": 2, "num_heads": 2, "patch_size": 4, "in_chans": 3,
    "spatial_merge_size": 2, "temporal_patch_size": 2,
}  # fmt: skip
QWEN25_VISION: dict[str, Any] = {
    "depth": 3, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "patch_size": 4, "out_hidden_size": 64,
    "spatial_merge_size": 2, "window_size": 112, "fullatt_block_indexes": [0, 1, 2], "hidden_act": "silu",
}  # fmt: skip
QWEN3_VISION: dict[str, Any] = {
    "depth": 3, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "patch_size": 4, "out_hidden_size": 64,
    "spatial_merge_size": 2, "num_position_embeddings": 64, "deepstack_visual_indexes": [1], "model_type": "qwen3_vl",
}  # fmt: skip
PERIODIC: dict[str, Any] = {**QWEN25_VISION, "depth": 5, "fullatt_block_indexes": [1, 3]}
MROPE = {"rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]}}


def qwen2(vision: Mapping[str, Any] = QWEN2_VISION, **changes: Any) -> dict[str, Any]:
    """As the first files were: what is of the text stands outside."""
    return {
        "architectures": ["Qwen2VLForConditionalGeneration"], "model_type": "qwen2_vl", "vision_config": vision,
        **TEXT, "rms_norm_eps": 1e-6, **MROPE, **changes,
    }  # fmt: skip


def qwen25(vision: Mapping[str, Any] = QWEN25_VISION, **changes: Any) -> dict[str, Any]:
    names: dict[str, Any] = {"architectures": ["Qwen2_5_VLForConditionalGeneration"], "model_type": "qwen2_5_vl"}
    return {**qwen2(vision), **names, **changes}


def qwen3(vision: Mapping[str, Any] = QWEN3_VISION, **changes: Any) -> dict[str, Any]:
    return {
        "architectures": ["Qwen3VLForConditionalGeneration"], "model_type": "qwen3_vl", "vision_config": vision,
        "text_config": {**TEXT, "model_type": "qwen3_vl_text", "rms_norm_eps": 1e-4}, **changes,
    }  # fmt: skip


QWEN35_VISION: dict[str, Any] = {
    **QWEN3_VISION, "deepstack_visual_indexes": [], "model_type": None, "temporal_patch_size": 2,
}  # fmt: skip


def qwen35(vision: Mapping[str, Any] = QWEN35_VISION) -> dict[str, Any]:
    """What transformers of version 4 does not know, so that config.json counts as it stands."""
    names: dict[str, Any] = {"architectures": ["Qwen3_5ForConditionalGeneration"], "model_type": "qwen3_5"}
    return {**qwen3(without(vision, "model_type"), text_config={**TEXT, "model_type": "qwen3_5_text"}), **names}


NESTED = {"text_config": {**TEXT, "model_type": "qwen2_vl_text"}, **dict.fromkeys(TEXT)}
"""As transformers 4.52 and later write it: what is of the text stands in text_config."""


def tokens(number: int) -> dict[str, Any]:
    """The files of a Gemma 3 with so many tokens for an image."""
    return {"preprocessor_config.json": {**IMAGES, "image_seq_length": number}}


def inside(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration without what is None."""
    return {key: value for key, value in config.items() if value is not None}


def without(config: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """A part without some of its keys."""
    return {key: value for key, value in config.items() if key not in names}


PROCESSOR = {"processor_class": "X", "image_processor": {"image_mean": [0.5, 0.5, 0.5], "image_std": STD}}
WRAPPED = {"media_proc_cfg": {**IMAGES, "image_mean": [0.1, 0.2, 0.3]}, "image_std": [0.9, 0.9, 0.9]}
FEW = {"image_mean": MEAN, "image_std": STD}
VISION_FEW = without(VISION, "num_attention_heads")
CASES = {
    "gemma3": seeing(gemma3(), GEMMA3, outtypes=ALL),
    "gemma3-f16": seeing(gemma3(), GEMMA3, dtype="F16", outtypes=ALL, shards=3),
    "gemma3-f32": seeing(
        gemma3(), GEMMA3, dtype="F32", outtypes=ALL,
        delicate="vision_tower.vision_model.encoder.layers.0.mlp.fc1.weight",
    ),
    "gemma3-soft-norm-f32": seeing(
        gemma3(), GEMMA3, dtype="F32", delicate="multi_modal_projector.mm_soft_emb_norm.weight"
    ),
    "gemma3-text-only-16-bits": seeing(gemma3(), GEMMA3, dtype="F32", text_dtype="BF16"),
    "gemma3-few": seeing(
        gemma3(without(VISION, "num_attention_heads", "num_hidden_layers", "hidden_size", "image_size")),
        GEMMA3, files={"preprocessor_config.json": FEW}, blocks=12, width=768, positions=(224 // 4) ** 2,
    ),
    "gemma3-scale": seeing(gemma3(), GEMMA3, files=tokens(16)),
    "gemma3-usual-scale": seeing(gemma3(), GEMMA3, files=tokens(4)),
    "gemma3-one-token": seeing(gemma3(), GEMMA3, files=tokens(1)),
    "gemma3-odd-patches": seeing(
        gemma3({**VISION, "patch_size": 7, "image_size": 31, "layer_norm_eps": 1e-5}), GEMMA3, patch=7, positions=16
    ),
    "gemma3-processor": seeing(
        gemma3(), GEMMA3, files={"preprocessor_config.json": None, "processor_config.json": PROCESSOR}
    ),
    "gemma3-both-files": seeing(gemma3(), GEMMA3, files={"processor_config.json": PROCESSOR}),
    "gemma3-wrapped": seeing(gemma3(), GEMMA3, files={"preprocessor_config.json": WRAPPED}),
    "gemma3-head": seeing(
        gemma3(), GEMMA3 + "\nvision_tower.vision_model.head.probe 1 1 width\n"
    ),
    "gemma3-no-text": seeing(
        {**gemma3(), "text_config": None},
        GEMMA3.replace("input_projection_weight width text", "input_projection_weight width 2304"),
    ),
    "gemma3-card": seeing(gemma3(), GEMMA3, name="gemma-3-tiny-4b-it", files={"generation_config.json": {"top_k": 64}}),
    "idefics3": seeing(idefics3(), IDEFICS3, outtypes=ALL),
    "idefics3-f16": seeing(idefics3(), IDEFICS3, dtype="F16", outtypes=ALL, shards=2),
    "idefics3-size": seeing(
        idefics3(), IDEFICS3, files={"preprocessor_config.json": {**IMAGES, "size": {"longest_edge": 128}}}
    ),
    "idefics3-other-size": seeing(
        idefics3(), IDEFICS3, files={"preprocessor_config.json": {**IMAGES, "size": {"height": 12}}}
    ),
    "idefics3-few": seeing(
        inside({**idefics3(VISION_FEW), "scale_factor": None}), IDEFICS3, dtype="F32", outtypes=("auto", "q8_0")
    ),
    "idefics3-scale": seeing(idefics3(scale_factor=4), IDEFICS3, joined=16 * 32),
    "smolvlm": seeing(smolvlm(), IDEFICS3, outtypes=ALL),
    "smolvlm-few": seeing(
        smolvlm(without(VISION, "num_attention_heads", "intermediate_size")), IDEFICS3, inner=3072, shards=2
    ),
    "pixtral": seeing(pixtral(), PIXTRAL, outtypes=ALL, files={"tokenizer.json": BREAK}),
    "pixtral-f16": seeing(pixtral(), PIXTRAL, dtype="F16", outtypes=ALL, shards=3, files={"tokenizer.json": BREAK}),
    "pixtral-f32": seeing(
        pixtral(), PIXTRAL, dtype="F32", outtypes=ALL, delicate="vision_tower.patch_conv.weight",
        files={"tokenizer_config.json": LISTED},
    ),
    "pixtral-biases": seeing(pixtral(), PIXTRAL + PIXTRAL_BIASES, files={"tokenizer_config.json": LISTED}),
    "pixtral-merge-size": seeing(pixtral(spatial_merge_size=1), PIXTRAL, files={"tokenizer.json": BREAK}),
    "pixtral-few": seeing(
        inside({**pixtral(without(VISION, "num_attention_heads")), "vision_feature_layer": None}),
        PIXTRAL, files={"tokenizer.json": BREAK},
    ),
    "pixtral-eps": seeing(pixtral({**VISION, "layer_norm_eps": 1e-6}), PIXTRAL, files={"tokenizer.json": BREAK}),
    "mistral3": seeing(mistral3(), PIXTRAL + MERGER, outtypes=ALL, files={"tokenizer.json": BREAK}),
    "mistral3-few": seeing(
        inside({**mistral3(), "spatial_merge_size": None}), PIXTRAL + MERGER, dtype="F16",
        files={"tokenizer.json": BREAK},
    ),
    "mistral3-gelu": seeing(
        {**mistral3(), "vision_config": {**VISION, "hidden_act": "gelu"}}, PIXTRAL + MERGER, dtype="F32",
        files={"tokenizer.json": BREAK},
    ),
    "mistral3-ministral": seeing(
        mistral3(text_config={**TEXT, "model_type": "ministral3"}), PIXTRAL + MERGER, files={"tokenizer.json": BREAK}
    ),
    "qwen2vl": seeing(qwen2(), QWEN2, outtypes=ALL, inner=64),
    "qwen2vl-f16": seeing(qwen2(), QWEN2, dtype="F16", outtypes=ALL, shards=3, inner=64),
    "qwen2vl-f32": seeing(
        qwen2(), QWEN2, dtype="F32", outtypes=ALL, inner=64, delicate="visual.patch_embed.proj.weight"
    ),
    "qwen2vl-nested": seeing(inside({**qwen2(), **NESTED}), QWEN2, inner=64),
    "qwen2vl-few": seeing(qwen2(without(QWEN2_VISION, "mlp_ratio", "num_heads")), QWEN2, inner=128),
    "qwen2vl-image-size": seeing(qwen2({**QWEN2_VISION, "image_size": 96}), QWEN2, inner=64),
    "qwen25vl": seeing(qwen25(), QWEN25, outtypes=ALL),
    "qwen25vl-f16": seeing(qwen25(), QWEN25, dtype="F16", outtypes=ALL, shards=2),
    "qwen25vl-f32": seeing(qwen25(), QWEN25, dtype="F32", outtypes=("auto", "f32")),
    "qwen25vl-pattern": seeing(
        qwen25(PERIODIC), QWEN25, blocks=5
    ),
    "qwen25vl-nested": seeing(inside({**qwen25(), **NESTED, "rms_norm_eps": None}), QWEN25),
    "qwen3vl": seeing(qwen3(), QWEN3 + STACKED.replace("{n}", "0"), outtypes=ALL),
    "qwen3vl-f16": seeing(qwen3(), QWEN3 + STACKED.replace("{n}", "0"), dtype="F16", outtypes=ALL, shards=2),
    "qwen3vl-f32": seeing(
        qwen3(), QWEN3 + STACKED.replace("{n}", "0"), dtype="F32", outtypes=("auto", "f32", "q8_0")
    ),
    "qwen3vl-two-mergers": seeing(
        qwen3({**QWEN3_VISION, "depth": 3, "deepstack_visual_indexes": [2, 0]}),
        QWEN3 + STACKED.replace("{n}", "0") + STACKED.replace("{n}", "1"), blocks=3,
    ),
    "qwen3vl-no-mergers": seeing(qwen3({**QWEN3_VISION, "deepstack_visual_indexes": []}), QWEN3),
    "qwen3vl-odd-positions": seeing(
        qwen3({**QWEN3_VISION, "num_position_embeddings": 70, "deepstack_visual_indexes": []}), QWEN3, positions=70
    ),
    "qwen3vl-first-names": seeing(
        qwen3({**QWEN3_VISION, "deepstack_visual_indexes": []}), QWEN3.replace("model.visual", "visual")
    ),
    "qwen35": seeing(qwen35(), QWEN3, outtypes=ALL),
    "qwen35-f16": seeing(qwen35(), QWEN3, dtype="F16", shards=2),
    "qwen35-f32": seeing(qwen35(), QWEN3, dtype="F32"),
    "qwen35-moe": seeing(
        {**qwen35(), "model_type": "qwen3_5_moe", "architectures": ["Qwen3_5MoeForConditionalGeneration"]},
        QWEN3, outtypes=("auto", "q8_0"),
    ),
    "qwen35-few": seeing(qwen35(without(QWEN35_VISION, "deepstack_visual_indexes")), QWEN3),
    "qwen3vlmoe": seeing(
        {
            **qwen3({**QWEN3_VISION, "model_type": "qwen3_vl_moe"}), "model_type": "qwen3_vl_moe",
            "architectures": ["Qwen3VLMoeForConditionalGeneration"],
            "text_config": {**TEXT, "model_type": "qwen3_vl_moe_text"},
        },
        QWEN3 + STACKED.replace("{n}", "0"), outtypes=("auto", "q8_0"),
    ),
}  # fmt: skip
