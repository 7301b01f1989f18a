"""GPT-NeoX (Pythia): queries, keys and values are stored head by head.

Follows ``GPTNeoXModel`` of llama.cpp's conversion/gptneox.py, which writes no file type.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_runner.convert.families import decoder_parts
from llama_runner.convert.families.family_definition import Family, Rule
from llama_runner.convert.model_config import as_object, share
from llama_runner.convert.select_tensor_rows import Rows

if TYPE_CHECKING:
    from llama_runner.convert.gguf_metadata import KeyValues
    from llama_runner.convert.model_config import Config
    from llama_runner.convert.model_directory import ModelDirectory

DEFAULTS: dict[str, Any] = {
    "vocab_size": 50432,
    "max_position_embeddings": 2048,
    "hidden_size": 6144,
    "num_hidden_layers": 44,
    "num_attention_heads": 64,
    "intermediate_size": 24576,
    "rotary_pct": 0.25,
    "layer_norm_eps": 1e-5,
    "use_parallel_residual": True,
    "tie_word_embeddings": False,
}
RULES = (
    Rule("token_embd", ("vocabulary", "width")),
    Rule("output_norm", ("width",), needs_bias=True),
    Rule("output", ("vocabulary", "width"), optional=True),
    Rule("blk.{bid}.attn_norm", ("width",), needs_bias=True),
    Rule(
        "blk.{bid}.attn_qkv",
        ("fused", "width"),
        bias=True,
        rows=lambda s: Rows(((3, s["head"]), (s["heads"], 3 * s["head"]), (s["head"], 1))),
    ),
    Rule("blk.{bid}.attn_output", ("width", "width"), bias=True),
    Rule("blk.{bid}.ffn_norm", ("width",), needs_bias=True),
    Rule("blk.{bid}.ffn_up", ("inner", "width"), needs_bias=True),
    Rule("blk.{bid}.ffn_down", ("width", "inner"), needs_bias=True),
)


def derive(values: dict[str, Any], model_type: str) -> dict[str, Any]:
    """Remove a head size, which the architecture ignores."""
    del model_type
    values.pop("head_dim", None)
    return values


def dimensions(config: Config) -> dict[str, int]:
    """Return the sizes that the shapes of the rules name."""
    return {**decoder_parts.dimensions(config), "fused": 3 * config.integer("hidden_size")}


def write_hyperparameters(values: KeyValues, config: Config, source: ModelDirectory, file_type: int) -> None:
    """Write GPT-NeoX's hyperparameters."""
    del source, file_type
    heads = config.integer("num_attention_heads")
    values.uint32("{arch}.context_length", config.integer("max_position_embeddings"))
    values.uint32("{arch}.embedding_length", config.integer("hidden_size"))
    values.uint32("{arch}.block_count", config.integer("num_hidden_layers"))
    values.uint32("{arch}.feed_forward_length", config.integer("intermediate_size"))
    rope = as_object("rope_parameters", config.values.get("rope_parameters"))
    rotated_part = share("rotary_pct", rope.get("partial_rotary_factor", config.find("rotary_pct")))
    rotated = int(rotated_part * (config.integer("hidden_size") // heads))
    values.uint32("{arch}.rope.dimension_count", rotated)
    values.uint32("{arch}.attention.head_count", heads)
    values.boolean("{arch}.use_parallel_residual", config.find("use_parallel_residual"))
    values.float32("{arch}.attention.layer_norm_epsilon", config.number("layer_norm_eps"))


FAMILY = Family(
    name="gptneox",
    defaults={"gpt_neox": DEFAULTS},
    validated_rope=frozenset({"gpt_neox"}),
    derive=derive,
    rules=RULES,
    dimensions=dimensions,
    rename=decoder_parts.rename,
    hyperparameters=write_hyperparameters,
    vocabulary=decoder_parts.byte_level,
)
