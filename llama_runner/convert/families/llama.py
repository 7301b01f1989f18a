"""Llama, Mistral and Mixtral: RoPE with grouped heads, RMS norms and a gated feed-forward network.

Follows ``LlamaModel`` of llama.cpp's conversion/llama.py. Drafts (EAGLE) and models that see or hear share that class
there; they are refused here.
"""

from __future__ import annotations

import math
import struct
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from llama_runner.convert import hyperparameters
from llama_runner.convert.errors import BadHyperparameter, UnsupportedOption
from llama_runner.convert.families import decoder_parts
from llama_runner.convert.families.family_definition import ComputedTensor, Family, Rule
from llama_runner.convert.model_config import full_rope
from llama_runner.convert.vocab import bpe, byte_fallback, special_tokens, write_sentencepiece
from llama_runner.convert.vocab.tokenizer import Tokenizer

if TYPE_CHECKING:
    from llama_runner.convert.gguf_metadata import KeyValues
    from llama_runner.convert.model_config import Config
    from llama_runner.convert.model_directory import ModelDirectory
    from llama_runner.convert.vocab import Vocabulary

DEFAULTS: dict[str, dict[str, Any]] = {
    "llama": {
        "vocab_size": 32000,
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": None,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "rope_scaling": None,
        "tie_word_embeddings": False,
        "head_dim": None,
    },
    "mistral": {
        "vocab_size": 32000,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "head_dim": None,
    },
    "mixtral": {
        "vocab_size": 32000,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-5,
        "rope_theta": 1000000.0,
        "tie_word_embeddings": False,
        "head_dim": None,
        "num_experts_per_tok": 2,
        "num_local_experts": 8,
    },
}

ATTENTION = tuple(
    replace(rule, heads={"attn_q": "heads", "attn_k": "kv_heads"}.get(rule.name.rpartition(".")[2]))
    for rule in decoder_parts.ATTENTION
)
RULES = (*decoder_parts.EMBEDDINGS, *ATTENTION, *decoder_parts.FEED_FORWARD)
MIXTRAL_EXPERTS = (
    Rule("blk.{bid}.ffn_norm", ("width",)),
    decoder_parts.ROUTER,
    Rule("blk.{bid}.ffn_gate_exps", ("experts", "inner", "width")),
    Rule("blk.{bid}.ffn_down_exps", ("experts", "width", "inner")),
    Rule("blk.{bid}.ffn_up_exps", ("experts", "inner", "width")),
)
MIXTRAL_STACKS = (tuple(rule.name for rule in MIXTRAL_EXPERTS[2:]),)

CODE_LLAMA_VOCABULARY = 32016
CODE_LLAMA_INFILL = {"prefix": 32007, "suffix": 32008, "middle": 32009, "eot": 32010}
GRANITE_VOCABULARY = 49152  # shared with SmolLM; the official script goes by the size alone


def derive(values: dict[str, Any], model_type: str) -> dict[str, Any]:
    """Fill in the values that the configuration classes compute: key heads, and Llama's head size."""
    if values["num_key_value_heads"] is None:
        values["num_key_value_heads"] = values["num_attention_heads"]
    if model_type == "llama":
        decoder_parts.head_from_width(values)
    return values


def rename(name: str, config: Config) -> str | None:
    """Add the prefix that bare ``LlamaModel`` checkpoints lack; drop tables of rotary frequencies."""
    bare = config.architecture == "LlamaModel" and name != "lm_head.weight"
    return decoder_parts.rename(f"model.{name}" if bare else name, config)


def write_hyperparameters(values: KeyValues, config: Config, source: ModelDirectory, file_type: int) -> None:
    """Write the text model's hyperparameters and two of Llama."""
    del source
    hyperparameters.write(values, config, file_type)
    values.uint32("{arch}.vocab_size", config.integer("vocab_size"))
    values.uint32("{arch}.rope.dimension_count", decoder_parts.head_size(config))


