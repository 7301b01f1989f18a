"""Tiny T5, mT5 and UMT5 models, and encoders of T5 alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.convert.cases import Case
from tests.convert.checkpoints import edit_json
from tests.convert.tiny import ALL, expand, tiny

if TYPE_CHECKING:
    from pathlib import Path

CONFIG: dict[str, Any] = {
    "architectures": ["T5ForConditionalGeneration"], "model_type": "t5", "vocab_size": 130, "d_model": 64, "d_ff": 96,
    "d_kv": 8, "num_heads": 4, "num_layers": 2, "n_positions": 64, "relative_attention_num_buckets": 32,
    "layer_norm_epsilon": 1e-5, "decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 1,
}  # fmt: skip
UMT5: dict[str, Any] = {"architectures": ["UMT5ForConditionalGeneration"], "model_type": "umt5"}
ENCODER: dict[str, Any] = {"architectures": ["T5EncoderModel"]}
GATED: dict[str, Any] = {"feed_forward_proj": "gated-gelu"}
EMBEDDING = "shared.weight vocabulary width\n"
HEAD = "lm_head.weight vocabulary width\n"
BLOCK = """
{stack}.block.{b}.layer.0.layer_norm.weight width
{stack}.block.{b}.layer.0.SelfAttention.q.weight queries width
{stack}.block.{b}.layer.0.SelfAttention.k.weight queries width
{stack}.block.{b}.layer.0.SelfAttention.v.weight queries width
{stack}.block.{b}.layer.0.SelfAttention.o.weight width queries
"""
CROSS = """
decoder.block.{b}.layer.1.layer_norm.weight width
decoder.block.{b}.layer.1.EncDecAttention.q.weight queries width
decoder.block.{b}.layer.1.EncDecAttention.k.weight queries width
decoder.block.{b}.layer.1.EncDecAttention.v.weight queries width
decoder.block.{b}.layer.1.EncDecAttention.o.weight width queries
"""
FEED_FORWARD = """
{stack}.block.{b}.layer.{place}.layer_norm.weight width
{stack}.block.{b}.layer.{place}.DenseReluDense.{up}.weight inner width
{stack}.block.{b}.layer.{place}.DenseReluDense.wo.weight width inner
"""
GATE = "{stack}.block.{b}.layer.{place}.DenseReluDense.wi_0.weight inner width\n"
BIAS = "{stack}.block.{b}.layer.0.SelfAttention.relative_attention_bias.weight buckets heads\n"
OLD_BIAS = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight buckets heads\n"


def stack(name: str, *, gate: bool, every: bool) -> str:
    """The table of the encoder or the decoder."""
    table = BLOCK + FEED_FORWARD + (GATE if gate else "") + (BIAS if every else BIAS.replace("{b}", "0"))
    table += "{stack}.final_layer_norm.weight width\n"
    for key, value in {
        "stack": name,
        "place": "1" if name == "encoder" else "2",
        "up": "wi_1" if gate else "wi",
    }.items():
        table = table.replace(f"{{{key}}}", value)
    return table + (CROSS if name == "decoder" else "")


def t5(directory: Path, table: str = "", *, embedding: str = EMBEDDING, dtype: str = "F32", shards: int = 0,
       gate: bool = False, every: bool = False, decoders: int = 2, **changes: Any) -> Path:  # fmt: skip
    """A model of an encoder and, with ``decoders``, as many blocks of a decoder; ``table`` is added."""
    config = {**CONFIG, **changes}
    sizes = {
        "vocabulary": config["vocab_size"], "width": config["d_model"], "inner": config["d_ff"], "heads": 4,
        "queries": 4 * config["d_kv"], "buckets": 32, "blocks": 2, "experts": 0,
    }  # fmt: skip
    shapes = expand(embedding + table + stack("encoder", gate=gate, every=every), sizes)
    if decoders:
        shapes |= expand(stack("decoder", gate=gate, every=every), sizes, range(decoders))
    return tiny(directory, config, shapes, dtype=dtype, tokenizer="t5", shards=shards)


def copies(directory: Path) -> Path:
    """All three embeddings, with other numbers each, in shards."""
    names = ("shared", "encoder.embed_tokens", "decoder.embed_tokens")
    embeddings = "".join(f"{name}.weight vocabulary width\n" for name in names)
    return t5(directory, embedding=embeddings, dtype="BF16", shards=3)


def named_like_others(directory: Path) -> Path:
    """The sizes under the names that other models have for them; what config.json calls them itself is not counted."""
    t5(directory)
    edit_json(
        directory / "config.json", hidden_size=64, num_attention_heads=4, num_hidden_layers=2, head_dim=8,
        d_model=32, num_heads=2, d_kv=4,
    )  # fmt: skip
    return directory


FEW: dict[str, Any] = dict.fromkeys((
    "n_positions", "relative_attention_num_buckets", "layer_norm_epsilon", "pad_token_id", "eos_token_id",
))  # fmt: skip
V11: dict[str, Any] = {**GATED, "tie_word_embeddings": False}
MT5: dict[str, Any] = {"architectures": ["MT5ForConditionalGeneration"], "model_type": "mt5"}
OLD: dict[str, Any] = {"architectures": ["T5WithLMHeadModel"]}
CASES = {
    "t5": Case(t5, ALL),
    "t5-old": Case(lambda d: t5(d, OLD_BIAS, dtype="F16", shards=2, **OLD), ALL),
    "t5-gated": Case(lambda d: t5(d, HEAD, gate=True, dtype="BF16", **V11), ALL),
    "t5-head": Case(lambda d: t5(d, HEAD, dtype="F16")),
    "t5-few": Case(lambda d: t5(d, dtype="F16", **FEW)),
    "t5-copies": Case(copies),
    "t5-other-names": Case(named_like_others),
    "t5-one-decoder": Case(lambda d: t5(d, decoders=1, num_decoder_layers=1)),
    "t5-embedding-of-the-decoder": Case(lambda d: t5(d, embedding="decoder.embed_tokens.weight vocabulary width\n")),
    "t5-wide-heads": Case(lambda d: t5(d, d_kv=24, vocab_size=160), ("q8_0",)),
    "mt5": Case(lambda d: t5(d, HEAD, gate=True, dtype="F16", shards=3, **MT5), ALL),
    "mt5-few": Case(lambda d: t5(d, HEAD, gate=True, **{**MT5, **FEW, "decoder_start_token_id": None})),
    "umt5": Case(lambda d: t5(d, gate=True, every=True, dtype="BF16", **UMT5), ALL),
    "umt5-bare": Case(lambda d: t5(d, gate=True, every=True, **{**UMT5, "architectures": ["UMT5Model"]})),
    "encoder": Case(lambda d: t5(d, decoders=0, **ENCODER), ALL),
    "encoder-gated": Case(lambda d: t5(d, decoders=0, gate=True, dtype="BF16", shards=2, **ENCODER, **V11), ALL),
    "encoder-few": Case(lambda d: t5(d, decoders=0, dtype="F16", **ENCODER, **FEW)),
    "encoder-only-its-embedding": Case(
        lambda d: t5(d, embedding="encoder.embed_tokens.weight vocabulary width\n", decoders=0, **ENCODER)
    ),
}
