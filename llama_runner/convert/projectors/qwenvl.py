"""Projectors of Qwen2-VL and Qwen2.5-VL.

Follows ``Qwen2VLVisionModel`` of llama.cpp's conversion/qwenvl.py.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from llama_runner.convert.errors import BadHyperparameter, UnsupportedOption
from llama_runner.convert.families.family_definition import Rule
from llama_runner.convert.projectors.projector_definition import (
    SMALL,
    projector,
    require,
    sizes_of_encoder,
    text_settings,
    vision_settings,
    write_encoder,
)
from llama_runner.convert.select_tensor_rows import Rows, part

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llama_runner.convert.gguf_metadata import KeyValues
    from llama_runner.convert.model_config import Config
    from llama_runner.convert.model_directory import ModelDirectory

DEFAULTS2: dict[str, Any] = {
    "depth": 32, "embed_dim": 1280, "hidden_size": 3584, "mlp_ratio": 4, "num_heads": 16,
    "patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2, "image_size": 560,
}  # fmt: skip
DEFAULTS25: dict[str, Any] = {
    "depth": 32, "hidden_size": 3584, "hidden_act": "silu", "intermediate_size": 3420, "num_heads": 16,
    "patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2, "window_size": 112, "image_size": 560,
    "fullatt_block_indexes": [7, 15, 23, 31], "out_hidden_size": 3584,
}  # fmt: skip
MERGED = 2  # patches per side that are merged, in space and in time; llama.cpp knows no other numbers here
WINDOW = 112  # pixels, of llama.cpp
BLOCK, STORED = "v.blk.{bid}.", "visual.blocks.{bid}."


def settings2(source: ModelDirectory) -> dict[str, Any]:
    """Return the settings of Qwen2-VL's vision part under usual names.

    ``hidden_size`` of config.json is the width of the output, ``embed_dim`` that of the encoder. The official script
    writes the former as the length of the feed-forward network, which llama.cpp does not use.
    """
    found = _settings(source, DEFAULTS2, "qwen2_vl_text")
    return {**found, "hidden_size": found["embed_dim"], "intermediate_size": found["hidden_size"]}


def settings25(source: ModelDirectory) -> dict[str, Any]:
    """Return the settings of Qwen2.5-VL's vision part under usual names."""
    found = _settings(source, DEFAULTS25, "qwen2_5_vl_text")
    if "embed_dim" in found:
        raise UnsupportedOption("embed_dim of the vision part", found["embed_dim"])
    return found


def _settings(source: ModelDirectory, defaults: Mapping[str, Any], text: str) -> dict[str, Any]:
    whole, found = source.config, vision_settings(source, defaults)
    return {
        **found,
        **text_settings(source, text, whole),
        "num_hidden_layers": found["depth"],
        "num_attention_heads": found["num_heads"],
        "layer_norm_eps": whole.get("rms_norm_eps", 1e-6),
    }


def dimensions2(config: Config) -> dict[str, int]:
    """Return the sizes of Qwen2-VL."""
    sizes = _dimensions(config)
    inner = int(sizes["width"] * config.positive("mlp_ratio"))
    return {**sizes, "inner": inner, "out": config.integer("intermediate_size")}


def dimensions25(config: Config) -> dict[str, int]:
    """Return the sizes of Qwen2.5-VL."""
    require(config, "window_size", WINDOW)
    require(config, "hidden_act", "silu")
    return {**_dimensions(config), "out": config.integer("out_hidden_size")}


def _dimensions(config: Config) -> dict[str, int]:
    for name in ("spatial_merge_size", "temporal_patch_size"):
        require(config, name, MERGED)
    return sizes_of_qwen(config, MERGED)


def sizes_of_qwen(config: Config, merge: int) -> dict[str, int]:
    """Return the sizes that all Qwen encoders have."""
    sizes = sizes_of_encoder(config)
    width = sizes["width"]
    return {**sizes, "frames": MERGED, "qkv": 3 * width, "merged": width * merge * merge}


def rename(name: str, config: Config) -> str | None:
    """Keep the names of the vision part, without the prefix of newer checkpoints."""
    del config
    name = name.removeprefix("model.")
    return name if name.startswith("visual.") else None


def write(kind: str, values: KeyValues, config: Config, source: ModelDirectory, file_type: int) -> None:
    """Write the metadata; in Qwen2.5-VL every so many blocks attend to the whole image, the others to windows."""
    write_encoder(values, config, source, file_type, kind)
    if kind == "qwen2.5vl_merger":
        values.boolean("clip.use_silu", value=True)
        values.uint32("clip.vision.n_wa_pattern", _period(config))
    values.float32("clip.vision.attention.layer_norm_epsilon", config.find("layer_norm_eps"))


