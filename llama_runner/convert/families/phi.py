"""Phi 2, Phi 3 and 3.5 (and 4, which is the same) with LongRoPE, and Phi-MoE.

Follows ``Phi2Model``, ``Phi3MiniModel`` and ``PhiMoeModel`` of llama.cpp's conversion/phi.py.
"""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from llama_runner.convert import hyperparameters
from llama_runner.convert.errors import BadHyperparameter, UnsupportedOption
from llama_runner.convert.families import decoder_parts
from llama_runner.convert.families.family_definition import ComputedTensor, Family, Rule
from llama_runner.convert.families.llama import MIXTRAL_EXPERTS, MIXTRAL_STACKS
from llama_runner.convert.model_config import full_rope
from llama_runner.convert.vocab.tokenizer_classes import CLASS_OF_5

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llama_runner.convert.gguf_metadata import KeyValues
    from llama_runner.convert.model_config import Config
    from llama_runner.convert.model_directory import ModelDirectory
    from llama_runner.convert.vocab import Vocabulary

DEFAULTS: dict[str, dict[str, Any]] = {
    "phi": {
        "vocab_size": 51200,
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 24,
        "num_attention_heads": 32,
        "num_key_value_heads": None,
        "max_position_embeddings": 2048,
        "layer_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "rope_scaling": None,
        "partial_rotary_factor": 0.5,
        "tie_word_embeddings": False,
    },
    "phi3": {
        "vocab_size": 32064,
        "hidden_size": 3072,
        "intermediate_size": 8192,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": None,
        "max_position_embeddings": 4096,
        "original_max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "rope_scaling": None,
        "partial_rotary_factor": 1.0,
        "sliding_window": None,
        "tie_word_embeddings": False,
    },
    "phimoe": {
        "vocab_size": 32064,
        "hidden_size": 4096,
        "intermediate_size": 6400,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-5,
        "rope_theta": 1000000.0,
        "rope_scaling": None,
        "sliding_window": None,
        "tie_word_embeddings": False,
        "num_experts_per_tok": 2,
        "num_local_experts": 16,
    },
}
PHI2_RULES = (
    Rule("token_embd", ("vocabulary", "width")),
    Rule("output_norm", ("width",), needs_bias=True),
    Rule("output", ("vocabulary", "width"), needs_bias=True),
    Rule("blk.{bid}.attn_norm", ("width",), needs_bias=True),
    *(replace(rule, bias=False, needs_bias=True) for rule in decoder_parts.ATTENTION[1:]),
    Rule("blk.{bid}.ffn_up", ("inner", "width"), needs_bias=True),
    Rule("blk.{bid}.ffn_down", ("width", "inner"), needs_bias=True),
)
PHI3_RULES = (
    *decoder_parts.EMBEDDINGS,
    Rule("blk.{bid}.attn_norm", ("width",)),
    Rule("blk.{bid}.attn_qkv", ("fused", "width")),
    Rule("blk.{bid}.attn_output", ("width", "queries")),
    Rule("blk.{bid}.ffn_norm", ("width",)),
    Rule("blk.{bid}.ffn_up", ("both_inner", "width")),
    Rule("blk.{bid}.ffn_down", ("width", "inner")),
)
MOE_RULES = (
    *decoder_parts.EMBEDDINGS[:1],
    Rule("output_norm", ("width",), needs_bias=True),
    Rule("output", ("vocabulary", "width"), needs_bias=True),
    Rule("blk.{bid}.attn_norm", ("width",), needs_bias=True),
    *decoder_parts.ATTENTION[1:],
    Rule("blk.{bid}.ffn_norm", ("width",), needs_bias=True),
    *MIXTRAL_EXPERTS[1:],
)
PHI2_ROWS: tuple[hyperparameters.Row, ...] = (("context_length", "uint32", ("n_positions", "max_position_embeddings")),)
EPSILON: tuple[hyperparameters.Row, ...] = (
    ("attention.layer_norm_epsilon", "float32", ("layer_norm_epsilon", "layer_norm_eps")),
)
EXPERTS: tuple[hyperparameters.Row, ...] = (
    ("expert_used_count", "uint32", ("num_experts_per_tok", "num_experts_per_token")),
    ("expert_count", "uint32", ("num_local_experts", "num_experts")),
)
LONG = ("su", "longrope")


