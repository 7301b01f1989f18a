"""Gemma 3n: Gemma 3 with four streams of states (AltUp), a low-rank path (LAuReL) and embeddings for each block.

Follows ``Gemma3NModel`` of llama.cpp's conversion/gemma.py. What sees and hears is left out. Embeddings of the blocks
that the checkpoint lacks, for tokens of images and sounds, are zeros.
"""

from __future__ import annotations

import math
import struct
from dataclasses import replace
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

from llama_runner.convert.errors import BadHyperparameter, UnsupportedOption
from llama_runner.convert.families import decoder_parts, gemma
from llama_runner.convert.families.family_definition import Rule

if TYPE_CHECKING:
    from llama_runner.convert.gguf_metadata import KeyValues
    from llama_runner.convert.model_config import Config
    from llama_runner.convert.model_directory import ModelDirectory

DEFAULTS: dict[str, Any] = {
    "vocab_size": 262400,
    "vocab_size_per_layer_input": 262144,
    "hidden_size": 2048,
    "hidden_size_per_layer_input": 256,
    "intermediate_size": 16384,
    "num_hidden_layers": 35,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 256,
    "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000000.0,
    "rope_scaling": None,
    "rope_local_base_freq": 10000.0,
    "tie_word_embeddings": True,
    "sliding_window": 512,
    "layer_types": None,
    "final_logit_softcapping": 30.0,
    "altup_active_idx": 0,
    "altup_num_inputs": 4,
    "num_kv_shared_layers": 15,
    "laurel_rank": 64,
    "activation_sparsity_pattern": None,
}
STREAMS = 4  # the only number that llama.cpp has
FULL_EVERY = 5
SPARSE_BLOCKS, SPARSITY = 10, 0.95  # of a model with more blocks that does not say
STACKED = ("altup_projections.", "altup_unembed_projections.")


def derive(values: dict[str, Any], model_type: str) -> dict[str, Any]:
    """Fill in the kinds of blocks and their sparsity; one size of all feed-forward networks is expected."""
    del model_type
    count, inner = values["num_hidden_layers"], values["intermediate_size"]
    if isinstance(inner, list):
        if not inner or len(inner) != count or any(size != inner[0] for size in inner):
            raise UnsupportedOption("intermediate_size in config.json", inner)
        values["intermediate_size"] = inner[0]
    if type(count) is not int:
        return values
    if values["layer_types"] is None:
        kinds = ("sliding_attention" if number % FULL_EVERY else "full_attention" for number in range(1, count + 1))
        values["layer_types"] = list(kinds)
    if values["activation_sparsity_pattern"] is None:
        sparse = SPARSE_BLOCKS if count > SPARSE_BLOCKS else 0
        values["activation_sparsity_pattern"] = [SPARSITY] * sparse + [0.0] * (count - sparse)
    return values


def dimensions(config: Config) -> dict[str, int]:
    """Return the sizes that the shapes of the rules name."""
    sizes = decoder_parts.dimensions(config)
    if (streams := config.integer("altup_num_inputs")) != STREAMS:
        raise UnsupportedOption("altup_num_inputs in config.json", streams)
    per_block, stored = config.integer("hidden_size_per_layer_input"), config.integer("vocab_size_per_layer_input")
    if stored > sizes["vocabulary"]:
        raise BadHyperparameter("vocab_size_per_layer_input", f"is {stored}, more than vocab_size")
    return {
        **sizes,
        "stored_tokens": stored,
        "per_block": per_block,
        "all_blocks": per_block * sizes["blocks"],
        "streams": streams,
        "others": streams - 1,
        "pairs": streams * streams,
        "rank": config.integer("laurel_rank"),
    }


def rename(name: str, config: Config) -> str | None:
    """Rename as for any text part; a number of its own tells the projections from those of blocks."""
    text = decoder_parts.rename_text_part(name, config)
    if text is None:
        return None
    if text.endswith("_scale"):
        text += ".weight"
    stack = next((stack for stack in STACKED if stack in text), None)
    return text.replace(stack, f"{stack}0.") if stack else text


