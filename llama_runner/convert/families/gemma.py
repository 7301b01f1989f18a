"""Gemma 1, 2 and 3 (text) and EmbeddingGemma: norms with an added one, wide heads, tied embeddings.

Follows ``GemmaModel``, ``Gemma2Model``, ``Gemma3Model`` and ``EmbeddingGemma`` of llama.cpp's conversion/gemma.py.
Gemma 3 without a tokenizer.model, which is not as Google publishes it, is refused. What sees in Gemma 3 is left out.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from llama_runner.convert import hyperparameters
from llama_runner.convert.errors import BadHyperparameter, UnsupportedOption
from llama_runner.convert.families import decoder_parts
from llama_runner.convert.families.family_definition import Family, Rule
from llama_runner.convert.families.pooling import pooling_of
from llama_runner.convert.vocab import special_tokens

if TYPE_CHECKING:
    from llama_runner.convert.gguf_metadata import KeyValues
    from llama_runner.convert.model_config import Config
    from llama_runner.convert.model_directory import ModelDirectory
    from llama_runner.convert.vocab import Vocabulary

DEFAULTS: dict[str, dict[str, Any]] = {
    "gemma": {
        "vocab_size": 256000,
        "max_position_embeddings": 8192,
        "hidden_size": 3072,
        "intermediate_size": 24576,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
        "head_dim": 256,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "tie_word_embeddings": True,
    },
    "gemma2": {
        "vocab_size": 256000,
        "max_position_embeddings": 8192,
        "hidden_size": 2304,
        "intermediate_size": 9216,
        "num_hidden_layers": 26,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "tie_word_embeddings": True,
        "sliding_window": 4096,
        "final_logit_softcapping": 30.0,
        "attn_logit_softcapping": 50.0,
    },
    "gemma3_text": {
        "vocab_size": 262208,
        "max_position_embeddings": 131072,
        "hidden_size": 2304,
        "intermediate_size": 9216,
        "num_hidden_layers": 26,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0,
        "rope_local_base_freq": 10000.0,
        "rope_scaling": None,
        "tie_word_embeddings": True,
        "sliding_window": 4096,
        "final_logit_softcapping": None,
        "attn_logit_softcapping": None,
    },
}
RULES = (
    Rule("token_embd", ("vocabulary", "width")),
    Rule("output_norm", ("width",), shift=1.0),
    Rule("blk.{bid}.attn_norm", ("width",), shift=1.0),
    *decoder_parts.ATTENTION[1:],
    Rule("blk.{bid}.ffn_norm", ("width",), shift=1.0),
    *decoder_parts.FEED_FORWARD[1:],
)
POST_NORMS = (
    Rule("blk.{bid}.post_attention_norm", ("width",), shift=1.0),
    Rule("blk.{bid}.post_ffw_norm", ("width",), shift=1.0),
)
HEAD_NORMS = tuple(replace(rule, shift=1.0) for rule in decoder_parts.HEAD_NORMS)
ROWS: tuple[hyperparameters.Row, ...] = (
    ("context_length", "uint32", ("max_position_embeddings",)),
    ("embedding_length", "uint32", ("hidden_size",)),
    ("block_count", "uint32", ("num_hidden_layers",)),
    ("feed_forward_length", "uint32", ("intermediate_size",)),
    ("attention.head_count", "uint32", ("num_attention_heads",)),
    ("attention.head_count_kv", "uint32", ("num_key_value_heads", "num_attention_heads")),
    ("attention.layer_norm_rms_epsilon", "float32", ("rms_norm_eps",)),
    *hyperparameters.HEAD_SIZES,
)
CAPS: tuple[hyperparameters.Row, ...] = (
    ("attn_logit_softcapping", "float32", ("attn_logit_softcapping",)),
    ("final_logit_softcapping", "float32", ("final_logit_softcapping",)),
    ("attention.sliding_window", "uint32", ("sliding_window",)),
)
CODE_GEMMA = {"prefix": 67, "suffix": 69, "middle": 68, "fsep": 70, "eot": 107}  # written into every Gemma 1


def rename(name: str, config: Config) -> str | None:
    """Drop the output matrix, which is the embedding."""
    return None if name == "lm_head.weight" else decoder_parts.rename(name, config)


def write_first(values: KeyValues, config: Config, source: ModelDirectory, file_type: int) -> None:
    """Write Gemma 1's hyperparameters."""
    del source
    hyperparameters.rows(values, config, ROWS)
    values.uint32("general.file_type", file_type)


