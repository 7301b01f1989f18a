"""LFM2, dense and with experts: blocks with grouped attention, and blocks with a short convolution.

Follows ``LFM2Model`` and ``LFM2MoeModel`` of llama.cpp's conversion/lfm2.py.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from llama_runner.convert import hyperparameters
from llama_runner.convert.errors import BadHyperparameter
from llama_runner.convert.families import decoder_parts
from llama_runner.convert.families.family_definition import Family, Rule, unchanged

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
CONVOLUTION, ATTENTION = "conv", "full_attention"


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
        values["layer_types"] = [ATTENTION if block in attending else CONVOLUTION for block in range(count)]
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


def is_dense(config: Config, block: int) -> bool:
    """Return whether the block has a feed-forward network without experts."""
    return block < config.count("num_dense_layers")


def is_sparse(config: Config, block: int) -> bool:
    """Return whether the block has experts."""
    return not is_dense(config, block)


def sparse_dimensions(config: Config) -> dict[str, int]:
    """Return the sizes that the shapes of the rules name, including experts."""
    sizes = decoder_parts.dimensions(config)
    kinds_of_blocks(config)
    return {
        **sizes,
        "cache": config.integer("conv_L_cache"),
        "one": 1,
        "gates": 3 * sizes["width"],
        "experts": config.integer("num_local_experts", "num_experts"),
        "expert_inner": config.integer("moe_intermediate_size"),
    }


def rename_sparse(name: str, config: Config) -> str | None:
    """Call the bias of the experts' scores a bias; the experts' own names lack the prefix in gguf's map."""
    if name.endswith(".expert_bias"):
        name += ".bias"
    return decoder_parts.rename(name.removeprefix("model.") if ".experts." in name else name, config)


def write_sparse(values: KeyValues, config: Config, source: ModelDirectory, file_type: int) -> None:
    """Write the hyperparameters with experts; only a block with attention has key heads."""
    del source
    hyperparameters.write(values, config, file_type)
    heads, kinds = config.integer("num_key_value_heads"), kinds_of_blocks(config)
    values.integers("{arch}.attention.head_count_kv", [heads if kind == ATTENTION else 0 for kind in kinds])
    values.uint32("{arch}.expert_feed_forward_length", config.integer("moe_intermediate_size"))
    values.uint32("{arch}.leading_dense_block_count", config.count("num_dense_layers"))
    values.uint32("{arch}.expert_gating_func", hyperparameters.GATING["sigmoid"])
    values.uint32("{arch}.vocab_size", config.integer("vocab_size"))
    values.uint32("{arch}.shortconv.l_cache", config.integer("conv_L_cache"))


BLOCKS = (
    decoder_parts.ATTENTION[0],
    *(replace(rule, bias=False, where=attends) for rule in (*decoder_parts.ATTENTION[1:], *decoder_parts.HEAD_NORMS)),
    Rule("blk.{bid}.shortconv.conv", ("width", "cache"), stored=("width", "one", "cache"), where=convolves),
    Rule("blk.{bid}.shortconv.in_proj", ("gates", "width"), where=convolves),
    Rule("blk.{bid}.shortconv.out_proj", ("width", "width"), where=convolves),
)
RULES = (
    decoder_parts.EMBEDDINGS[0],
    Rule("token_embd_norm", ("width",)),  # llama.cpp's name of the last norm here
    decoder_parts.EMBEDDINGS[2],
    *BLOCKS,
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
SPARSE = replace(
    FAMILY,
    name="lfm2moe",
    defaults={"lfm2_moe": {}},  # transformers does not know it yet, so that config.json counts as it stands
    derive=unchanged,
    rules=(
        *RULES[:2],  # the output matrix is the embedding
        *BLOCKS,
        replace(decoder_parts.FEED_FORWARD[0], bias=False),
        *(replace(rule, bias=False, where=is_dense) for rule in decoder_parts.FEED_FORWARD[1:]),
        replace(decoder_parts.ROUTER, where=is_sparse),
        Rule("blk.{bid}.exp_probs_b", ("experts",), needs_bias=True, optional=True, where=is_sparse),
        *(replace(rule, where=is_sparse) for rule in decoder_parts.EXPERTS),
    ),
    dimensions=sparse_dimensions,
    rename=rename_sparse,
    hyperparameters=write_sparse,
    stacks=(("blk.{bid}.ffn_gate_exps", "blk.{bid}.ffn_down_exps", "blk.{bid}.ffn_up_exps"),),
)
