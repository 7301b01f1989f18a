"""Falcon 7B, 40B and 180B: queries, keys and values are stored by groups that share keys.

Follows ``FalconModel`` of llama.cpp's conversion/falcon.py. Where the old design shares one head of keys, as in 7B, the
official script takes transformers' number of key heads and gives up; here it is one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_runner.convert.errors import BadHyperparameter
from llama_runner.convert.families import decoder_parts
from llama_runner.convert.families.family_definition import Family, Rule
from llama_runner.convert.select_tensor_rows import part

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llama_runner.convert.gguf_metadata import KeyValues
    from llama_runner.convert.model_config import Config
    from llama_runner.convert.model_directory import ModelDirectory
    from llama_runner.convert.select_tensor_rows import Rows

DEFAULTS: dict[str, Any] = {
    "vocab_size": 65024,
    "hidden_size": 4544,
    "num_hidden_layers": 32,
    "num_attention_heads": 71,
    "layer_norm_epsilon": 1e-5,
    "num_kv_heads": None,
    "new_decoder_architecture": False,
    "multi_query": True,
    "tie_word_embeddings": True,
}
HEADS, KEY_HEADS = ("num_attention_heads", "n_head"), ("num_kv_heads", "n_head_kv")
CONTEXT = 2048  # in no config.json


def by_kind(sizes: Mapping[str, int]) -> tuple[Rows, ...]:
    """Return the rows of all queries, all keys and all values; a group has several queries, a key and a value."""
    head, groups = sizes["head"], sizes["kv_heads"]
    queries = sizes["heads"] // groups * head
    group = queries + 2 * head
    return (
        part(queries, start=0, of=group, items=groups),
        part(head, start=queries, of=group, items=groups),
        part(head, start=queries + head, of=group, items=groups),
    )


RULES = (
    Rule("token_embd", ("vocabulary", "width")),
    Rule("output_norm", ("width",), needs_bias=True),
    Rule("output", ("vocabulary", "width"), optional=True),
    Rule("blk.{bid}.attn_norm", ("width",), needs_bias=True),
    Rule("blk.{bid}.attn_norm_2", ("width",), bias=True, optional=True),
    Rule("blk.{bid}.attn_qkv", ("fused", "width"), rows=by_kind),
    Rule("blk.{bid}.attn_output", ("width", "width")),
    Rule("blk.{bid}.ffn_up", ("inner", "width")),
    Rule("blk.{bid}.ffn_down", ("width", "inner")),
)


def derive(values: dict[str, Any], model_type: str) -> dict[str, Any]:
    """Fill in the number of key heads; transformers does not have the first models' configuration class."""
    if model_type != "falcon":
        return values
    if values["multi_query"] and not values["new_decoder_architecture"]:
        values["num_kv_heads"] = 1
    elif values["num_kv_heads"] is None:
        values["num_kv_heads"] = values["num_attention_heads"]
    return values


def key_heads(config: Config) -> int:
    """Return the number of key heads; one if it is absent."""
    return config.integer(*KEY_HEADS) if config.find(*KEY_HEADS) is not None else 1


def dimensions(config: Config) -> dict[str, int]:
    """Return the sizes that the shapes of the rules name."""
    heads, kv_heads, width = config.integer(*HEADS), key_heads(config), config.integer("hidden_size")
    if heads % kv_heads:
        raise BadHyperparameter("num_kv_heads", f"is {kv_heads}, which does not divide {heads} heads")
    if width % heads:
        raise BadHyperparameter("num_attention_heads", f"is {heads}, which does not divide {width}")
    return {
        "blocks": config.integer(*decoder_parts.BLOCKS),
        "vocabulary": config.integer("vocab_size"),
        "width": width,
        "inner": 4 * width,
        "heads": heads,
        "kv_heads": kv_heads,
        "head": width // heads,
        "fused": width + 2 * kv_heads * (width // heads),
    }


def write_hyperparameters(values: KeyValues, config: Config, source: ModelDirectory, file_type: int) -> None:
    """Write Falcon's hyperparameters."""
    del source
    width = config.integer("hidden_size")
    values.uint32("{arch}.context_length", CONTEXT)
    values.string("{arch}.tensor_data_layout", "jploski")
    values.uint32("{arch}.embedding_length", width)
    values.uint32("{arch}.feed_forward_length", 4 * width)
    values.uint32("{arch}.block_count", config.integer(*decoder_parts.BLOCKS))
    values.uint32("{arch}.attention.head_count", config.integer(*HEADS))
    values.uint32("{arch}.attention.head_count_kv", key_heads(config))
    values.float32("{arch}.attention.layer_norm_epsilon", config.number("layer_norm_epsilon"))
    values.uint32("general.file_type", file_type)


FAMILY = Family(
    name="falcon",
    defaults={"falcon": DEFAULTS, "RefinedWeb": {}, "RefinedWebModel": {}},
    derive=derive,
    rules=RULES,
    dimensions=dimensions,
    rename=decoder_parts.rename,
    hyperparameters=write_hyperparameters,
    vocabulary=decoder_parts.byte_level,
)
