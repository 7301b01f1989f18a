"""Common parts of decoders: rules, sizes, names and vocabularies.

A family uses the parts that fit and defines the rest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_runner.convert import hyperparameters
from llama_runner.convert.errors import BadHyperparameter, MissingFile
from llama_runner.convert.families.family_definition import Rule
from llama_runner.convert.model_config import share
from llama_runner.convert.vocab import bpe, write_sentencepiece
from llama_runner.convert.vocab.tokenizer import Tokenizer

if TYPE_CHECKING:
    from llama_runner.convert.gguf_metadata import KeyValues
    from llama_runner.convert.model_config import Config
    from llama_runner.convert.model_directory import ModelDirectory
    from llama_runner.convert.vocab import Vocabulary

EMBEDDINGS = (
    Rule("token_embd", ("vocabulary", "width")),
    Rule("output_norm", ("width",)),
    Rule("output", ("vocabulary", "width"), optional=True),
)
ATTENTION = (
    Rule("blk.{bid}.attn_norm", ("width",)),
    Rule("blk.{bid}.attn_q", ("queries", "width"), bias=True),
    Rule("blk.{bid}.attn_k", ("keys", "width"), bias=True),
    Rule("blk.{bid}.attn_v", ("keys", "width"), bias=True),
    Rule("blk.{bid}.attn_output", ("width", "queries"), bias=True),
)
HEAD_NORMS = (Rule("blk.{bid}.attn_q_norm", ("head",)), Rule("blk.{bid}.attn_k_norm", ("head",)))
FEED_FORWARD = (
    Rule("blk.{bid}.ffn_norm", ("width",)),
    Rule("blk.{bid}.ffn_gate", ("inner", "width"), bias=True),
    Rule("blk.{bid}.ffn_up", ("inner", "width"), bias=True),
    Rule("blk.{bid}.ffn_down", ("width", "inner"), bias=True),
)
ROUTER = Rule("blk.{bid}.ffn_gate_inp", ("experts", "width"))
EXPERTS = (
    Rule("blk.{bid}.ffn_down_exps", ("experts", "width", "expert_inner")),
    Rule("blk.{bid}.ffn_gate_exps", ("experts", "expert_inner", "width")),
    Rule("blk.{bid}.ffn_up_exps", ("experts", "expert_inner", "width")),
)
STACKS = (tuple(rule.name for rule in EXPERTS),)  # in the order in which the official script writes them
BLOCKS = ("num_hidden_layers", "n_layers", "n_layer", "num_layers")
COMPUTED_ANYWAY = ("rotary_emb.inv_freq", ".attention.masked_bias", ".attention.bias")  # tables and masks
# Names of what sees, hears and speaks in a composite model, as the official script tells it from the text part.
OTHER_PARTS_BEGIN = (
    *("mlp", "vit.", "vpm.", "siglip2.", "conformer.", "merger.", "resampler.", "sound_encoder."),
    *("sound_projection.", "speech_embeddings."),
)
OTHER_PARTS_HAVE = (
    *("visual.", "vision.", "audio.", "talker.", "vision_", "audio_", "token2wav.", "code2wav.", "projector."),
    *("pre_mm_projector_norm", "image_newline", "view_seperator", "patch_embed", "patch_merger.", "patch_merge_mlp."),
    "model.connector.",
)


def head_size(config: Config) -> int:
    """Return the number of elements of an attention head."""
    if config.find("head_dim") is not None:
        return config.integer("head_dim")
    width, heads = config.integer("hidden_size"), config.integer("num_attention_heads")
    if heads > width:
        raise BadHyperparameter("num_attention_heads", f"is {heads}, more than the width of {width}")
    return width // heads


def dimensions(config: Config) -> dict[str, int]:
    """Return the sizes that the shapes of the rules name."""
    heads, size = config.integer("num_attention_heads"), head_size(config)
    kv_heads = config.integer("num_key_value_heads") if config.find("num_key_value_heads") is not None else heads
    if heads % kv_heads:
        raise BadHyperparameter("num_key_value_heads", f"is {kv_heads}, which does not divide {heads} heads")
    if size % 2:
        raise BadHyperparameter("head_dim", f"is {size}; rotary embeddings need an even number")
    return {
        "blocks": config.integer(*BLOCKS),
        "vocabulary": config.integer("vocab_size"),
        "width": config.integer("hidden_size"),
        "inner": config.integer("intermediate_size"),
        "heads": heads,
        "kv_heads": kv_heads,
        "head": size,
        "queries": heads * size,
        "keys": kv_heads * size,
    }


def rotary_share(config: Config) -> float:
    """Return the rotated share of a head's elements, which config.json must have."""
    return share("partial_rotary_factor", config.rope.get("partial_rotary_factor"))


def key_heads(values: dict[str, Any], model_type: str) -> dict[str, Any]:
    """Set the number of key heads to the number of heads if it is absent, as most configuration classes do."""
    del model_type
    if values.get("num_key_value_heads") is None:
        values["num_key_value_heads"] = values.get("num_attention_heads")
    return values


def head_from_width(values: dict[str, Any]) -> None:
    """Set the head size to the width divided by the heads if it is absent."""
    heads, width = values["num_attention_heads"], values["hidden_size"]
    if values.get("head_dim") is None and type(heads) is int and type(width) is int and heads > 0:
        values["head_dim"] = width // heads


def rename(name: str, config: Config) -> str | None:
    """Keep the name; return None for tables of rotary frequencies and masks."""
    del config
    return None if name.endswith(COMPUTED_ANYWAY) else name


def rename_bare(name: str, config: Config) -> str | None:
    """Rename for architectures that also have bare models, whose names lack the prefix."""
    bare = config.architecture.endswith("Model") and not name.startswith(("model.", "lm_head."))
    return rename(f"model.{name}" if bare else name, config)


def rename_text_part(name: str, config: Config) -> str | None:
    """Drop what is not of the text part of a composite model, and remove the prefix of the text part."""
    if name.startswith(OTHER_PARTS_BEGIN) or any(part in name for part in OTHER_PARTS_HAVE):
        return None
    return rename(name.replace("language_model.", ""), config)


def write_text_model(values: KeyValues, config: Config, source: ModelDirectory, file_type: int) -> None:
    """Write the hyperparameters that every text model has."""
    del source
    hyperparameters.write(values, config, file_type)


def byte_level(values: KeyValues, config: Config, source: ModelDirectory) -> Vocabulary:
    """Write the byte-level BPE vocabulary of tokenizer.json."""
    return bpe.write(values, config, source, Tokenizer.load(source, config))


def sentence_pieces(values: KeyValues, config: Config, source: ModelDirectory) -> Vocabulary:
    """Write the vocabulary of tokenizer.model; raises `MissingFile`."""
    if not source.has("tokenizer.model"):
        hint = "fetch it from the original repository; llama.cpp's own script needs it as well"
        raise MissingFile(source.path("tokenizer.model"), purpose="the vocabulary of this architecture", hint=hint)
    return write_sentencepiece.write(values, config, source)


def pieces_or_bytes(values: KeyValues, config: Config, source: ModelDirectory) -> Vocabulary:
    """Write the vocabulary of tokenizer.model if present, else a byte-level BPE."""
    return (sentence_pieces if source.has("tokenizer.model") else byte_level)(values, config, source)
