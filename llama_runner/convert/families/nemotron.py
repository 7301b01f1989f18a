"""Nemotron and Minitron: layer norms with an added one, an ungated squared ReLU.

Follows ``NemotronModel`` of llama.cpp's conversion/nemotron.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_runner.convert import hyperparameters
from llama_runner.convert.families import decoder_parts
from llama_runner.convert.families.family_definition import Family, Rule

if TYPE_CHECKING:
    from llama_runner.convert.gguf_metadata import KeyValues
    from llama_runner.convert.model_config import Config
    from llama_runner.convert.model_directory import ModelDirectory
    from llama_runner.convert.vocab import Vocabulary

DEFAULTS: dict[str, Any] = {
    "vocab_size": 256000,
    "max_position_embeddings": 4096,
    "hidden_size": 6144,
    "intermediate_size": 24576,
    "num_hidden_layers": 32,
    "num_attention_heads": 48,
    "num_key_value_heads": None,
    "head_dim": None,
    "norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "partial_rotary_factor": 0.5,
    "tie_word_embeddings": False,
}
RULES = (
    Rule("token_embd", ("vocabulary", "width")),
    Rule("output_norm", ("width",), needs_bias=True, shift=1.0),
    Rule("output", ("vocabulary", "width"), optional=True),
    Rule("blk.{bid}.attn_norm", ("width",), needs_bias=True, shift=1.0),
    *decoder_parts.ATTENTION[1:],
    Rule("blk.{bid}.ffn_norm", ("width",), needs_bias=True, shift=1.0),
    *decoder_parts.FEED_FORWARD[2:],
)
EPSILON: tuple[hyperparameters.Row, ...] = (
    (
        "attention.layer_norm_epsilon",
        "float32",
        ("layer_norm_eps", "layer_norm_epsilon", "norm_epsilon", "norm_eps"),
    ),
)


def derive(values: dict[str, Any], model_type: str) -> dict[str, Any]:
    """Fill in the head size."""
    del model_type
    decoder_parts.head_from_width(values)
    return values


def write_hyperparameters(values: KeyValues, config: Config, source: ModelDirectory, file_type: int) -> None:
    """Write Nemotron's hyperparameters."""
    del source
    hyperparameters.write(values, config, file_type)
    values.uint32("{arch}.vocab_size", config.integer("vocab_size"))
    hyperparameters.rows(values, config, EPSILON)
    rotated = int(decoder_parts.rotary_share(config) * config.integer("hidden_size")) // config.integer(
        "num_attention_heads"
    )
    values.uint32("{arch}.rope.dimension_count", rotated)
    factor = config.find("factor") or config.rope.get("factor")
    values.string("{arch}.rope.scaling.type", "none" if factor is None else "linear")
    if factor is not None:
        values.float32("{arch}.rope.scaling.factor", factor)


def write_vocabulary(values: KeyValues, config: Config, source: ModelDirectory) -> Vocabulary:
    """Write the vocabulary of tokenizer.model, with its padding and unknown tokens."""
    vocabulary = decoder_parts.sentence_pieces(values, config, source)
    values.uint32("tokenizer.ggml.padding_token_id", 0)
    values.uint32("tokenizer.ggml.unknown_token_id", 1)
    return vocabulary


FAMILY = Family(
    name="nemotron",
    defaults={"nemotron": DEFAULTS},
    derive=derive,
    rules=RULES,
    dimensions=decoder_parts.dimensions,
    rename=decoder_parts.rename,
    hyperparameters=write_hyperparameters,
    vocabulary=write_vocabulary,
)