def _period(config: Config) -> int:
    """Return the distance of the blocks that attend to the whole image."""
    name = "fullatt_block_indexes"
    found = config.find(name)
    if not isinstance(found, list) or not found or not all(type(block) is int and block >= 0 for block in found):
        raise BadHyperparameter(name, f"is {found!r}, a list of blocks is expected")
    period = found[0] + 1
    if found != list(range(found[0], found[0] + len(found) * period, period)):
        raise UnsupportedOption(
            name, found, hint="llama.cpp needs them at one distance, the first at that from the start"
        )
    return int(period)


def frame(number: int, sizes: Mapping[str, int]) -> Rows:
    """Return the rows of one frame's kernel, of a convolution over two frames."""
    return part(
        sizes["patch"],
        start=number * sizes["patch"],
        of=sizes["frames"] * sizes["patch"],
        items=sizes["width"] * sizes["colors"],
    )


def third(number: int, sizes: Mapping[str, int]) -> Rows:
    """Return the rows of the queries, keys or values in one matrix."""
    return part(sizes["width"], start=number * sizes["width"], of=sizes["qkv"])


KERNEL, STORED_KERNEL = ("width", "colors", "patch", "patch"), ("width", "colors", "frames", "patch", "patch")
PATCHES = (
    Rule("v.patch_embd", KERNEL, stored=STORED_KERNEL, rows=partial(frame, 0), written_as=SMALL),
    Rule(
        "v.patch_embd.1",
        KERNEL,
        stored=STORED_KERNEL,
        rows=partial(frame, 1),
        written_as=SMALL,
        full_name="v.patch_embd.weight.1",
    ),
)
THIRDS = tuple(
    Rule(f"{BLOCK}attn_{name}", ("width", "width"), bias=True, stored=("qkv", "width"), rows=partial(third, number))
    for number, name in enumerate("qkv")
)
ATTENTION = (
    *THIRDS,
    Rule(f"{BLOCK}attn_out", ("width", "width"), bias=True),
    Rule("mm.0", ("merged", "merged"), bias=True, needs_bias=True),
    Rule("mm.2", ("out", "merged"), bias=True, needs_bias=True),
)
NORMS = (f"{BLOCK}ln1", f"{BLOCK}ln2", "v.post_ln")
TARGETS: dict[str, tuple[str, ...]] = {
    "visual.patch_embed.proj": ("v.patch_embd", "v.patch_embd.1"),
    f"{STORED}norm1": (f"{BLOCK}ln1",),
    f"{STORED}attn.qkv": tuple(rule.name for rule in THIRDS),
    f"{STORED}attn.proj": (f"{BLOCK}attn_out",),
    f"{STORED}norm2": (f"{BLOCK}ln2",),
    "visual.merger.ln_q": ("v.post_ln",),
    "visual.merger.mlp.{bid}": ("mm.{bid}",),
}
QWEN2 = projector(
    settings2,
    partial(write, "qwen2vl_merger"),
    (
        *PATCHES,
        *ATTENTION,
        *(Rule(name, ("width",), bias=True, needs_bias=True) for name in NORMS),
        Rule(f"{BLOCK}ffn_up", ("inner", "width"), bias=True),
        Rule(f"{BLOCK}ffn_down", ("width", "inner"), bias=True),
    ),
    {**TARGETS, f"{STORED}mlp.fc1": (f"{BLOCK}ffn_up",), f"{STORED}mlp.fc2": (f"{BLOCK}ffn_down",)},
    dimensions2,
    rename,
)
QWEN25 = projector(
    settings25,
    partial(write, "qwen2.5vl_merger"),
    (
        *PATCHES,
        *ATTENTION,
        *(Rule(name, ("width",)) for name in NORMS),
        Rule(f"{BLOCK}ffn_gate", ("inner", "width"), bias=True),
        Rule(f"{BLOCK}ffn_up", ("inner", "width"), bias=True),
        Rule(f"{BLOCK}ffn_down", ("width", "inner"), bias=True),
    ),
    {**TARGETS, **{f"{STORED}mlp.{name}_proj": (f"{BLOCK}ffn_{name}",) for name in ("gate", "up", "down")}},
    dimensions25,
    rename,
)
