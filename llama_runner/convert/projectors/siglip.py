"""Projectors with a SigLIP encoder: Gemma 3, and Idefics 3 with SmolVLM.

Follows ``Gemma3VisionModel`` of llama.cpp's conversion/gemma.py and ``SmolVLMModel`` of conversion/smolvlm.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_runner.convert.errors import shown
from llama_runner.convert.families.family_definition import Rule
from llama_runner.convert.projectors.projector_definition import (
    EXACT,
    HALF,
    preprocessor,
    projector,
    setting_error,
    sizes_of_encoder,
    text_settings,
    vision_settings,
    write_encoder,
)

if TYPE_CHECKING:
    from llama_runner.convert.gguf_metadata import KeyValues
    from llama_runner.convert.model_config import Config
    from llama_runner.convert.model_directory import ModelDirectory

SIGLIP: dict[str, Any] = {
    "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
    "patch_size": 16, "image_size": 224, "layer_norm_eps": 1e-6,
}  # fmt: skip
IDEFICS: dict[str, Any] = {
    "hidden_size": 1152, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 16,
    "patch_size": 32, "image_size": 224, "layer_norm_eps": 1e-6,
}  # fmt: skip
USUAL_SCALE = 4
"""Patches per side that llama.cpp joins for Gemma 3 where the file says nothing."""
BLOCK, MATRIX = "v.blk.{bid}.", ("width", "width")
ENCODER = (
    Rule("v.patch_embd", ("width", "colors", "patch", "patch"), bias=True, written_as=EXACT),
    Rule("v.position_embd", ("positions", "width"), written_as=EXACT),
    Rule(f"{BLOCK}ln1", ("width",), bias=True),
    *(Rule(f"{BLOCK}attn_{name}", MATRIX, bias=True) for name in ("q", "k", "v", "out")),
    Rule(f"{BLOCK}ln2", ("width",), bias=True),
    Rule(f"{BLOCK}ffn_up", ("inner", "width"), bias=True),
    Rule(f"{BLOCK}ffn_down", ("width", "inner"), bias=True),
    Rule("v.post_ln", ("width",), bias=True),
)


def encoder(prefix: str) -> dict[str, tuple[str, ...]]:
    """Return the stored names of a SigLIP encoder."""
    layer = f"{prefix}encoder.layers.{{bid}}."
    return {
        f"{prefix}embeddings.patch_embedding": ("v.patch_embd",),
        f"{prefix}embeddings.position_embedding": ("v.position_embd",),
        f"{layer}layer_norm1": (f"{BLOCK}ln1",),
        **{f"{layer}self_attn.{name}_proj": (f"{BLOCK}attn_{name}",) for name in ("q", "k", "v", "out")},
        f"{layer}layer_norm2": (f"{BLOCK}ln2",),
        f"{layer}mlp.fc1": (f"{BLOCK}ffn_up",),
        f"{layer}mlp.fc2": (f"{BLOCK}ffn_down",),
        f"{prefix}post_layernorm": ("v.post_ln",),
    }


def dimensions(config: Config) -> dict[str, int]:
    """Return the sizes that the shapes of the rules name."""
    side = config.integer("image_size") // config.integer("patch_size")
    scale = config.integer("scale_factor") if config.find("scale_factor") is not None else 1
    sizes = sizes_of_encoder(config)
    return {**sizes, "positions": side * side, "joined": sizes["width"] * scale * scale}


def gemma_settings(source: ModelDirectory) -> dict[str, Any]:
    """Return the settings of Gemma 3's vision part."""
    return {**vision_settings(source, SIGLIP), **text_settings(source, "gemma3_text")}


def gemma_name(name: str, config: Config) -> str | None:
    """Keep the names of the vision part; newer checkpoints have a prefix before them."""
    del config
    name = name.removeprefix("model.")
    if "vision_model.head." in name or not name.startswith(("vision_tower.", "multi_modal_projector.")):
        return None
    return name.replace("_weight", ".weight")


def write_gemma(values: KeyValues, config: Config, source: ModelDirectory, file_type: int) -> None:
    """Write Gemma 3's metadata; the number of patches that are joined only if it is not the usual one."""
    write_encoder(values, config, source, file_type, "gemma3")
    values.float32("clip.vision.attention.layer_norm_epsilon", config.find("layer_norm_eps"))
    values.boolean("clip.use_gelu", value=True)
    tokens = preprocessor(source).get("image_seq_length", 256)
    if type(tokens) is not int or tokens <= 0:
        raise setting_error(source, "image_seq_length", f"is {shown(tokens)}, a number above zero is expected")
    side = config.integer("image_size") // config.integer("patch_size")
    scale = side // int(tokens**0.5)
    if scale not in (0, USUAL_SCALE):
        values.uint32("clip.vision.projector.scale_factor", scale)


def idefics_settings(source: ModelDirectory) -> dict[str, Any]:
    """Return the settings of Idefics 3's or SmolVLM's vision part."""
    text = text_settings(source, "llama")
    return {**vision_settings(source, IDEFICS), **text, "scale_factor": source.config.get("scale_factor", 2)}


def idefics_name(name: str, config: Config) -> str | None:
    """Keep the names of the vision part."""
    del config
    return name if name.startswith(("model.vision_model.", "model.connector.")) else None


def write_idefics(values: KeyValues, config: Config, source: ModelDirectory, file_type: int) -> None:
    """Write the metadata of Idefics 3 and SmolVLM."""
    write_encoder(values, config, source, file_type, "idefics3")
    values.float32("clip.vision.attention.layer_norm_epsilon", config.find("layer_norm_eps"))
    values.uint32("clip.vision.projector.scale_factor", config.integer("scale_factor"))
    values.boolean("clip.use_gelu", value=True)
    size = preprocessor(source).get("size", {})
    longest = size.get("longest_edge", config.integer("image_size")) if isinstance(size, dict) else None
    if type(longest) is not int or longest <= 0:
        raise setting_error(source, "size", f"is {shown(size)}, an object with longest_edge is expected")
    values.uint32("clip.vision.preproc_image_size", longest)


GEMMA3 = projector(
    gemma_settings,
    write_gemma,
    (
        *ENCODER,
        Rule("mm.input_projection", ("width", "text"), written_as=HALF),
        Rule("mm.soft_emb_norm", ("width",), shift=1.0),
    ),
    {
        **encoder("vision_tower.vision_model."),
        "multi_modal_projector.mm_input_projection": ("mm.input_projection",),
        "multi_modal_projector.mm_soft_emb_norm": ("mm.soft_emb_norm",),
    },
    dimensions,
    gemma_name,
)
IDEFICS3 = projector(
    idefics_settings,
    write_idefics,
    (*ENCODER, Rule("mm.model.fc", ("text", "joined"))),
    {**encoder("model.vision_model."), "model.connector.modality_projection.proj": ("mm.model.fc",)},
    dimensions,
    idefics_name,
)
