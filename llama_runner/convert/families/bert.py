"""BERT and sentence encoders made from it: bidirectional attention, absolute positions, layer norms.

Follows ``BertModel`` of llama.cpp's conversion/bert.py: only the encoder is kept, so pooler and heads for
pre-training are dropped, and a classifier is kept where it is one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_runner.convert import hyperparameters
from llama_runner.convert.errors import BadHyperparameter, UnsupportedOption
from llama_runner.convert.families.family_definition import Family, Rule
from llama_runner.convert.families.pooling import pooling_of
from llama_runner.convert.vocab import wordpiece

if TYPE_CHECKING:
    from llama_runner.convert.gguf_metadata import KeyValues
    from llama_runner.convert.model_config import Config
    from llama_runner.convert.model_directory import ModelDirectory
    from llama_runner.convert.vocab import Vocabulary

DEFAULTS: dict[str, dict[str, Any]] = {
    "bert": {
        "vocab_size": 30522,
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
        "max_position_embeddings": 512,
        "type_vocab_size": 2,
        "layer_norm_eps": 1e-12,
        "position_embedding_type": "absolute",
    }
}

RULES = (
    Rule("token_embd", ("vocabulary", "width")),
    Rule("token_types", ("types", "width")),
    Rule("position_embd", ("positions", "width")),
    Rule("token_embd_norm", ("width",), needs_bias=True),
    Rule("blk.{bid}.attn_q", ("width", "width"), bias=True),
    Rule("blk.{bid}.attn_k", ("width", "width"), bias=True),
    Rule("blk.{bid}.attn_v", ("width", "width"), bias=True),
    Rule("blk.{bid}.attn_output", ("width", "width"), bias=True),
    Rule("blk.{bid}.attn_output_norm", ("width",), needs_bias=True),
    Rule("blk.{bid}.ffn_up", ("inner", "width"), bias=True),
    Rule("blk.{bid}.ffn_down", ("width", "inner"), bias=True),
    Rule("blk.{bid}.layer_output_norm", ("width",), needs_bias=True),
    Rule("cls", ("labels", "width"), bias=True, optional=True),
    Rule("cls.output", ("labels", "width"), bias=True, optional=True),
)

IGNORED = ("embeddings.position_ids", "pooler.dense.weight", "pooler.dense.bias")
IGNORED_HEADS = ("cls.predictions", "cls.seq_relationship")
DUMMY_LABELS = 2  # transformers fills in LABEL_0 and LABEL_1 where a model has no labels


def derive(values: dict[str, Any], model_type: str) -> dict[str, Any]:
    """Fill in the labels with numbers as keys, and as many dummies as transformers would."""
    del model_type
    labels = values.get("id2label")
    if labels is None:
        count = values.get("num_labels")
        labels = {number: f"LABEL_{number}" for number in range(count if type(count) is int else DUMMY_LABELS)}
    try:
        values["id2label"] = {int(number): str(label) for number, label in labels.items()}
    except (AttributeError, ValueError) as error:
        raise BadHyperparameter("id2label", f"is {labels!r}") from error
    return values


def labels_of(config: Config) -> dict[int, str]:
    """Return a classifier's labels; empty if there are only transformers' two dummies."""
    labels: dict[int, str] = config.find("id2label")
    return {} if len(labels) == DUMMY_LABELS and labels.get(0) == "LABEL_0" else labels


def dimensions(config: Config) -> dict[str, int]:
    """Return the sizes that the shapes of the rules name."""
    if (kind := config.find("position_embedding_type")) not in ("absolute", None):
        raise UnsupportedOption("position_embedding_type in config.json", kind)
    return {
        "blocks": config.integer("num_hidden_layers"),
        "vocabulary": config.integer("vocab_size"),
        "width": config.integer("hidden_size"),
        "inner": config.integer("intermediate_size"),
        "types": config.integer("type_vocab_size"),
        "positions": config.integer("max_position_embeddings"),
        "labels": len(config.find("id2label")),
    }


def rename(name: str, config: Config) -> str | None:
    """Remove the prefix of models with a head, and translate the names of the first TensorFlow exports."""
    name = name.removeprefix("bert.")
    for old, new in ((".gamma", ".weight"), (".beta", ".bias")):
        if name.endswith(old):
            name = name.removesuffix(old) + new
    if name in IGNORED or name.startswith(IGNORED_HEADS):
        return None
    if labels_of(config) and name in ("classifier.weight", "classifier.bias"):
        return name.replace("classifier.", "classifier.out_proj.")
    return name


def write_hyperparameters(values: KeyValues, config: Config, source: ModelDirectory, file_type: int) -> None:
    """Write the text model's hyperparameters, bidirectional attention, pooling and labels."""
    hyperparameters.write(values, config, file_type)
    values.boolean("{arch}.attention.causal", value=False)
    if (pooling := pooling_of(source)) is not None:
        values.uint32("{arch}.pooling_type", pooling)
    if labels := labels_of(config):
        values.strings("{arch}.classifier.output_labels", [label for _, label in sorted(labels.items())])


def write_vocabulary(values: KeyValues, config: Config, source: ModelDirectory) -> Vocabulary:
    """Write the number of token types and the WordPiece vocabulary."""
    return wordpiece.write(values, config, source)


FAMILY = Family(
    name="bert",
    defaults=DEFAULTS,
    derive=derive,
    rules=RULES,
    dimensions=dimensions,
    rename=rename,
    hyperparameters=write_hyperparameters,
    vocabulary=write_vocabulary,
)
