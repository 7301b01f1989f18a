"""T5, mT5 and UMT5, and T5's encoder alone: relative position biases, RMS norms.

Follows ``T5Model`` and ``T5EncoderModel`` of llama.cpp's conversion/t5.py.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from llama_runner.convert.errors import BadHyperparameter, UnsupportedOption
from llama_runner.convert.families.family_definition import Family, Rule
from llama_runner.convert.vocab import unigram

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llama_runner.convert.gguf_metadata import KeyValues
    from llama_runner.convert.model_config import Config
    from llama_runner.convert.model_directory import ModelDirectory
    from llama_runner.convert.safetensors import Tensor

T5: dict[str, Any] = {
    "vocab_size": 32128,
    "d_model": 512,
    "d_kv": 64,
    "d_ff": 2048,
    "num_layers": 6,
    "num_decoder_layers": None,  # as many as num_layers
    "num_heads": 8,
    "relative_attention_num_buckets": 32,
    "layer_norm_epsilon": 1e-6,
    "feed_forward_proj": "relu",
    "tie_word_embeddings": True,
    "decoder_start_token_id": None,
}
UMT5: dict[str, Any] = {
    **T5,
    "vocab_size": 250112,
    "d_ff": 1024,
    "num_layers": 8,
    "num_heads": 6,
    "feed_forward_proj": "gated-gelu",
    "decoder_start_token_id": 0,
}
DEFAULTS: dict[str, dict[str, Any]] = {"t5": T5, "mt5": {**UMT5, "tie_word_embeddings": False}, "umt5": UMT5}
OTHER_NAMES = {  # under which transformers takes the sizes as well, and before their own
    "hidden_size": "d_model",
    "num_attention_heads": "num_heads",
    "num_hidden_layers": "num_layers",
    "head_dim": "d_kv",
}
WHOLE = "t5"  # llama.cpp's name of encoder and decoder together
CONTEXT = 512  # where config.json does not say; nothing in the model ends there
EMBEDDINGS = ("shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
GATED = ("gated-gelu", "gated-gelu_new")
PLAIN = "relu"  # llama.cpp knows one activation with a gate and one without


def gated(config: Config, block: int) -> bool:
    """Return whether the feed-forward network is gated."""
    del block
    return config.find("feed_forward_proj") in GATED


def biased(config: Config, block: int) -> bool:
    """Return whether the block has position biases: every one of UMT5, else the first, which the others share."""
    return block == 0 or config.find("model_type") == "umt5"


def decoded(config: Config, block: int) -> bool:
    """Return whether the decoder has the block; it may have fewer than the encoder."""
    return config.find("num_decoder_layers") is None or block < config.integer("num_decoder_layers")


def first(config: Config, block: int) -> bool:
    """Return whether the block is the first."""
    del config
    return block == 0


def _attention(prefix: str) -> tuple[Rule, ...]:
    return (
        Rule(f"{prefix}_norm", ("width",)),
        Rule(f"{prefix}_q", ("queries", "width")),
        Rule(f"{prefix}_k", ("queries", "width")),
        Rule(f"{prefix}_v", ("queries", "width")),
        Rule(f"{prefix}_o", ("width", "queries")),
    )


def _feed_forward(prefix: str) -> tuple[Rule, ...]:
    return (
        Rule(f"{prefix}_norm", ("width",)),
        Rule(f"{prefix}_gate", ("inner", "width"), where=gated),
        Rule(f"{prefix}_up", ("inner", "width")),
        Rule(f"{prefix}_down", ("width", "inner")),
    )


def _in_decoder(rule: Rule) -> Rule:
    return replace(rule, where=lambda config, block: decoded(config, block) and rule.where(config, block))


ENCODER_RULES = (
    Rule("token_embd", ("vocabulary", "width")),
    *_attention("enc.blk.{bid}.attn"),
    Rule("enc.blk.{bid}.attn_rel_b", ("buckets", "heads"), where=biased),
    *_feed_forward("enc.blk.{bid}.ffn"),
    Rule("enc.output_norm", ("width",)),
)
DECODER_RULES = (
    *_attention("dec.blk.{bid}.attn"),
    Rule("dec.blk.{bid}.attn_rel_b", ("buckets", "heads"), where=biased),
    *_attention("dec.blk.{bid}.cross_attn"),
    # only in the first checkpoints, and never used
    Rule("dec.blk.{bid}.cross_attn_rel_b", ("buckets", "heads"), where=first, optional=True),
    *_feed_forward("dec.blk.{bid}.ffn"),
    Rule("dec.output_norm", ("width",)),
)
RULES = (
    *ENCODER_RULES,
    *map(_in_decoder, DECODER_RULES),
    Rule("output", ("vocabulary", "width"), optional=True),
)


def derive(values: dict[str, Any], model_type: str) -> dict[str, Any]:
    """Fill in the number of decoder blocks, and use one name for each size."""
    del model_type
    if values["num_decoder_layers"] is None:
        values["num_decoder_layers"] = values["num_layers"]
    for other, name in OTHER_NAMES.items():
        if other in values:
            values[name] = values.pop(other)
    return values


def dimensions(config: Config) -> dict[str, int]:
    """Return the sizes that the shapes of the rules name; raises for activations that llama.cpp lacks."""
    if (kind := config.find("feed_forward_proj")) not in (*GATED, PLAIN):
        raise UnsupportedOption("feed_forward_proj in config.json", kind)
    heads = config.integer("num_heads")
    return {
        "blocks": config.integer("num_layers"),
        "vocabulary": config.integer("vocab_size"),
        "width": config.integer("d_model"),
        "inner": config.integer("d_ff"),
        "heads": heads,
        "queries": heads * config.integer("d_kv"),
        "buckets": config.integer("relative_attention_num_buckets"),
    }


def whole_dimensions(config: Config) -> dict[str, int]:
    """Return the sizes of encoder and decoder; raises for a longer decoder, for which llama.cpp has no names."""
    sizes = dimensions(config)
    if (count := config.integer("num_decoder_layers")) > sizes["blocks"]:
        raise BadHyperparameter("num_decoder_layers", f"is {count}, more than the {sizes['blocks']} of the encoder")
    return sizes


def rename(name: str, config: Config) -> str | None:
    """Translate the three names of the embedding."""
    del config
    return EMBEDDINGS[0] if name in EMBEDDINGS else name


def one_embedding(tensors: Sequence[Tensor]) -> Sequence[Tensor]:
    """Keep the first embedding, which encoder and decoder share; others are copies."""
    copies = [tensor for tensor in tensors if tensor.name in EMBEDDINGS][1:]
    return [tensor for tensor in tensors if tensor not in copies]


def write_hyperparameters(values: KeyValues, config: Config, source: ModelDirectory, file_type: int) -> None:
    """Write the sizes, and those of the decoder if there is one."""
    del source
    whole = values.architecture == WHOLE
    context = config.find("n_positions")
    values.uint32("{arch}.context_length", CONTEXT if context is None else context)
    values.uint32("{arch}.embedding_length", config.find("d_model"))
    values.uint32("{arch}.feed_forward_length", config.find("d_ff"))
    values.uint32("{arch}.block_count", config.find("num_layers"))
    if whole:
        values.uint32("{arch}.decoder_block_count", config.find("num_decoder_layers"))
    values.uint32("{arch}.attention.head_count", config.find("num_heads"))
    values.uint32("{arch}.attention.key_length", config.find("d_kv"))
    values.uint32("{arch}.attention.value_length", config.find("d_kv"))
    values.float32("{arch}.attention.layer_norm_epsilon", config.find("layer_norm_epsilon"))
    values.uint32("{arch}.attention.relative_buckets_count", config.find("relative_attention_num_buckets"))
    values.float32("{arch}.attention.layer_norm_rms_epsilon", config.find("layer_norm_epsilon"))
    if whole:
        values.uint32("{arch}.decoder_start_token_id", config.find("decoder_start_token_id"))
    values.uint32("general.file_type", file_type)


FAMILY = Family(
    name=WHOLE,
    defaults=DEFAULTS,
    derive=derive,
    rules=RULES,
    dimensions=whole_dimensions,
    rename=rename,
    combine=one_embedding,
    hyperparameters=write_hyperparameters,
    vocabulary=unigram.write_t5,
)
ENCODER = replace(FAMILY, name="t5encoder", defaults={"t5": T5}, rules=ENCODER_RULES, dimensions=dimensions)
