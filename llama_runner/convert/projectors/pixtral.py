"""Projector with a Pixtral encoder: Pixtral itself, which is a LLaVA, and Mistral 3 with Ministral 3.

Follows ``LlavaVisionModel`` of llama.cpp's conversion/llava.py. llama.cpp ends each row of an image with the embedding
of the token ``[IMG_BREAK]``, which is a row of the text model's embedding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_runner.convert.errors import BadVocabulary, UnsupportedOption
from llama_runner.convert.families.family_definition import Rule
from llama_runner.convert.projectors.projector_definition import (
    SMALL,
    TEXT,
    TEXT_TOKENS,
    projector,
    require,
    sizes_of_encoder,
    text_settings,
    vision_settings,
    write_encoder,
)
from llama_runner.convert.select_tensor_rows import Rows

if TYPE_CHECKING:
    from llama_runner.convert.gguf_metadata import KeyValues
    from llama_runner.convert.model_config import Config
    from llama_runner.convert.model_directory import ModelDirectory

DEFAULTS: dict[str, Any] = {
    "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16,
    "patch_size": 16, "image_size": 1024, "hidden_act": "gelu", "rope_theta": 10000.0, "layer_norm_eps": 1e-5,
}  # fmt: skip
ABSENT = {"model_type": "mistral", "hidden_size": 5120, "vocab_size": 131072}
"""Text part of a Mistral 3 without ``text_config``."""
BREAK = "[IMG_BREAK]"
SEEING = ("vision_tower.", "multi_modal_projector.")
ACTIVATIONS = {"silu": "clip.use_silu", "gelu": "clip.use_gelu"}
LAYER, BLOCK, MATRIX = "vision_tower.transformer.layers.{bid}.", "v.blk.{bid}.", ("width", "width")


def settings(source: ModelDirectory) -> dict[str, Any]:
    """Return the settings of the vision part, and the number of the token that ends a row."""
    whole = source.config
    mistral3 = whole["model_type"] == "mistral3"
    text = text_settings(source, *(("mistral", ABSENT) if mistral3 else ("llama",)))
    found = {**vision_settings(source, DEFAULTS), **text, "break": _number_of(source, BREAK)}
    merge = whole.get("spatial_merge_size", 2 if mistral3 else None)
    if merge is not None:
        found["spatial_merge_size"] = merge
    if (layer := whole.get("vision_feature_layer", -1)) not in (-1, [-1]):
        hint = "llama.cpp takes the last one"
        raise UnsupportedOption("vision_feature_layer in config.json", layer, hint=hint)
    rope = found.get("rope_parameters")
    if isinstance(rope, dict) and "rope_theta" in rope:
        found["rope_theta"] = rope["rope_theta"]
    return found


def _number_of(source: ModelDirectory, token: str) -> int:
    """Return the number of an added token; raises ``BadVocabulary`` if there is none."""
    listed = source.optional_object("tokenizer_config.json").get("added_tokens_decoder")
    for number, added in (listed if isinstance(listed, dict) else {}).items():
        if isinstance(added, dict) and added.get("content") == token and number.isdecimal():
            return int(number)
    listed = source.optional_object("tokenizer.json").get("added_tokens")
    for added in listed if isinstance(listed, list) else []:
        if isinstance(added, dict) and added.get("content") == token and type(added.get("id")) is int:
            return int(added["id"])
    raise BadVocabulary(f"it has no token {token}, which ends each row of an image")


def dimensions(config: Config) -> dict[str, int]:
    """Return the sizes that the shapes of the rules name."""
    require(config, "rope_theta", DEFAULTS["rope_theta"])
    sizes = sizes_of_encoder(config)
    merge = config.integer("spatial_merge_size") if config.find("spatial_merge_size") is not None else 1
    tokens, number = config.integer(TEXT_TOKENS), config.find("break")
    if not 0 < number < tokens:
        raise BadVocabulary(f"{BREAK} is token {number}, the embedding has {tokens}")
    return {**sizes, "merged": sizes["width"] * merge * merge, "tokens": tokens, "break": number}


def rename(name: str, config: Config) -> str | None:
    """Keep the names of the vision part, without the prefix of newer checkpoints, and that of the embedding."""
    del config
    if name.endswith(TEXT):
        return TEXT
    name = name.removeprefix("model.")
    return name if name.startswith(SEEING) else None


def write(values: KeyValues, config: Config, source: ModelDirectory, file_type: int) -> None:
    """Write the metadata."""
    write_encoder(values, config, source, file_type, "pixtral")
    values.float32("clip.vision.attention.layer_norm_epsilon", config.find("layer_norm_eps"))
    activation = config.find("hidden_act")
    if activation not in ACTIVATIONS:
        raise UnsupportedOption("hidden_act of the vision part", activation, hint="silu and gelu are known")
    values.boolean(ACTIVATIONS[activation], value=True)
    if config.find("spatial_merge_size") is not None:
        values.uint32("clip.vision.spatial_merge_size", config.integer("spatial_merge_size"))


RULES = (
    Rule("v.patch_embd", ("width", "colors", "patch", "patch"), written_as=SMALL),
    Rule("v.pre_ln", ("width",)),
    Rule(f"{BLOCK}ln1", ("width",)),
    Rule(f"{BLOCK}attn_q", MATRIX, heads="heads"),
    Rule(f"{BLOCK}attn_k", MATRIX, heads="heads"),
    Rule(f"{BLOCK}attn_v", MATRIX),
    Rule(f"{BLOCK}attn_out", MATRIX),
    Rule(f"{BLOCK}ln2", ("width",)),
    Rule(f"{BLOCK}ffn_gate", ("inner", "width")),
    Rule(f"{BLOCK}ffn_up", ("inner", "width")),
    Rule(f"{BLOCK}ffn_down", ("width", "inner")),
    Rule("mm.1", ("text", "width"), bias=True),
    Rule("mm.2", ("text", "text"), bias=True),
    Rule("mm.input_norm", ("width",), optional=True),
    Rule("mm.patch_merger", ("width", "merged"), optional=True, written_as=SMALL),
    Rule(
        "v.token_embd.img_break",
        ("text",),
        stored=("tokens", "text"),
        rows=lambda sizes: Rows(((1, 1),), start=sizes["break"]),
        full_name="v.token_embd.img_break",
    ),
)
TARGETS: dict[str, tuple[str, ...]] = {
    "vision_tower.patch_conv": ("v.patch_embd",),
    "vision_tower.ln_pre": ("v.pre_ln",),
    f"{LAYER}attention_norm": (f"{BLOCK}ln1",),
    **{f"{LAYER}attention.{name}_proj": (f"{BLOCK}attn_{name}",) for name in ("q", "k", "v")},
    f"{LAYER}attention.o_proj": (f"{BLOCK}attn_out",),
    f"{LAYER}ffn_norm": (f"{BLOCK}ln2",),
    **{f"{LAYER}feed_forward.{name}_proj": (f"{BLOCK}ffn_{name}",) for name in ("gate", "up", "down")},
    "multi_modal_projector.linear_1": ("mm.1",),
    "multi_modal_projector.linear_2": ("mm.2",),
    "multi_modal_projector.norm": ("mm.input_norm",),
    "multi_modal_projector.patch_merger.merging_layer": ("mm.patch_merger",),
    TEXT.removesuffix(".weight"): ("v.token_embd.img_break",),
}
PROJECTOR = projector(settings, write, RULES, TARGETS, dimensions, rename)
