"""MiniCPM: Llama with scaled embeddings, residuals and logits, and optionally LongRoPE.

Follows ``MiniCPMModel`` of llama.cpp's conversion/minicpm.py. transformers does not know it, so nothing is filled in.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from llama_runner.convert import hyperparameters
from llama_runner.convert.families import decoder_parts, llama
from llama_runner.convert.families.family_definition import ComputedTensor, Family
from llama_runner.convert.families.phi import factors

if TYPE_CHECKING:
    from llama_runner.convert.gguf_metadata import KeyValues
    from llama_runner.convert.model_config import Config
    from llama_runner.convert.model_directory import ModelDirectory


def write_hyperparameters(values: KeyValues, config: Config, source: ModelDirectory, file_type: int) -> None:
    """Write MiniCPM's hyperparameters."""
    del source
    hyperparameters.write(values, config, file_type)
    values.float32("{arch}.embedding_scale", config.number("scale_emb"))
    residual = config.number("scale_depth") / config.integer("num_hidden_layers") ** 0.5
    values.float32("{arch}.residual_scale", residual)
    values.float32("{arch}.logit_scale", config.integer("hidden_size") / config.positive("dim_model_base"))


def long_factors(config: Config) -> tuple[ComputedTensor, ...]:
    """Return LongRoPE's factors."""
    return factors(config, config.integer("hidden_size") // config.integer("num_attention_heads"))


FAMILY = Family(
    name="minicpm",
    defaults={"minicpm": {}},
    rules=(
        *decoder_parts.EMBEDDINGS,
        *(replace(rule, bias=False) for rule in llama.ATTENTION),
        *decoder_parts.FEED_FORWARD,
    ),
    dimensions=decoder_parts.dimensions,
    rename=decoder_parts.rename,
    hyperparameters=write_hyperparameters,
    vocabulary=decoder_parts.sentence_pieces,
    made=long_factors,
)