def write_second(values: KeyValues, config: Config, source: ModelDirectory, file_type: int) -> None:
    """Write Gemma 2's hyperparameters."""
    write_first(values, config, source, file_type)
    hyperparameters.rows(values, config, CAPS)


def write_third(values: KeyValues, config: Config, source: ModelDirectory, file_type: int) -> None:
    """Write Gemma 3's hyperparameters."""
    del source
    if config.find("attn_logit_softcapping") is not None:
        raise UnsupportedOption("attn_logit_softcapping in config.json", config.find("attn_logit_softcapping"))
    hyperparameters.write(values, config, file_type)
    if cap := config.find("final_logit_softcapping"):
        values.float32("{arch}.final_logit_softcapping", cap)
    if config.find("sliding_window_pattern") != 1:
        values.uint32("{arch}.attention.sliding_window", config.find("sliding_window"))


def write_embedding(values: KeyValues, config: Config, source: ModelDirectory, file_type: int) -> None:
    """Write EmbeddingGemma's hyperparameters: Gemma 3's, the window of config.json and the pooling type."""
    write_third(values, config, source, file_type)
    if source.config.get("sliding_window") is None:  # transformers has a default, which llama.cpp cannot take
        raise BadHyperparameter("sliding_window", "is missing")
    values.uint32("{arch}.attention.sliding_window", config.integer("sliding_window"))
    if (pooling := pooling_of(source)) is not None:
        values.uint32("{arch}.pooling_type", pooling)


def write_pieces(values: KeyValues, config: Config, source: ModelDirectory) -> Vocabulary:
    """Write the vocabulary of tokenizer.model, without a space before a text."""
    vocabulary = decoder_parts.sentence_pieces(values, config, source)
    values.boolean("tokenizer.ggml.add_space_prefix", value=False)
    return vocabulary


def write_first_pieces(values: KeyValues, config: Config, source: ModelDirectory) -> Vocabulary:
    """Write the vocabulary with CodeGemma's fill-in-the-middle tokens."""
    vocabulary = decoder_parts.sentence_pieces(values, config, source)
    special_tokens.write(values, source, kinds=tuple(CODE_GEMMA), preset=CODE_GEMMA)
    values.boolean("tokenizer.ggml.add_space_prefix", value=False)
    return vocabulary


GEMMA = Family(
    name="gemma",
    defaults={"gemma": DEFAULTS["gemma"]},
    rules=RULES,
    dimensions=decoder_parts.dimensions,
    rename=rename,
    hyperparameters=write_first,
    vocabulary=write_first_pieces,
)
GEMMA2 = replace(
    GEMMA,
    name="gemma2",
    defaults={"gemma2": DEFAULTS["gemma2"]},
    rules=(*RULES, *POST_NORMS),
    hyperparameters=write_second,
    vocabulary=write_pieces,
)
GEMMA3 = replace(
    GEMMA2,
    name="gemma3",
    defaults={"gemma3_text": DEFAULTS["gemma3_text"]},
    validated_rope=frozenset({"gemma3_text"}),
    new_rope=frozenset({"gemma3_text"}),
    rules=(*RULES, *POST_NORMS, *HEAD_NORMS, Rule("output", ("vocabulary", "width"), optional=True)),
    rename=decoder_parts.rename,
    hyperparameters=write_third,
)
GEMMA3_COMPOSITE = replace(GEMMA3, composite="gemma3", rename=decoder_parts.rename_text_part)
EMBEDDING = replace(GEMMA3, name="gemma-embedding", hyperparameters=write_embedding)
