"""DistilBERT: BERT with half of the blocks, other names and no token types.

Follows ``DistilBertModel`` of llama.cpp's conversion/bert.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_runner.convert.families import bert
from llama_runner.convert.families.family_definition import Family, Rule

if TYPE_CHECKING:
    from llama_runner.convert.gguf_metadata import KeyValues
    from llama_runner.convert.model_config import Config
    from llama_runner.convert.model_directory import ModelDirectory

DEFAULTS: dict[str, dict[str, Any]] = {
    "distilbert": {
        "vocab_size": 30522,
        "max_position_embeddings": 512,
        "n_layers": 6,
        "n_heads": 12,
        "dim": 768,
        "hidden_dim": 3072,
        "type_vocab_size": 1,  # not transformers' value but the official script's
    }
}
OTHER_NAMES = {"hidden_size": "dim", "num_attention_heads": "n_heads", "num_hidden_layers": "n_layers"}
EPSILON = 1e-12


def derive(values: dict[str, Any], model_type: str) -> dict[str, Any]:
    """Fill in the labels and the sizes under either name; BERT's name takes precedence."""
    for other, name in OTHER_NAMES.items():
        if other in values:
            values[name] = values.pop(other)
    return bert.derive(values, model_type)


def dimensions(config: Config) -> dict[str, int]:
    """Return the sizes that the shapes of the rules name."""
    return {
        "blocks": config.integer("n_layers"),
        "vocabulary": config.integer("vocab_size"),
        "width": config.integer("dim"),
        "inner": config.integer("hidden_dim"),
        "positions": config.integer("max_position_embeddings"),
        "labels": len(config.find("id2label")),
    }


def rename(name: str, config: Config) -> str | None:
    """Remove the prefix of models with a head, and drop the head for masked words."""
    name = name.removeprefix("distilbert.")
    return None if name.startswith("vocab_") else bert.rename(name, config)


def write_hyperparameters(values: KeyValues, config: Config, source: ModelDirectory, file_type: int) -> None:
    """Write the norms' epsilon and BERT's hyperparameters."""
    values.float32("{arch}.attention.layer_norm_epsilon", EPSILON)
    bert.write_hyperparameters(values, config, source, file_type)


RULES = (
    *(rule for rule in bert.RULES if rule.name not in ("token_types", "cls")),
    Rule("cls", ("width", "width"), bias=True, optional=True),
)
FAMILY = Family(
    name="bert",
    defaults=DEFAULTS,
    derive=derive,
    rules=RULES,
    dimensions=dimensions,
    rename=rename,
    hyperparameters=write_hyperparameters,
    vocabulary=bert.write_vocabulary,
)
