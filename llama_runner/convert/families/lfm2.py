"""LFM2: blocks with grouped attention, and blocks with a short convolution.

Follows ``LFM2Model`` of llama.cpp's conversion/lfm2.py.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from llama_runner.convert import hyperparameters
from llama_runner.convert.errors import BadHyperparameter
from llama_runner.convert.families import decoder_parts
from llama_runner.convert.families.family_definition import Family, Rule

if TYPE_CHECKING:
    from llama_runner.convert.gguf_metadata import KeyValues
    from llama_runner.convert.model_config import Config
    from llama_runner.convert.model_directory import ModelDirectory

DEFAULTS: dict[str, dict[str, Any]] = {
    "lfm2": {
        "vocab_size": 65536,
        "hidden_size": 2560,
        "intermediate_size": 12288,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "max_position_embeddings": 128000,
        "norm_eps": 1e-5,
        "tie_word_embeddings": True,
        "rope_theta": 1000000.0,
        "conv_L_cache": 3,
        "block_multiple_of": 256,
        "block_ffn_dim_multiplier": 1.0,
        "block_auto_adjust_ff_dim": True,
        "full_attn_idxs": None,
        "layer_types": None,
    }
}
FIRST_NAMES = {"theta": "rope_theta", "block_ff_dim": "intermediate_size", "tie_embedding": "tie_word_embeddings"}
CONVOLUTION = "conv"


def derive(values: dict[str, Any], model_type: str) -> dict[str, Any]:
    """Translate the names of the first files, and fill in the kinds of blocks."""
    del model_type
    for first, name in FIRST_NAMES.items():
        if first in values:
            values[name] = values[first]
    count, full = values["num_hidden_layers"], values["full_attn_idxs"]
    if values["layer_types"] is None and type(count) is int:
        if full is not None and not (isinstance(full, list) and all(type(block) is int for block in full)):
            raise BadHyperparameter("full_attn_idxs", f"is {full!r}, a list of blocks is expected")
        attending = frozenset(range(count) if full is None else full)
        values["layer_types"] = ["full_attention" if block in attending else CONVOLUTION for block in range(count)]
    return values


def kinds_of_blocks(config: Config) -> list[str]:
    """Return the kind of each block."""
    kinds, blocks = config.find("layer_types"), config.integer(*decoder_parts.BLOCKS)
    if not isinstance(kinds, list) or len(kinds) != blocks or not all(isinstance(kind, str) for kind in kinds):
        raise BadHyperparameter("layer_types", f"is {kinds!r}, a kind for each of {blocks} blocks is expected")
    return kinds


def convolves(config: Config, block: int) -> bool:
    """Return whether the block has a convolution."""
    kinds = config.find("layer_types")
    return bool(kinds) and kinds[block] == CONVOLUTION


def attends(config: Config, block: int) -> bool:
    """Return whether the block has attention."""
    return not convolves(config, block)


def inner_size(config: Config) -> int:
    """Return the width of the feed-forward network; if adjusted, two thirds of it times a factor, rounded up."""
    size = config.integer("block_ff_dim", "intermediate_size")
    if not config.find("block_auto_adjust_ff_dim"):
        return size
    size = int(2 * size / 3)
    if config.find("block_ffn_dim_multiplier") is not None:
        size = int(config.number("block_ffn_dim_multiplier") * size)
    multiple = config.integer("block_multiple_of")
    return multiple * ((size + multiple - 1) // multiple)


def dimensions(config: Config) -> dict[str, int]:
    """Return the sizes that the shapes of the rules name."""
    sizes = decoder_parts.dimensions(config)
    kinds_of_blocks(config)
    cache = config.integer("conv_L_cache")
    return {**sizes, "inner": inner_size(config), "cache": cache, "one": 1, "gates": 3 * sizes["width"]}


def write_hyperparameters(values: KeyValues, config: Config, source: ModelDirectory, file_type: int) -> None:
    """Write LFM2's hyperparameters; a convolution block has no key heads."""
    del source
    hyperparameters.write(values, config, file_type)
    heads, kinds = config.integer("num_key_value_heads"), kinds_of_blocks(config)
    values.integers("{arch}.attention.head_count_kv", [0 if kind == CONVOLUTION else heads for kind in kinds])
    values.uint32("{arch}.vocab_size", config.integer("vocab_size"))
    values.uint32("{arch}.shortconv.l_cache", config.integer("conv_L_cache"))
    values.float32("{arch}.attention.layer_norm_rms_epsilon", config.find("norm_eps"))
    values.uint32("{arch}.feed_forward_length", inner_size(config))


RULES = (
    decoder_parts.EMBEDDINGS[0],
    Rule("token_embd_norm", ("width",)),  # llama.cpp's name of the last norm here
    decoder_parts.EMBEDDINGS[2],
    decoder_parts.ATTENTION[0],
    *(replace(rule, bias=False, where=attends) for rule in (*decoder_parts.ATTENTION[1:], *decoder_parts.HEAD_NORMS)),
    Rule("blk.{bid}.shortconv.conv", ("width", "cache"), stored=("width", "one", "cache"), where=convolves),
    Rule("blk.{bid}.shortconv.in_proj", ("gates", "width"), where=convolves),
    Rule("blk.{bid}.shortconv.out_proj", ("width", "width"), where=convolves),
    *(replace(rule, bias=False) for rule in decoder_parts.FEED_FORWARD),
)
FAMILY = Family(
    name="lfm2",
    defaults=DEFAULTS,
    derive=derive,
    rules=RULES,
    dimensions=dimensions,
    rename=decoder_parts.rename,
    hyperparameters=write_hyperparameters,
    vocabulary=decoder_parts.byte_level,
)