def _single(value: float) -> float:
    return float(struct.unpack("<f", struct.pack("<f", value))[0])


def sparsity_scale(share: object) -> float:
    """Return how many standard deviations above the mean a share of all numbers ends, rounded as by torch."""
    if type(share) not in (int, float) or not 0 <= share < 1:  # type: ignore[operator]
        raise BadHyperparameter("activation_sparsity_pattern", f"has {share!r}, a number from 0 to below 1 is expected")
    place = _single(2 * _single(float(share))) - 1  # type: ignore[arg-type]
    if place <= -1:
        return -math.inf
    inverse_error = NormalDist().inv_cdf((_single(place) + 1) / 2) / math.sqrt(2)
    return _single(_single(inverse_error) * _single(math.sqrt(2)))


def write_hyperparameters(values: KeyValues, config: Config, source: ModelDirectory, file_type: int) -> None:
    """Write Gemma 3's hyperparameters, and those of the streams and of each block."""
    gemma.write_third(values, config, source, file_type)
    blocks = config.integer(*decoder_parts.BLOCKS)
    kinds, shares = config.find("layer_types"), config.find("activation_sparsity_pattern")
    for name, found in (("layer_types", kinds), ("activation_sparsity_pattern", shares)):
        if not isinstance(found, list) or len(found) != blocks:
            raise BadHyperparameter(name, f"is {found!r}, one for each of {blocks} blocks is expected")
    values.integers("{arch}.feed_forward_length", [config.integer("intermediate_size")] * blocks)
    values.uint32("{arch}.altup.active_idx", config.count("altup_active_idx"))
    values.uint32("{arch}.altup.num_inputs", config.integer("altup_num_inputs"))
    values.uint32("{arch}.embedding_length_per_layer_input", config.integer("hidden_size_per_layer_input"))
    values.uint32("{arch}.attention.shared_kv_layers", config.count("num_kv_shared_layers"))
    values.floats("{arch}.activation_sparsity_scale", [sparsity_scale(share) for share in shares])
    values.booleans("{arch}.attention.sliding_window_pattern", [kind == "sliding_attention" for kind in kinds])


FAMILY = replace(
    gemma.GEMMA3,
    name="gemma3n",
    defaults={"gemma3n_text": DEFAULTS},
    validated_rope=frozenset({"gemma3n_text"}),
    new_rope=frozenset({"gemma3n_text"}),
    derive=derive,
    rules=(
        *(replace(rule, shift=0.0, bias=False) for rule in gemma.GEMMA3.rules),
        Rule("per_layer_token_embd", ("vocabulary", "all_blocks"), stored=("stored_tokens", "all_blocks"), padded=True),
        Rule("per_layer_model_proj", ("all_blocks", "width")),
        Rule("per_layer_proj_norm", ("per_block",)),
        Rule("altup_proj", ("others", "width", "width")),
        Rule("altup_unembd_proj", ("others", "width", "width")),
        Rule("blk.{bid}.inp_gate", ("per_block", "width")),
        Rule("blk.{bid}.proj", ("width", "per_block")),
        Rule("blk.{bid}.post_norm", ("width",)),
        Rule("blk.{bid}.altup_correct_coef", ("streams", "streams")),
        Rule("blk.{bid}.altup_correct_scale", ("width",)),
        Rule("blk.{bid}.altup_predict_coef", ("pairs", "streams")),
        Rule("blk.{bid}.altup_router", ("streams", "width")),
        Rule("blk.{bid}.altup_router_norm", ("width",)),
        Rule("blk.{bid}.laurel_l", ("rank", "width")),
        Rule("blk.{bid}.laurel_r", ("width", "rank")),
        Rule("blk.{bid}.laurel_post_norm", ("width",)),
    ),
    dimensions=dimensions,
    rename=rename,
    hyperparameters=write_hyperparameters,
    targets={
        "model.altup_projections.{bid}": ("altup_proj",),
        "model.altup_unembed_projections.{bid}": ("altup_unembd_proj",),
    },
    stacks=(("altup_proj",), ("altup_unembd_proj",)),
)
COMPOSITE = replace(FAMILY, composite="gemma3n")
