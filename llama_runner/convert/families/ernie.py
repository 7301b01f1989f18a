"""ERNIE 4.5 without experts: Llama's layout with a SentencePiece vocabulary.

Follows ``Ernie4_5Model`` of llama.cpp's conversion/ernie.py. Fused matrices of queries, keys and values are not
supported; checkpoints in transformers' layout have separate ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_runner.convert.families import decoder_parts
from llama_runner.convert.families.family_definition import Family

if TYPE_CHECKING:
    from llama_runner.convert.gguf_metadata import KeyValues
    from llama_runner.convert.model_config import Config
    from llama_runner.convert.model_directory import ModelDirectory
    from llama_runner.convert.vocab import Vocabulary

DEFAULTS: dict[str, dict[str, Any]] = {
    "ernie4_5": {
        "vocab_size": 103424,
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "num_hidden_layers": 18,
        "num_attention_heads": 16,
        "num_key_value_heads": 2,
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-5,
        "rope_theta": 500000.0,
        "rope_scaling": None,
        "tie_word_embeddings": True,
        "head_dim": 128,
    }
}


def derive(values: dict[str, Any], model_type: str) -> dict[str, Any]:
    """Fill in the number of key heads and the head size if they are null."""
    values = decoder_parts.key_heads(values, model_type)
    decoder_parts.head_from_width(values)
    return values


def rename(name: str, config: Config) -> str | None:
    """Translate the prefix of the first checkpoints."""
    return decoder_parts.rename(name.replace("ernie.", "model."), config)


def write_vocabulary(values: KeyValues, config: Config, source: ModelDirectory) -> Vocabulary:
    """Write tokenizer.model's vocabulary, and whether a space is added before a text."""
    vocabulary = decoder_parts.sentence_pieces(values, config, source)
    settings = source.optional_object("tokenizer_config.json")
    if "add_prefix_space" in settings:
        values.boolean("tokenizer.ggml.add_space_prefix", settings["add_prefix_space"])
    return vocabulary


FAMILY = Family(
    name="ernie4_5",
    defaults=DEFAULTS,
    validated_rope=frozenset({"ernie4_5"}),
    derive=derive,
    rules=(*decoder_parts.EMBEDDINGS, *decoder_parts.ATTENTION, *decoder_parts.FEED_FORWARD),
    dimensions=decoder_parts.dimensions,
    rename=rename,
    hyperparameters=decoder_parts.write_text_model,
    vocabulary=write_vocabulary,
)
