"""Tiny DistilBERTs: bare, guessing words, classifying."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.convert.cases import WORDS, Case
from tests.convert.checkpoints import copy_tokenizer, write_json
from tests.convert.tiny import ALL, expand, tiny

if TYPE_CHECKING:
    from pathlib import Path

CONFIG: dict[str, Any] = {
    "architectures": ["DistilBertModel"], "model_type": "distilbert", "vocab_size": 204, "dim": 64, "hidden_dim": 96,
    "n_layers": 2, "n_heads": 4, "max_position_embeddings": 48, "pad_token_id": 0,
}  # fmt: skip
SIZES = {"vocabulary": 204, "positions": 48, "width": 64, "inner": 96, "blocks": 2, "experts": 0}
LINEAR = """
transformer.layer.{b}.attention.q_lin.weight width width
transformer.layer.{b}.attention.k_lin.weight width width
transformer.layer.{b}.attention.v_lin.weight width width
transformer.layer.{b}.attention.out_lin.weight width width
transformer.layer.{b}.sa_layer_norm.weight width
transformer.layer.{b}.ffn.lin1.weight inner width
transformer.layer.{b}.ffn.lin2.weight width inner
transformer.layer.{b}.output_layer_norm.weight width
"""
TABLE = """
embeddings.word_embeddings.weight vocabulary width
embeddings.position_embeddings.weight positions width
embeddings.LayerNorm.weight width
embeddings.LayerNorm.bias width
""" + LINEAR + LINEAR.replace(".weight", ".bias").replace(" inner width", " inner").replace(
    " width inner", " width"
).replace(" width width", " width")  # fmt: skip
GUESSER = """
vocab_transform.weight width width
vocab_transform.bias width
vocab_layer_norm.weight width
vocab_layer_norm.bias width
vocab_projector.weight vocabulary width
vocab_projector.bias vocabulary
"""
CLASSES = """
pre_classifier.weight width width
pre_classifier.bias width
classifier.weight 3 width
classifier.bias 3
"""


def distilbert(directory: Path, head: str = "", *, dtype: str = "F32", shards: int = 0, **changes: Any) -> Path:
    """A DistilBERT; one with a ``head`` has a prefix before all else."""
    shapes = expand(TABLE, SIZES)
    if head:
        shapes = {f"distilbert.{name}": shape for name, shape in shapes.items()} | expand(head, SIZES)
    return tiny(directory, {**CONFIG, **changes}, shapes, dtype=dtype, tokenizer="wordpiece", shards=shards)


def word_list(directory: Path) -> None:
    """With vocab.txt alone."""
    distilbert(directory)
    (directory / "tokenizer.json").unlink()
    copy_tokenizer(directory, "wordpiece", "vocab.txt")


def pooled(directory: Path) -> None:
    """A model of sentence-transformers."""
    distilbert(directory)
    write_json(directory / "modules.json", [{"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}])
    (directory / "1_Pooling").mkdir()
    write_json(directory / "1_Pooling" / "config.json", {"pooling_mode_mean_tokens": True})


LABELS = {"id2label": {"0": "bad", "1": "fair", "2": "good"}}
RANKER: dict[str, Any] = {"architectures": ["DistilBertForSequenceClassification"], **LABELS}
WITH_WORDS: dict[str, Any] = {"architectures": ["DistilBertForMaskedLM"]}
OTHERS: dict[str, Any] = {
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "dim": 32,
    "n_heads": 2,
    "n_layers": 1,
}
FEW: dict[str, Any] = dict.fromkeys(("pad_token_id",))
CASES = {
    "bare": Case(distilbert, ALL, pre=WORDS),
    "words": Case(lambda d: distilbert(d, GUESSER, dtype="F16", shards=2, **WITH_WORDS), ALL, pre=WORDS),
    "classes": Case(lambda d: distilbert(d, CLASSES, dtype="BF16", **RANKER), ALL, pre=WORDS),
    "other-names": Case(lambda d: distilbert(d, **OTHERS), pre=WORDS),
    "few": Case(lambda d: distilbert(d, dtype="F16", shards=3, **FEW), pre=WORDS),
    "types": Case(lambda d: distilbert(d, type_vocab_size=2, layer_norm_eps=1e-5), pre=WORDS),
    "word-list": Case(word_list, pre=WORDS),
    "pooled": Case(pooled, pre=WORDS),
}
