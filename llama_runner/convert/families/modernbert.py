"""ModernBERT: encoder with RoPE and full attention in every third layer.

Follows ``ModernBertModel`` of llama.cpp's conversion/bert.py. The first block has no norm before its attention, since
that of the embeddings is right before it. The official script refuses models with the bias of the head that guesses
words, ModernBERT-base among them; llama.cpp has no use for it, and here it is left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_runner.convert.families import bert, decoder_parts
from llama_runner.convert.families.family_definition import Family, Rule

if TYPE_CHECKING:
    from llama_runner.convert.gguf_metadata import KeyValues
    from llama_runner.convert.model_config import Config
    from llama_runner.convert.model_directory import ModelDirectory
    from llama_runner.convert.vocab import Vocabulary

DEFAULTS: dict[str, dict[str, Any]] = {
    "modernbert": {
        "vocab_size": 50368,
        "hidden_size": 768,
        "intermediate_size": 1152,
        "num_hidden_layers": 22,
        "num_attention_heads": 12,
        "hidden_activation": "gelu",
        "max_position_embeddings": 8192,
        "norm_eps": 1e-5,
        "global_rope_theta": 160000.0,
        "local_rope_theta": 10000.0,
        "global_attn_every_n_layers": 3,
        "local_attention": 128,
    }
}
IGNORED = ("decoder.weight", "decoder.bias")


def later(config: Config, block: int) -> bool:
    """Return whether the block is not the first."""
    del config
    return block > 0


RULES = (
    Rule("token_embd", ("vocabulary", "width")),
    Rule("token_embd_norm", ("width",), bias=True),
    Rule("output_norm", ("width",), bias=True),
    Rule("blk.{bid}.attn_norm", ("width",), bias=True, where=later),
    Rule("blk.{bid}.attn_qkv", ("queries_keys_values", "width"), bias=True),
    Rule("blk.{bid}.attn_output", ("width", "width"), bias=True),
    Rule("blk.{bid}.ffn_norm", ("width",), bias=True),
    Rule("blk.{bid}.ffn_up", ("gates_and_inner", "width"), bias=True),
    Rule("blk.{bid}.ffn_down", ("width", "inner"), bias=True),
    Rule("cls", ("width", "width"), bias=True, optional=True),
    Rule("cls.norm", ("width",), bias=True, optional=True),
    Rule("cls.output", ("labels", "width"), bias=True, optional=True),
)


def dimensions(config: Config) -> dict[str, int]:
    """Return the sizes that the shapes of the rules name."""
    width, inner = config.integer("hidden_size"), config.integer("intermediate_size")
    return {
        "blocks": config.integer("num_hidden_layers"),
        "vocabulary": config.integer("vocab_size"),
        "width": width,
        "inner": inner,
        "gates_and_inner": 2 * inner,
        "queries_keys_values": 3 * width,
        "labels": len(config.find("id2label")),
    }


def rename(name: str, config: Config) -> str | None:
    """Remove the prefix of models with a head, and drop the decoder of masked words."""
    if name in IGNORED:
        return None
    return bert.rename(name.removeprefix("model."), config)


def write_hyperparameters(values: KeyValues, config: Config, source: ModelDirectory, file_type: int) -> None:
    """Write an encoder's hyperparameters, and which layers use a sliding window."""
    bert.write_hyperparameters(values, config, source, file_type)
    values.uint32("{arch}.attention.sliding_window", config.find("local_attention"))
    if (pattern := config.find("global_attn_every_n_layers")) is not None:
        values.uint32("{arch}.attention.sliding_window_pattern", pattern)
    values.string("{arch}.rope.scaling.type", "none")
    values.uint32("{arch}.vocab_size", config.find("vocab_size"))
    if activation := config.find("hidden_activation"):
        values.string("{arch}.hidden_activation", str(activation))


def write_vocabulary(values: KeyValues, config: Config, source: ModelDirectory) -> Vocabulary:
    """Write a byte-level BPE, preceded by the flags for tokens at both ends of a text."""
    for kind in ("bos", "eos", "sep"):
        values.boolean(f"tokenizer.ggml.add_{kind}_token", value=True)
    return decoder_parts.byte_level(values, config, source)


FAMILY = Family(
    name="modern-bert",
    defaults=DEFAULTS,
    derive=bert.derive,
    rules=RULES,
    dimensions=dimensions,
    rename=rename,
    hyperparameters=write_hyperparameters,
    vocabulary=write_vocabulary,
)
