"""EXAONE 3 and 4: Llama's block under other names; 4 has norms after attention and feed-forward network.

Follows ``ExaoneModel`` and ``Exaone4Model`` of llama.cpp's conversion/exaone.py. transformers does not know EXAONE 3,
so nothing is filled in.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from llama_runner.convert import hyperparameters
from llama_runner.convert.errors import BadHyperparameter, UnsupportedOption
from llama_runner.convert.families import decoder_parts, llama
from llama_runner.convert.families.family_definition import Family, Rule

if TYPE_CHECKING:
    from llama_runner.convert.gguf_metadata import KeyValues
    from llama_runner.convert.model_config import Config
    from llama_runner.convert.model_directory import ModelDirectory

FOURTH_DEFAULTS: dict[str, Any] = {
    "vocab_size": 102400,
    "hidden_size": 4096,
    "intermediate_size": 16384,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "rope_scaling": None,
    "sliding_window": 4096,
    "sliding_window_pattern": 4,
    "layer_types": None,
    "tie_word_embeddings": False,
}
FOURTH_RULES = (
    *decoder_parts.EMBEDDINGS,
    *decoder_parts.ATTENTION[1:],
    *decoder_parts.HEAD_NORMS,
    Rule("blk.{bid}.post_attention_norm", ("width",)),
    *decoder_parts.FEED_FORWARD[1:],
    Rule("blk.{bid}.post_ffw_norm", ("width",)),
)


def derive(values: dict[str, Any], model_type: str) -> dict[str, Any]:
    """Fill in which layers use a sliding window."""
    del model_type
    count, pattern = values["num_hidden_layers"], values["sliding_window_pattern"]
    if values["layer_types"] is None and type(count) is int:
        if values["sliding_window"] is None or type(pattern) is not int or pattern <= 0:
            raise BadHyperparameter("layer_types", "is missing; it says which layers have a sliding window")
        kinds = ("sliding_attention" if number % pattern else "full_attention" for number in range(1, count + 1))
        values["layer_types"] = list(kinds)
    return values


def write_third(values: KeyValues, config: Config, source: ModelDirectory, file_type: int) -> None:
    """Write EXAONE 3's hyperparameters."""
    del source
    if config.find("activation_function") != "silu":
        raise UnsupportedOption("activation_function in config.json", config.find("activation_function"))
    hyperparameters.write(values, config, file_type)
    share = decoder_parts.rotary_share(config) if config.rope.get("partial_rotary_factor") is not None else 1.0
    size = config.integer("hidden_size") // config.integer("num_attention_heads")
    values.uint32("{arch}.rope.dimension_count", int(share * size))


def write_fourth(values: KeyValues, config: Config, source: ModelDirectory, file_type: int) -> None:
    """Write EXAONE 4's hyperparameters."""
    del source
    hyperparameters.write(values, config, file_type)
    values.uint32("{arch}.vocab_size", config.integer("vocab_size"))
    if (window := config.find("sliding_window")) is not None:
        values.uint32("{arch}.attention.sliding_window", window)
        kinds = config.find("layer_types") or []
        values.booleans("{arch}.attention.sliding_window_pattern", [kind == "sliding_attention" for kind in kinds])


EXAONE = Family(
    name="exaone",
    defaults={"exaone": {}},
    rules=(*decoder_parts.EMBEDDINGS, *decoder_parts.ATTENTION, *decoder_parts.FEED_FORWARD),
    dimensions=decoder_parts.dimensions,
    rename=decoder_parts.rename,
    hyperparameters=write_third,
    vocabulary=decoder_parts.byte_level,
    made=llama.rope_frequencies,
)
EXAONE4 = replace(
    EXAONE,
    name="exaone4",
    defaults={"exaone4": FOURTH_DEFAULTS},
    validated_rope=frozenset({"exaone4"}),
    derive=derive,
    rules=FOURTH_RULES,
    hyperparameters=write_fourth,
)
