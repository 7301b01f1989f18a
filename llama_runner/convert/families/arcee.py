"""Arcee's AFM: Llama with an ungated feed-forward network.

Follows ``ArceeModel`` of llama.cpp's conversion/llama.py.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from llama_runner.convert.families import decoder_parts, llama
from llama_runner.convert.families.pooling import pooling_of

if TYPE_CHECKING:
    from llama_runner.convert.gguf_metadata import KeyValues
    from llama_runner.convert.model_config import Config
    from llama_runner.convert.model_directory import ModelDirectory

DEFAULTS: dict[str, Any] = {
    **llama.DEFAULTS["llama"],
    "hidden_size": 2560,
    "intermediate_size": 18432,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-5,
}


def derive(values: dict[str, Any], model_type: str) -> dict[str, Any]:
    """Fill in the number of key heads and the head size, as for Llama."""
    del model_type
    return llama.derive(values, "llama")


def write_hyperparameters(values: KeyValues, config: Config, source: ModelDirectory, file_type: int) -> None:
    """Write Llama's hyperparameters and the pooling type."""
    llama.write_hyperparameters(values, config, source, file_type)
    if (pooling := pooling_of(source)) is not None:
        values.uint32("{arch}.pooling_type", pooling)


FAMILY = replace(
    llama.FAMILY,
    name="arcee",
    defaults={"arcee": DEFAULTS},
    validated_rope=frozenset({"arcee"}),
    derive=derive,
    rules=tuple(rule for rule in (*decoder_parts.EMBEDDINGS, *llama.ATTENTION, *decoder_parts.FEED_FORWARD)
                if rule.name != "blk.{bid}.ffn_gate"),
    hyperparameters=write_hyperparameters,
)  # fmt: skip
