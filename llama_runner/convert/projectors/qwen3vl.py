"""Projector of Qwen3-VL and Qwen3.5, dense and with experts.

Follows ``Qwen3VLVisionModel`` of llama.cpp's conversion/qwen3vl.py. Some blocks have a merger of their own, whose
output is added to the first blocks of the text model (DeepStack).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from llama_runner.convert.errors import BadHyperparameter, shown
from llama_runner.convert.families.family_definition import Rule
from llama_runner.convert.model_config import as_object
from llama_runner.convert.projectors import qwenvl
from llama_runner.convert.projectors.projector_definition import (
    EXACT,
    projector,
    require,
    text_settings,
    vision_settings,
    write_encoder,
)

if TYPE_CHECKING:
    from llama_runner.convert.gguf_metadata import KeyValues
    from llama_runner.convert.model_config import Config
    from llama_runner.convert.model_directory import ModelDirectory

STACKED = "deepstack_visual_indexes"
"""Blocks with a merger of their own, in the order of the stored mergers."""
DEFAULTS: dict[str, Any] = {
    "depth": 27, "hidden_size": 1152, "intermediate_size": 4304, "num_heads": 16, "patch_size": 16,
    "spatial_merge_size": 2, "temporal_patch_size": 2, "out_hidden_size": 3584, "num_position_embeddings": 2304,
    STACKED: [8, 16, 24],
}  # fmt: skip
DEFAULTS35: dict[str, Any] = {
    "patch_size": 16, "spatial_merge_size": 2, "temporal_patch_size": 2, "num_position_embeddings": 2304, STACKED: [],
}  # fmt: skip
"""Those of Qwen3.5, which the transformers of the script does not know."""
LIST = re.compile(r"^visual\.deepstack_merger_list\.(\d{1,4})\.")
BLOCK, STORED, STACK, STORED_STACK = qwenvl.BLOCK, qwenvl.STORED, "v.deepstack.{bid}.", "visual.deepstack.{bid}."
PATCH, STORED_BIAS = "visual.patch_embed.proj", "visual.patch_embed.proj_bias"


def settings(source: ModelDirectory) -> dict[str, Any]:
    """Return the settings of the vision part under usual names; the size of images follows from the positions."""
    whole = source.config
    kind = whole["model_type"]
    found = vision_settings(source, DEFAULTS35 if kind.startswith("qwen3_5") else DEFAULTS)
    text = as_object("text_config", whole.get("text_config"))
    positions, patch = found["num_position_embeddings"], found["patch_size"]
    if "image_size" not in found and type(positions) is int and type(patch) is int and 0 < positions < 1 << 32:
        found["image_size"] = int(positions**0.5 * patch)
    _check_stacked(found[STACKED], found.get("depth"))
    return {
        **found,
        **text_settings(source, f"{kind}_text"),
        "num_hidden_layers": found.get("depth"),
        "num_attention_heads": found.get("num_heads"),
        "layer_norm_eps": text.get("rms_norm_eps", 1e-6),
    }


def _check_stacked(found: object, depth: object) -> None:
    """Raise ``BadHyperparameter`` for what is not a list of different blocks."""
    blocks = depth if type(depth) is int else 0
    if not isinstance(found, list) or len(found) > blocks:  # a long list would be searched again and again
        raise BadHyperparameter(STACKED, f"is {shown(found)}, a list of blocks of {depth} is expected")
    if not all(type(block) is int and 0 <= block < blocks for block in found) or len({*found}) < len(found):
        raise BadHyperparameter(STACKED, f"is {shown(found)}, a list of different blocks of {depth} is expected")


def is_stacked(config: Config, block: int) -> bool:
    """Return whether a block has a merger of its own."""
    return block in config.find(STACKED)


def dimensions(config: Config) -> dict[str, int]:
    """Return the sizes that the shapes of the rules name."""
    require(config, "temporal_patch_size", qwenvl.MERGED)
    sizes = qwenvl.sizes_of_qwen(config, config.integer("spatial_merge_size"))
    return {
        **sizes,
        "out": config.integer("out_hidden_size"),
        "positions": config.integer("num_position_embeddings"),
    }


def rename(name: str, config: Config) -> str | None:
    """Keep the names of the vision part; a merger of a block gets the number of the block."""
    found = qwenvl.rename(name, config)
    if found == f"{PATCH}.bias":
        return STORED_BIAS
    if found is None or (merger := LIST.match(found)) is None:
        return found
    blocks, number = config.find(STACKED), int(merger[1])
    if number >= len(blocks):
        return found  # an unknown tensor
    return STORED_STACK.format(bid=blocks[number]) + found[merger.end() :]


def write(values: KeyValues, config: Config, source: ModelDirectory, file_type: int) -> None:
    """Write the metadata."""
    write_encoder(values, config, source, file_type, "qwen3vl_merger")
    values.boolean("clip.use_gelu", value=True)
    values.uint32("clip.vision.spatial_merge_size", config.integer("spatial_merge_size"))
    values.float32("clip.vision.attention.layer_norm_epsilon", config.find("layer_norm_eps"))
    blocks = frozenset(config.find(STACKED))
    flags = [block in blocks for block in range(config.integer("num_hidden_layers"))]
    values.booleans("clip.vision.is_deepstack_layers", flags)


RULES = (
    *qwenvl.PATCHES,
    Rule("v.patch_embd.0", ("width",), full_name="v.patch_embd.bias"),  # which no row of the kernel is
    Rule("v.position_embd", ("positions", "width"), written_as=EXACT),
    Rule(f"{BLOCK}ln1", ("width",), bias=True),
    Rule(f"{BLOCK}attn_qkv", ("qkv", "width"), bias=True),
    Rule(f"{BLOCK}attn_out", ("width", "width"), bias=True),
    Rule(f"{BLOCK}ln2", ("width",), bias=True),
    Rule(f"{BLOCK}ffn_up", ("inner", "width"), bias=True),
    Rule(f"{BLOCK}ffn_down", ("width", "inner"), bias=True),
    Rule("v.post_ln", ("width",), bias=True),
    Rule("mm.0", ("merged", "merged"), bias=True, needs_bias=True),
    Rule("mm.2", ("out", "merged"), bias=True, needs_bias=True),
    Rule(f"{STACK}norm", ("merged",), bias=True, where=is_stacked),
    Rule(f"{STACK}fc1", ("merged", "merged"), bias=True, where=is_stacked),
    Rule(f"{STACK}fc2", ("out", "merged"), bias=True, where=is_stacked),
)
TARGETS: dict[str, tuple[str, ...]] = {
    PATCH: ("v.patch_embd", "v.patch_embd.1"),
    STORED_BIAS: ("v.patch_embd.0",),
    "visual.pos_embed": ("v.position_embd",),
    f"{STORED}norm1": (f"{BLOCK}ln1",),
    f"{STORED}attn.qkv": (f"{BLOCK}attn_qkv",),
    f"{STORED}attn.proj": (f"{BLOCK}attn_out",),
    f"{STORED}norm2": (f"{BLOCK}ln2",),
    f"{STORED}mlp.linear_fc1": (f"{BLOCK}ffn_up",),
    f"{STORED}mlp.linear_fc2": (f"{BLOCK}ffn_down",),
    "visual.merger.norm": ("v.post_ln",),
    "visual.merger.linear_fc1": ("mm.0",),
    "visual.merger.linear_fc2": ("mm.2",),
    f"{STORED_STACK}norm": (f"{STACK}norm",),
    f"{STORED_STACK}linear_fc1": (f"{STACK}fc1",),
    f"{STORED_STACK}linear_fc2": (f"{STACK}fc2",),
}
PROJECTOR = projector(settings, write, RULES, TARGETS, dimensions, rename)