def write_vocabulary(values: KeyValues, config: Config, source: ModelDirectory) -> Vocabulary:
    """Write tokenizer.model if present, else a tokenizer.json with byte fallback, else byte-level BPE."""
    settings = source.optional_object("tokenizer_config.json")
    if source.has("tekken.json") and not source.has("tokenizer.json"):
        raise UnsupportedOption("the tokenizer file", "tekken.json", hint="use a repository that has tokenizer.json")
    if (prefix := settings.get("add_prefix_space")) is not None:
        values.boolean("tokenizer.ggml.add_space_prefix", prefix)
    if source.has("tokenizer.model"):
        vocabulary = write_sentencepiece.write(values, config, source)
    else:
        tokenizer = Tokenizer.load(source, config)
        write = byte_fallback.write if tokenizer.byte_fallback else bpe.write
        vocabulary = write(values, config, source, tokenizer)
    size = config.integer("vocab_size")
    if size == CODE_LLAMA_VOCABULARY:
        special_tokens.write(values, source, kinds=tuple(CODE_LLAMA_INFILL), preset=CODE_LLAMA_INFILL)
    if size == GRANITE_VOCABULARY:
        values.boolean("tokenizer.ggml.add_bos_token", value=False)
    return vocabulary


def _float32(value: float) -> float:
    return float(struct.unpack("<f", struct.pack("<f", value))[0])


def _inverse(value: float, times: float = 1.0) -> float:
    """Return ``times / value`` as torch computes it: by the reciprocal, rounded twice."""
    return _float32(_float32(1 / value) * _float32(times))


def rope_frequencies(config: Config) -> tuple[ComputedTensor, ...]:
    """Return Llama 3's scaling of the rotary frequencies, as divisors.

    The formula is that of transformers' ``_compute_llama3_parameters``. Each step is rounded to single precision
    where torch does it, for the last bit to be the same. Only ``pow`` is better here: torch's is one bit off for
    one exponent in a hundred and depends on the processor, though not for the bases and sizes that Llama 3 has.
    """
    rope = full_rope(config)
    if str(rope.get("rope_type", "")).lower() != "llama3":
        return ()
    size = decoder_parts.head_size(config)
    try:
        base = float(rope.get("rope_theta", 10000.0))
        factor = float(rope.get("factor", 8.0))
        low, high = float(rope.get("low_freq_factor", 1.0)), float(rope.get("high_freq_factor", 4.0))
        context = float(rope.get("original_max_position_embeddings", 8192))
        factors = [
            _rope_factor(_inverse(_float32(base ** _float32(place / size))), factor, low, high, context)
            for place in range(0, size, 2)
        ]
    except (TypeError, ValueError, ArithmeticError, struct.error) as error:
        raise BadHyperparameter("rope_scaling", f"cannot be used ({error})") from error
    return (ComputedTensor("rope_freqs.weight", factors),)


def _rope_factor(frequency: float, factor: float, low: float, high: float, context: float) -> float:
    wavelength = _inverse(frequency, 2 * math.pi)
    if wavelength < _float32(context / high):
        return 1.0
    if wavelength > _float32(context / low):
        return factor
    smooth = _float32(_float32(_inverse(wavelength, context) - low) / _float32(high - low))
    return _inverse(_float32(_float32(_float32(1 - smooth) / _float32(factor)) + smooth))


def rename_text_model(name: str, config: Config) -> str | None:
    """Drop the vision part of Idefics 3 and SmolVLM, and remove the prefix of the text part."""
    return decoder_parts.rename_text_part(name.replace("text_model.", ""), config)


def sparse_dimensions(config: Config) -> dict[str, int]:
    """Return the sizes that the shapes of the rules name, including experts."""
    return {**decoder_parts.dimensions(config), "experts": config.integer("num_local_experts")}


FAMILY = Family(
    name="llama",
    defaults={name: DEFAULTS[name] for name in ("llama", "mistral")},
    validated_rope=frozenset({"llama"}),
    derive=derive,
    rules=RULES,
    dimensions=decoder_parts.dimensions,
    rename=rename,
    hyperparameters=write_hyperparameters,
    vocabulary=write_vocabulary,
    made=rope_frequencies,
)
MIXTRAL = replace(
    FAMILY,
    defaults={"mixtral": DEFAULTS["mixtral"]},
    validated_rope=frozenset(),
    rules=(*decoder_parts.EMBEDDINGS, *ATTENTION, *MIXTRAL_EXPERTS),
    dimensions=sparse_dimensions,
    stacks=MIXTRAL_STACKS,
)
IDEFICS3 = replace(
    FAMILY,
    # whether the embedding is the output matrix is said beside the text part
    defaults={"llama": {name: value for name, value in DEFAULTS["llama"].items() if name != "tie_word_embeddings"}},
    rename=rename_text_model,
    composite="idefics3",
)
SMOLVLM = replace(IDEFICS3, composite="smolvlm")
