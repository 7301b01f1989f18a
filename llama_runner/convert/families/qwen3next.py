"""Qwen3-Next: blocks of gated attention and of linear attention, with experts, and blocks that predict more tokens.

Follows ``Qwen3NextModel`` of llama.cpp's conversion/qwen.py. The checkpoint has the blocks of predictions (``mtp.``)
apart; they come after all others here. The script fails for a checkpoint without them unless it is told to leave them
out; here it is converted as by the script that is told so.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from llama_runner.convert.errors import BadHyperparameter
from llama_runner.convert.families import decoder_parts, qwen
from llama_runner.convert.families.family_definition import Family, Rule
from llama_runner.convert.model_config import Config
from llama_runner.convert.select_tensor_rows import Rows, part

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llama_runner.convert.families.family_definition import Sizes
    from llama_runner.convert.gguf_metadata import KeyValues
    from llama_runner.convert.model_directory import ModelDirectory
    from llama_runner.convert.safetensors import Tensor

DEFAULTS: dict[str, Any] = {
    **qwen.SPARSE,
    "intermediate_size": 5632,
    "num_hidden_layers": 48,
    "num_attention_heads": 16,
    "num_key_value_heads": 2,
    "partial_rotary_factor": 0.25,
    "head_dim": 256,
    "linear_conv_kernel_dim": 4,
    "linear_key_head_dim": 128,
    "linear_value_head_dim": 128,
    "linear_num_key_heads": 16,
    "linear_num_value_heads": 32,
    "moe_intermediate_size": 512,
    "shared_expert_intermediate_size": 512,
    "num_experts_per_tok": 10,
    "num_experts": 512,
    "layer_types": None,
}
LINEAR, FULL = "linear_attention", "full_attention"
INTERVAL = 4  # every so many blocks one has full attention
PREDICTING = "mtp_num_hidden_layers"
PREDICTING_BLOCK = re.compile(r"mtp\.layers\.(\d+)\.(.+)")
PREDICTING_PARTS = {
    "mtp.fc.": "eh_proj.",
    "mtp.pre_fc_norm_embedding.": "enorm.",
    "mtp.pre_fc_norm_hidden.": "hnorm.",
    "mtp.norm.": "shared_head.norm.",
}
# The pinned llama.cpp names these, gguf's map does not yet.
PREDICTING_TARGETS = {
    "model.layers.{bid}.eh_proj": ("blk.{bid}.nextn.eh_proj",),
    "model.layers.{bid}.enorm": ("blk.{bid}.nextn.enorm",),
    "model.layers.{bid}.hnorm": ("blk.{bid}.nextn.hnorm",),
    "model.layers.{bid}.shared_head.norm": ("blk.{bid}.nextn.shared_head_norm",),
}


def interval_of(config: Config) -> int:
    """Return after how many blocks one has full attention."""
    return config.integer("full_attention_interval") if "full_attention_interval" in config.values else INTERVAL


def predicts_first(config: Config, block: int) -> bool:
    """Return whether the block is the first of those that predict."""
    return block == config.integer("num_hidden_layers")


def attends(config: Config, block: int) -> bool:
    """Return whether the block has full attention."""
    return block >= config.integer("num_hidden_layers") or not (block + 1) % interval_of(config)


def is_linear(config: Config, block: int) -> bool:
    """Return whether the block has linear attention."""
    return not attends(config, block)


def dimensions(config: Config) -> dict[str, int]:
    """Return the sizes that the shapes of the rules name; raises for kinds of blocks that llama.cpp has not."""
    sizes = decoder_parts.dimensions(config)
    kinds = config.find("layer_types")
    own = [FULL if attends(config, block) else LINEAR for block in range(sizes["blocks"])]
    if kinds is not None and kinds != own:
        expected = f"full attention is expected in one of {interval_of(config)} blocks"
        raise BadHyperparameter("layer_types", f"is {kinds!r}, {expected}")
    keys, values = config.integer("linear_num_key_heads"), config.integer("linear_num_value_heads")
    key, value = config.integer("linear_key_head_dim"), config.integer("linear_value_head_dim")
    if values % keys:
        raise BadHyperparameter("linear_num_value_heads", f"is {values}, a multiple of {keys} is expected")
    kernel = config.integer("linear_conv_kernel_dim")
    if kernel == 1:
        raise BadHyperparameter("linear_conv_kernel_dim", "is 1, at least 2 is expected")
    return {
        **sizes,
        "blocks": sizes["blocks"] + config.count(PREDICTING),
        "twice_width": 2 * sizes["width"],
        "gated_queries": 2 * sizes["queries"],
        "key_heads": keys,
        "value_heads": values,
        "key_head": key,
        "value_head": value,
        "shared_values": values // keys,
        "values": values * value,
        "mixed": 2 * keys * key + values * value,
        "fused": 2 * (keys * key + values * value),
        "two_heads": 2 * values,
        "kernel": kernel,
        "one": 1,
    }


def sparse_dimensions(config: Config) -> dict[str, int]:
    """Return the sizes with experts and the shared expert."""
    experts = qwen.shared_dimensions(config)
    return {**experts, **dimensions(config)}


def _of_key_head(sizes: Sizes) -> tuple[int, int, int]:
    """Return the rows of a key head, of the value heads that share it, and of all that is stored together."""
    key, values = sizes["key_head"], sizes["shared_values"] * sizes["value_head"]
    return key, values, 2 * (key + values)


def mixed_rows(sizes: Sizes) -> tuple[Rows, ...]:
    """Return the rows of all queries, then of all keys, then of all values."""
    key, values, stored = _of_key_head(sizes)
    heads = sizes["key_heads"]
    return (
        part(key, start=0, of=stored, items=heads),
        part(key, start=key, of=stored, items=heads),
        part(values, start=2 * key, of=stored, items=heads),
    )


def gate_rows(sizes: Sizes) -> Rows:
    """Return the rows of the gates of all values."""
    key, values, stored = _of_key_head(sizes)
    return part(values, start=2 * key + values, of=stored, items=sizes["key_heads"])


def completed(config: Config, tensors: Sequence[Tensor]) -> Config:
    """Return the configuration with the number of blocks that predict, which the tensors tell."""
    names = [tensor.name.removeprefix("model.") for tensor in tensors]
    numbers = [int(found[1]) for name in names if (found := PREDICTING_BLOCK.fullmatch(name))]
    count = max(numbers, default=-1) + 1
    said = config.count(PREDICTING)
    if said and count and said != count:
        raise BadHyperparameter(PREDICTING, f"is {said}, the weights have {count}")
    return Config(config.architecture, {**config.values, PREDICTING: count}, quantization=config.quantization)


def rename(name: str, config: Config) -> str | None:
    """Rename as for any text part, and put the blocks that predict after all others."""
    text = decoder_parts.rename_text_part(name, config)
    if text is None:
        return None
    if text.startswith("model.mtp."):
        text = text.removeprefix("model.")
    blocks = config.integer("num_hidden_layers")
    if found := PREDICTING_BLOCK.fullmatch(text):
        text = f"model.layers.{blocks + int(found[1])}.{found[2]}"
    for stored, wanted in PREDICTING_PARTS.items():
        if text.startswith(stored):
            text = f"model.layers.{blocks}.{wanted}{text.removeprefix(stored)}"
    if text.endswith(".dt_bias"):
        text = text.removesuffix(".dt_bias") + ".dt_proj.bias"
    return text


def write_hyperparameters(values: KeyValues, config: Config, source: ModelDirectory, file_type: int) -> None:
    """Write the hyperparameters with experts and those of linear attention."""
    qwen.write_sparse(values, config, source, file_type)
    write_linear(values, config, dimensions(config))


def write_linear(values: KeyValues, config: Config, sizes: Sizes) -> None:
    """Write the number of all blocks, and the sizes of linear attention."""
    predicting = config.count(PREDICTING)
    values.uint32("{arch}.block_count", sizes["blocks"])
    if predicting:
        values.uint32("{arch}.nextn_predict_layers", predicting)
    values.uint32("{arch}.ssm.conv_kernel", sizes["kernel"])
    values.uint32("{arch}.ssm.state_size", sizes["key_head"])
    values.uint32("{arch}.ssm.group_count", sizes["key_heads"])
    values.uint32("{arch}.ssm.time_step_rank", sizes["value_heads"])
    values.uint32("{arch}.ssm.inner_size", sizes["values"])
    values.uint32("{arch}.full_attention_interval", interval_of(config))
    share = decoder_parts.rotary_share(config) if "partial_rotary_factor" in config.rope else 0.25
    values.uint32("{arch}.rope.dimension_count", int(sizes["head"] * share))


SHARED_RULES = (
    decoder_parts.EMBEDDINGS[0],
    replace(decoder_parts.EMBEDDINGS[1], shift=1.0),
    decoder_parts.EMBEDDINGS[2],
    replace(decoder_parts.ATTENTION[0], shift=1.0),
    Rule("blk.{bid}.post_attention_norm", ("width",), shift=1.0),
    Rule("blk.{bid}.attn_q", ("gated_queries", "width"), where=attends),
    *(replace(rule, bias=False, where=attends) for rule in decoder_parts.ATTENTION[2:]),
    *(replace(rule, shift=1.0, where=attends) for rule in decoder_parts.HEAD_NORMS),
    Rule("blk.{bid}.ssm_conv1d", ("mixed", "kernel"), stored=("mixed", "one", "kernel"), where=is_linear),
    Rule("blk.{bid}.ssm_norm", ("value_head",), where=is_linear),
    Rule("blk.{bid}.nextn.eh_proj", ("width", "twice_width"), where=predicts_first),
    Rule("blk.{bid}.nextn.enorm", ("width",), shift=1.0, where=predicts_first),
    Rule("blk.{bid}.nextn.hnorm", ("width",), shift=1.0, where=predicts_first),
    Rule("blk.{bid}.nextn.shared_head_norm", ("width",), shift=1.0, where=predicts_first),
)
EXPERTS = (decoder_parts.ROUTER, *decoder_parts.EXPERTS, *qwen.SHARED_EXPERT)
FAMILY = Family(
    name="qwen3next",
    defaults={"qwen3_next": DEFAULTS},
    validated_rope=frozenset({"qwen3_next"}),
    new_rope=frozenset({"qwen3_next"}),
    rules=(
        *SHARED_RULES,
        Rule("blk.{bid}.attn_qkv", ("mixed", "width"), stored=("fused", "width"), rows=mixed_rows, where=is_linear),
        Rule("blk.{bid}.attn_gate", ("values", "width"), stored=("fused", "width"), rows=gate_rows, where=is_linear),
        Rule("blk.{bid}.ssm_ba", ("two_heads", "width"), where=is_linear),
        Rule("blk.{bid}.ssm_dt", ("value_heads",), optional=True, needs_bias=True, where=is_linear),
        Rule("blk.{bid}.ssm_a", ("value_heads",), bare=True, decay=True, where=is_linear),
        Rule("blk.{bid}.ssm_out", ("width", "values"), where=is_linear),
        *EXPERTS,
    ),
    dimensions=sparse_dimensions,
    completed=completed,
    rename=rename,
    hyperparameters=write_hyperparameters,
    vocabulary=decoder_parts.byte_level,
    targets={
        **PREDICTING_TARGETS,
        "model.layers.{bid}.linear_attn.in_proj_qkvz": ("blk.{bid}.attn_qkv", "blk.{bid}.attn_gate"),
    },
    stacks=decoder_parts.STACKS,
)
