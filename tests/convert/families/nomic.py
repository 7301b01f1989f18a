"""Tiny NomicBERTs: with gated matrices, and with experts in every second block."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.convert.cases import Case
from tests.convert.checkpoints import copy_tokenizer, write_json
from tests.convert.tiny import ALL, expand, tiny

if TYPE_CHECKING:
    from pathlib import Path

CONFIG: dict[str, Any] = {
    "architectures": ["NomicBertModel"], "model_type": "nomic_bert", "vocab_size": 208, "n_embd": 64, "n_inner": 96,
    "n_layer": 2, "n_head": 4, "n_positions": 8192, "max_trained_positions": 2048, "type_vocab_size": 2,
    "layer_norm_epsilon": 1e-12, "activation_function": "swiglu", "causal": False, "prenorm": False,
    "qkv_proj_bias": False, "mlp_fc1_bias": False, "mlp_fc2_bias": False, "rotary_emb_base": 1000,
    "rotary_emb_fraction": 1.0, "rotary_emb_interleaved": False, "rotary_emb_scale_base": None,
    "rotary_scaling_factor": None, "pad_token_id": 0,
}  # fmt: skip
EXPERTS: dict[str, Any] = {
    "vocab_size": 122, "n_layer": 4, "n_positions": 2048, "type_vocab_size": 1, "layer_norm_epsilon": 1e-5,
    "activation_function": "gelu", "qkv_proj_bias": True, "mlp_fc1_bias": True, "mlp_fc2_bias": True,
    "rotary_emb_base": 10000, "moe_every_n_layers": 2, "moe_top_k": 2, "num_experts": 4, "pad_token_id": 1,
    "bos_token_id": 0, "eos_token_id": 2,
}  # fmt: skip
BODY = """
embeddings.word_embeddings.weight vocabulary width
embeddings.token_type_embeddings.weight types width
emb_ln.weight width
emb_ln.bias width
encoder.layers.{b}.attn.Wqkv.weight triple width
encoder.layers.{b}.attn.out_proj.weight width width
encoder.layers.{b}.norm1.weight width
encoder.layers.{b}.norm1.bias width
encoder.layers.{b}.norm2.weight width
encoder.layers.{b}.norm2.bias width
"""
BIASES = """
encoder.layers.{b}.attn.Wqkv.bias triple
encoder.layers.{b}.attn.out_proj.bias width
"""
GATED = """
encoder.layers.{b}.mlp.fc11.weight inner width
encoder.layers.{b}.mlp.fc12.weight inner width
encoder.layers.{b}.mlp.fc2.weight width inner
"""
PLAIN = """
encoder.layers.{b}.mlp.fc1.weight inner width
encoder.layers.{b}.mlp.fc1.bias inner
encoder.layers.{b}.mlp.fc2.weight width inner
encoder.layers.{b}.mlp.fc2.bias width
"""
SPARSE = """
encoder.layers.{b}.mlp.experts.bias width
encoder.layers.{b}.mlp.experts.mlp.w1 all_inner width
encoder.layers.{b}.mlp.experts.mlp.w2 all_inner width
encoder.layers.{b}.mlp.router.layer.weight experts width
"""
MASKED = """
cls.predictions.bias vocabulary
cls.predictions.transform.dense.weight width width
"""


def nomic(directory: Path, tokenizer: str = "wordpiece", *, dtype: str = "F32", shards: int = 0, masked: bool = False,
          pieces: bool = False, **changes: Any) -> Path:  # fmt: skip
    """A NomicBERT; ``masked`` has a head that guesses words, ``pieces`` a SentencePiece model beside tokenizer.json."""
    config = {**CONFIG, **changes}
    count, experts = config["n_layer"], config.get("num_experts") or 0
    sizes = {
        "vocabulary": config["vocab_size"], "types": config.get("type_vocab_size") or 1, "width": config["n_embd"],
        "inner": config["n_inner"], "triple": 3 * config["n_embd"], "all_inner": experts * config["n_inner"],
        "blocks": count, "experts": experts,
    }  # fmt: skip
    shapes = expand(BODY + BIASES * bool(experts), sizes)
    if every := config.get("moe_every_n_layers"):
        for block in range(count):
            shapes |= expand(SPARSE if block % every == 1 else PLAIN, sizes, range(block, block + 1))
    else:
        shapes |= expand(GATED, sizes)
    if masked:
        shapes = {f"bert.{name}": shape for name, shape in shapes.items()} | expand(MASKED, sizes)
    tiny(directory, config, shapes, dtype=dtype, tokenizer=tokenizer, shards=shards)
    said = {name: value for name, value in config.items() if value is not None}
    write_json(directory / "config.json", {**said, "rotary_emb_scale_base": None})  # null counts as said
    if pieces:
        copy_tokenizer(directory, "xlm-roberta")
    own_class = "BertTokenizer" if tokenizer == "wordpiece" else "XLMRobertaTokenizer"
    write_json(directory / "tokenizer_config.json", {"tokenizer_class": own_class})
    return directory


def pooled(directory: Path) -> Path:
    """One that sentence-transformers takes the mean of."""
    nomic(directory, dtype="BF16")
    module = {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}
    write_json(directory / "modules.json", [module])
    (directory / "1_Pooling").mkdir()
    write_json(directory / "1_Pooling" / "config.json", {"pooling_mode_mean_tokens": True})
    return directory


WORDS = "jina-v2-en"
FAST = "xlm-roberta-fast"
CASES = {
    "nomic": Case(nomic, ALL, pre=WORDS),
    "nomic-pooled": Case(pooled, ("auto", "q8_0"), pre=WORDS),
    "nomic-masked": Case(lambda d: nomic(d, dtype="F16", shards=2, masked=True, n_positions=2048,
                                         max_trained_positions=None, layer_norm_epsilon=None, type_vocab_size=None),
                         pre=WORDS),
    "nomic-odd": Case(lambda d: nomic(d, n_embd=48, n_inner=40, activation_function="silu"), ("q8_0", "f16"),
                      pre=WORDS),
    "nomic-multilingual": Case(lambda d: nomic(d, FAST, vocab_size=122, pad_token_id=1, max_position_embeddings=514)),
    "experts": Case(lambda d: nomic(d, FAST, **EXPERTS), ALL),
    "experts-f16": Case(lambda d: nomic(d, FAST, dtype="F16", shards=3, **{**EXPERTS, "n_inner": 80,
                                        "max_trained_positions": None}), ("auto", "q8_0", "f32")),
    "experts-bf16": Case(lambda d: nomic(d, FAST, dtype="BF16", **{**EXPERTS, "n_layer": 3, "pad_token_id": None,
                                         "max_position_embeddings": 512}), ("auto", "f16")),
    "experts-pieces": Case(lambda d: nomic(d, FAST, dtype="BF16", pieces=True, **{**EXPERTS, "n_layer": 2, "n_embd": 8,
                                           "n_inner": 16, "n_head": 2, "vocab_size": 250048})),
}  # fmt: skip