def scaling_of_3(values: Mapping[str, Any], scaling: dict[str, Any]) -> dict[str, Any] | None:
    """Validate Phi 3's RoPE scaling as transformers does: a type and two lists of factors only."""
    if scaling.get("type") in ("su", "yarn"):
        scaling = {**scaling, "type": "longrope"}
    if len(scaling) != 3 or scaling.get("type") != "longrope":  # noqa: PLR2004
        return None
    rotary = int(values["hidden_size"] // values["num_attention_heads"] * values["partial_rotary_factor"])
    for name in ("short_factor", "long_factor"):
        factors = scaling.get(name)
        if not isinstance(factors, list) or len(factors) != rotary // 2:
            return None
    return scaling


def scaling_of_moe(values: Mapping[str, Any], scaling: dict[str, Any]) -> dict[str, Any] | None:
    """Validate Phi-MoE's RoPE scaling, which also needs two multipliers."""
    del values
    scaling = {"rope_type": scaling.get("type"), **scaling}
    if not all(type(scaling.get(name)) in (int, float) for name in ("short_mscale", "long_mscale")):
        return None
    return scaling if {"short_factor", "long_factor"} <= set(scaling) else None


def dimensions(config: Config) -> dict[str, int]:
    """Return the sizes that the shapes of the rules name."""
    sizes = decoder_parts.dimensions(config)
    sizes.update(fused=sizes["queries"] + 2 * sizes["keys"], both_inner=2 * sizes["inner"])
    return sizes


def sparse_dimensions(config: Config) -> dict[str, int]:
    """Return the sizes with experts."""
    return {**decoder_parts.dimensions(config), "experts": config.integer("num_local_experts", "num_experts")}


def rotary(config: Config, default: float | None = None) -> int:
    """Return the number of rotated elements of a head."""
    absent = default is not None and "partial_rotary_factor" not in config.rope
    share = default if default is not None and absent else decoder_parts.rotary_share(config)
    return int(share * config.integer("hidden_size", "n_embd")) // config.integer("num_attention_heads", "n_head")


def write_phi2(values: KeyValues, config: Config, source: ModelDirectory, file_type: int) -> None:
    """Write Phi 2's hyperparameters."""
    del source
    width, heads = config.integer("hidden_size", "n_embd"), config.integer("num_attention_heads", "n_head")
    hyperparameters.rows(values, config, PHI2_ROWS)
    values.uint32("{arch}.embedding_length", width)
    values.uint32("{arch}.feed_forward_length", 4 * width)
    values.uint32("{arch}.block_count", config.integer("num_hidden_layers"))
    values.uint32("{arch}.attention.head_count", heads)
    values.uint32("{arch}.attention.head_count_kv", heads)
    hyperparameters.rows(values, config, EPSILON)
    values.uint32("{arch}.rope.dimension_count", rotary(config))
    values.uint32("general.file_type", file_type)
    values.boolean("tokenizer.ggml.add_bos_token", value=False)


def _original_context(config: Config) -> int:
    original = config.rope.get("original_max_position_embeddings")
    if type(original) is not int or original <= 0:
        raise BadHyperparameter("original_max_position_embeddings", f"is {original!r}, a number is expected")
    return original


def write_phi3(values: KeyValues, config: Config, source: ModelDirectory, file_type: int) -> None:
    """Write Phi 3's hyperparameters."""
    del source
    values.uint32("{arch}.context_length", config.integer("n_positions", "max_position_embeddings"))
    values.uint32("{arch}.rope.scaling.original_context_length", _original_context(config))
    values.uint32("{arch}.embedding_length", config.integer("hidden_size", "n_embd"))
    values.uint32("{arch}.feed_forward_length", config.integer("intermediate_size"))
    values.uint32("{arch}.block_count", config.integer("num_hidden_layers"))
    values.uint32("{arch}.attention.head_count", config.integer("num_attention_heads", "n_head"))
    values.uint32("{arch}.attention.head_count_kv", config.integer("num_key_value_heads", "n_head_kv"))
    values.float32("{arch}.attention.layer_norm_rms_epsilon", config.find("rms_norm_eps"))
    values.uint32("{arch}.rope.dimension_count", rotary(config, 1.0))
    values.float32("{arch}.rope.freq_base", full_rope(config).get("rope_theta"))
    values.uint32("general.file_type", file_type)
    values.uint32("{arch}.attention.sliding_window", config.find("sliding_window") or 0)


def write_moe(values: KeyValues, config: Config, source: ModelDirectory, file_type: int) -> None:
    """Write Phi 3's hyperparameters and the number of experts."""
    write_phi3(values, config, source, file_type)
    hyperparameters.rows(values, config, EXPERTS)


def attention_factor(values: KeyValues, config: Config) -> None:
    """Write the scale of attention for a context longer than in training."""
    if not config.rope.get("long_factor"):
        return
    original = _original_context(config)
    scale = config.integer("n_positions", "max_position_embeddings") / original
    if original == 1:
        raise BadHyperparameter("original_max_position_embeddings", "is 1, a greater number is expected")
    kind = str(config.rope.get("rope_type", "")).lower()
    if kind in LONG:
        factor = math.sqrt(1 + math.log(scale) / math.log(original)) if scale > 1.0 else 1.0
    elif kind == "yarn":
        factor = 0.1 * math.log(scale) + 1.0 if scale > 1.0 else 1.0
    else:
        raise UnsupportedOption("rope_scaling in config.json", kind)
    values.float32("{arch}.rope.scaling.attn_factor", factor)


def long_factors(config: Config) -> tuple[ComputedTensor, ...]:
    """Return the divisors of the rotary frequencies, for long and for short contexts."""
    return factors(config, rotary(config, 1.0))


def factors(config: Config, size: int) -> tuple[ComputedTensor, ...]:
    """Return LongRoPE's two lists of factors for heads of this rotary size, if there are any."""
    made = []
    if not config.rope.get("long_factor"):
        return ()
    for name in ("long", "short"):
        found = config.rope.get(f"{name}_factor")
        if not isinstance(found, list) or not all(type(item) in (int, float) for item in found):
            raise BadHyperparameter(f"rope_scaling.{name}_factor", "is not a list of numbers")
        if len(found) != size / 2:
            raise BadHyperparameter(f"rope_scaling.{name}_factor", f"has {len(found)} numbers, not {size / 2:g}")
        made.append(ComputedTensor(f"rope_factors_{name}.weight", found))
    return tuple(made)


def write_vocabulary(values: KeyValues, config: Config, source: ModelDirectory) -> Vocabulary:
    """Write a byte-level BPE if the settings name GPT-2's class (Phi 4), else tokenizer.model."""
    settings = source.optional_object("tokenizer_config.json")
    if settings.get("tokenizer_class") == "GPT2Tokenizer" or _is_phi4_of_transformers_5(source, settings):
        return decoder_parts.byte_level(values, config, source)
    vocabulary = decoder_parts.sentence_pieces(values, config, source)
    name = (values.text("general.name") or "").lower()
    if _strips(settings) and not any(known in name for known in KNOWN_NAMES):
        values.string("general.name", _with_known_name(values.text("general.name") or ""))
    return vocabulary


def _is_phi4_of_transformers_5(source: ModelDirectory, settings: Mapping[str, Any]) -> bool:
    if settings.get("tokenizer_class") != CLASS_OF_5 or source.has("tokenizer.model"):
        return False
    model = source.optional_object("tokenizer.json").get("model")
    return isinstance(model, dict) and not model.get("byte_fallback")


def _strips(settings: Mapping[str, Any]) -> bool:
    """Return whether space after a special token is dropped (``rstrip``), and llama.cpp has the tokens to do the same.

    For a model called so, llama.cpp sets this for all special tokens; it fails if one of ``NAMED`` is missing.
    """
    listed = settings.get("added_tokens_decoder")
    tokens = [token for token in listed.values() if isinstance(token, dict)] if isinstance(listed, dict) else []
    return {str(token.get("content")) for token in tokens} >= NAMED and any(
        token.get("rstrip") and token.get("special") for token in tokens
    )


def _with_known_name(name: str) -> str:
    """Return the name of a model with one of the names in it that llama.cpp looks for."""
    found = re.sub(r"(?i)\bphi[ _.]3", "Phi-3", name, count=1)
    return found if "Phi-3" in found else f"{name} (Phi-3)".strip()


KNOWN_NAMES = ("phi-3", "phi3")
"""Parts of ``general.name`` by which llama.cpp recognises a model whose special tokens drop the space after them."""
NAMED = frozenset({"<unk>", "<s>", "</s>", "<|endoftext|>"})

PHI2 = Family(
    name="phi2",
    defaults={"phi": DEFAULTS["phi"]},
    validated_rope=frozenset({"phi"}),
    derive=decoder_parts.key_heads,
    rules=PHI2_RULES,
    dimensions=decoder_parts.dimensions,
    rename=decoder_parts.rename,
    hyperparameters=write_phi2,
    vocabulary=decoder_parts.byte_level,
)
PHI3 = Family(
    name="phi3",
    defaults={"phi3": DEFAULTS["phi3"]},
    scaling=scaling_of_3,
    derive=decoder_parts.key_heads,
    rules=PHI3_RULES,
    dimensions=dimensions,
    rename=decoder_parts.rename,
    hyperparameters=write_phi3,
    vocabulary=write_vocabulary,
    made=long_factors,
    early=attention_factor,
)
PHIMOE = replace(
    PHI3,
    name="phimoe",
    defaults={"phimoe": DEFAULTS["phimoe"]},
    scaling=scaling_of_moe,
    rules=MOE_RULES,
    dimensions=sparse_dimensions,
    hyperparameters=write_moe,
    stacks=MIXTRAL_STACKS,
)
