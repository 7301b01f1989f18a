"""Tiny ModernBERTs: bare, with the head that guesses words, and with a classifier."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.convert.cases import Case
from tests.convert.checkpoints import write_json
from tests.convert.tiny import ALL, expand, sizes_of, tiny

if TYPE_CHECKING:
    from pathlib import Path

CONFIG: dict[str, Any] = {
    "architectures": ["ModernBertModel"], "model_type": "modernbert", "vocab_size": 330, "hidden_size": 64,
    "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4, "max_position_embeddings": 128,
    "norm_eps": 1e-6, "layer_norm_eps": 1e-6, "global_rope_theta": 80000.0, "local_rope_theta": 5000.0,
    "global_attn_every_n_layers": 2, "local_attention": 16, "hidden_activation": "silu",
    "bos_token_id": 0, "cls_token_id": 0, "pad_token_id": 1, "eos_token_id": 2, "sep_token_id": 2,
}  # fmt: skip
EMBEDDINGS = """
embeddings.tok_embeddings.weight vocabulary width
embeddings.norm.weight width
"""
BODY = """
layers.{b}.attn.Wqkv.weight triple width
layers.{b}.attn.Wo.weight width width
layers.{b}.mlp_norm.weight width
layers.{b}.mlp.Wi.weight double width
layers.{b}.mlp.Wo.weight width inner
"""
NORM_OF_LATER = "layers.{b}.attn_norm.weight width\n"
LAST = "final_norm.weight width\n"
HEAD = """
head.dense.weight width width
head.norm.weight width
"""
BIASED = ("embeddings.norm", "attn_norm", "Wqkv", "Wo", "mlp_norm", "Wi", "final_norm", "head.dense", "head.norm")
FEW: dict[str, Any] = dict.fromkeys((
    "norm_eps", "layer_norm_eps", "global_rope_theta", "local_rope_theta", "global_attn_every_n_layers",
    "local_attention", "hidden_activation", "max_position_embeddings",
))  # fmt: skip


def modernbert(directory: Path, tokenizer: str = "roberta", *, labels: int = 0, head: bool = False, words: bool = False,
               biases: bool = False, dtype: str = "F32", shards: int = 0, pooling: str = "",
               **changes: Any) -> Path:  # fmt: skip
    """A ModernBERT; with ``labels`` it is a classifier, with ``words`` there is all that ModernBERT-base has."""
    config = {**CONFIG, **changes}
    width, inner = config["hidden_size"], config["intermediate_size"]
    sizes = {**sizes_of(config), "triple": 3 * width, "double": 2 * inner, "labels": labels}
    shapes = expand(EMBEDDINGS, sizes)
    shapes |= expand(NORM_OF_LATER, sizes, range(1, sizes["blocks"])) | expand(BODY + LAST, sizes)
    if labels or head:
        shapes = {f"model.{name}": shape for name, shape in shapes.items()} | expand(HEAD, sizes)
    if labels:
        config["id2label"] = {str(number): f"kind {number}" for number in range(labels)}
        shapes |= {"classifier.weight": (labels, width), "classifier.bias": (labels,)}
    if biases:
        for name, shape in list(shapes.items()):
            if name.removesuffix(".weight").endswith(BIASED):
                shapes[f"{name.removesuffix('weight')}bias"] = shape[:1]
    if words:
        shapes["decoder.bias"] = (config["vocab_size"],)
    tiny(directory, config, shapes, dtype=dtype, tokenizer=tokenizer, shards=shards)
    if pooling:
        module = {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}
        write_json(directory / "modules.json", [module])
        (directory / "1_Pooling").mkdir()
        write_json(directory / "1_Pooling" / "config.json", {f"pooling_mode_{pooling}": True})
    return directory


MASKED: dict[str, Any] = {"architectures": ["ModernBertForMaskedLM"]}
RANKER: dict[str, Any] = {"architectures": ["ModernBertForSequenceClassification"]}
CASES = {
    "modernbert": Case(modernbert, ALL, pre="roberta-bpe"),
    "modernbert-few": Case(lambda d: modernbert(d, dtype="F16", shards=2, pooling="cls_token", **FEW),
                           pre="roberta-bpe"),
    "modernbert-pooled": Case(lambda d: modernbert(d, dtype="BF16", pooling="mean_tokens"), ("auto", "q8_0"),
                              pre="roberta-bpe"),
    "modernbert-biases": Case(lambda d: modernbert(d, "gpt2", vocab_size=336, biases=True, dtype="BF16"), ALL,
                              pre="gpt-2"),
    "modernbert-odd": Case(lambda d: modernbert(d, hidden_size=48, intermediate_size=40), ("q8_0", "bf16"),
                           pre="roberta-bpe"),
    "modernbert-masked": Case(lambda d: modernbert(d, head=True, dtype="BF16", **MASKED), ALL, pre="roberta-bpe"),
    "modernbert-ranks": Case(lambda d: modernbert(d, labels=1, dtype="F16", **RANKER), ALL, pre="roberta-bpe"),
    "modernbert-sorts": Case(lambda d: modernbert(d, labels=3, biases=True, shards=2, **RANKER), ("auto", "q8_0"),
                             pre="roberta-bpe"),
}  # fmt: skip
