"""Hunyuan without experts: head norms after the rotation, and a context extended by the base of the rotation.

Follows ``HunYuanModel`` of llama.cpp's conversion/hunyuan.py, for checkpoints with a tokenizer.json.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from llama_runner.convert import hyperparameters
from llama_runner.convert.errors import BadHyperparameter
from llama_runner.convert.families import decoder_parts
from llama_runner.convert.families.family_definition import Family

if TYPE_CHECKING:
    from llama_runner.convert.gguf_metadata import KeyValues
    from llama_runner.convert.model_config import Config
    from llama_runner.convert.model_directory import ModelDirectory
    from llama_runner.convert.vocab import Vocabulary

DEFAULTS: dict[str, dict[str, Any]] = {
    "hunyuan_v1_dense": {
        "vocab_size": 290943,
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": None,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False,
        "rope_theta": 10000.0,
        "rope_scaling": None,
        "head_dim": None,
    }
}
STRETCHED = ("dynamic", "xdrope")
ALPHA = 50  # where config.json does not say
BASE = 10000.0
CONTEXT = 256 * 1024  # that of every model that is stretched, whatever its config.json says
SAID = (32 * 1024, CONTEXT)
SEVERAL = 2


def derive(values: dict[str, Any], model_type: str) -> dict[str, Any]:
    """Fill in the number of key heads; a number of experts is ignored."""
    values.pop("num_experts", None)
    return decoder_parts.key_heads(values, model_type)


def rename(name: str, config: Config) -> str | None:
    """Drop an output matrix that is a copy of the embedding."""
    if name == "lm_head.weight" and config.find("tie_word_embeddings"):
        return None
    return decoder_parts.rename(name, config)


def write_hyperparameters(values: KeyValues, config: Config, source: ModelDirectory, file_type: int) -> None:
    """Write the text model's hyperparameters, and the rotation's base for the extended context."""
    del source
    hyperparameters.write(values, config, file_type)
    if (kind := config.rope.get("rope_type")) not in STRETCHED:
        return
    size, base = config.integer("head_dim"), config.rope.get("rope_theta", BASE)
    try:
        stretched = base * (config.rope.get("alpha", ALPHA) ** (size / (size - 2)))
    except (TypeError, ArithmeticError) as error:
        raise BadHyperparameter("rope_scaling", f"cannot be used ({error})") from error
    values.float32("{arch}.rope.freq_base", stretched)
    values.string("{arch}.rope.scaling.type", "none")
    values.float32("{arch}.rope.scaling.factor", 1)
    if kind != "dynamic":
        return
    values.uint32("{arch}.rope.scaling.original_context_length", CONTEXT)
    values.uint32("{arch}.context_length", CONTEXT)
    if base != BASE:
        raise BadHyperparameter("rope_theta", f"is {base}, with a dynamic RoPE only {BASE} is known")
    if (context := config.find("max_position_embeddings")) not in SAID:
        raise BadHyperparameter("max_position_embeddings", f"is {context}, with a dynamic RoPE only {SAID} are known")


def write_vocabulary(values: KeyValues, config: Config, source: ModelDirectory) -> Vocabulary:
    """Write a byte-level BPE; the first of several EOS tokens in generation_config.json ends a turn."""
    vocabulary = decoder_parts.byte_level(values, config, source)
    ends = source.optional_object("generation_config.json").get("eos_token_id")
    if isinstance(ends, list) and len(ends) >= SEVERAL:
        values.uint32("tokenizer.ggml.eot_token_id", ends[0])
    return vocabulary


FAMILY = Family(
    name="hunyuan-dense",
    defaults=DEFAULTS,
    derive=derive,
    rules=(
        *decoder_parts.EMBEDDINGS,
        *decoder_parts.ATTENTION,
        *(replace(rule, optional=True) for rule in decoder_parts.HEAD_NORMS),
        *decoder_parts.FEED_FORWARD,
    ),
    dimensions=decoder_parts.dimensions,
    rename=rename,
    hyperparameters=write_hyperparameters,
    vocabulary=write_vocabulary,
)
