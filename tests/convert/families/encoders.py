"""Tiny encoders beside BERT: RoBERTa and XLM-RoBERTa, with and without a classifier."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.convert.cases import Case
from tests.convert.checkpoints import bert_shapes
from tests.convert.tiny import ALL, tiny

if TYPE_CHECKING:
    from pathlib import Path

CONFIG: dict[str, Any] = {
    "architectures": ["RobertaModel"], "model_type": "roberta", "vocab_size": 330, "hidden_size": 64,
    "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 66,
    "type_vocab_size": 1, "layer_norm_eps": 1e-5, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2,
}  # fmt: skip
XLM: dict[str, Any] = {"architectures": ["XLMRobertaModel"], "model_type": "xlm-roberta", "vocab_size": 122}
FEW: dict[str, Any] = dict.fromkeys(("layer_norm_eps", "pad_token_id", "bos_token_id", "eos_token_id"))


def roberta(directory: Path, tokenizer: str = "roberta", *, labels: int = 0, dtype: str = "F32", shards: int = 0,
            **changes: Any) -> Path:  # fmt: skip
    """A RoBERTa; one with ``labels`` is a classifier."""
    config = {**CONFIG, **changes}
    shapes = bert_shapes(config)
    if labels:
        config["id2label"] = {str(number): f"kind {number}" for number in range(labels)}
        shapes = {f"roberta.{name}": shape for name, shape in shapes.items() if "pooler" not in name}
        width = config["hidden_size"]
        shapes |= {"classifier.dense.weight": (width, width), "classifier.dense.bias": (width,)}
        shapes |= {"classifier.out_proj.weight": (labels, width), "classifier.out_proj.bias": (labels,)}
    return tiny(directory, config, shapes, dtype=dtype, tokenizer=tokenizer, shards=shards)


RANKER: dict[str, Any] = {"architectures": ["RobertaForSequenceClassification"]}
XLM_RANKER = {**XLM, "architectures": ["XLMRobertaForSequenceClassification"]}
CASES = {
    "roberta": Case(roberta, ALL, pre="roberta-bpe"),
    "roberta-few": Case(lambda d: roberta(d, dtype="F16", shards=2, **FEW), pre="roberta-bpe"),
    "roberta-ranks": Case(lambda d: roberta(d, labels=3, dtype="BF16", **RANKER), pre="roberta-bpe"),
    "xlm": Case(lambda d: roberta(d, "xlm-roberta", **XLM), ALL),
    "xlm-few": Case(lambda d: roberta(d, "xlm-roberta", dtype="F16", shards=2, **{**XLM, **FEW})),
    "xlm-ranks": Case(lambda d: roberta(d, "xlm-roberta", labels=1, dtype="BF16", **XLM_RANKER)),
    "xlm-fast": Case(lambda d: roberta(d, "xlm-roberta-fast", **XLM)),
}
