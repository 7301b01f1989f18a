"""RoBERTa and XLM-RoBERTa: BERT with positions that start after the padding token's number.

Follows ``RobertaModel`` and ``XLMRobertaModel`` of llama.cpp's conversion/bert.py.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from llama_runner.convert.errors import UnsupportedOption
from llama_runner.convert.families import bert, decoder_parts
from llama_runner.convert.families.family_definition import Family, Rule
from llama_runner.convert.select_tensor_rows import Rows, every
from llama_runner.convert.vocab import unigram

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llama_runner.convert.gguf_metadata import KeyValues
    from llama_runner.convert.model_config import Config
    from llama_runner.convert.model_directory import ModelDirectory
    from llama_runner.convert.vocab import Vocabulary

DEFAULTS: dict[str, Any] = {**bert.DEFAULTS["bert"], "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}


def position_rows(sizes: Mapping[str, int]) -> Rows:
    """Return all positions except the first ones, which are for padding."""
    return every(1, sizes["positions"], start=sizes["stored_positions"] - sizes["positions"])


RULES = (
    *(rule for rule in bert.RULES if rule.name not in ("position_embd", "cls")),
    Rule("position_embd", ("positions", "width"), stored=("stored_positions", "width"), rows=position_rows),
    Rule("cls", ("width", "width"), bias=True, optional=True),
)


def _offset(values: Mapping[str, Any]) -> int:
    pad = values.get("pad_token_id")
    return 1 + pad if type(pad) is int else 0


def derive(values: dict[str, Any], model_type: str) -> dict[str, Any]:
    """Fill in the labels, and count only the positions that a token can have."""
    values = bert.derive(values, model_type)
    if type(values["max_position_embeddings"]) is int:
        values["max_position_embeddings"] -= _offset(values)
    return values


def dimensions(config: Config) -> dict[str, int]:
    """Return the sizes that the shapes of the rules name."""
    if config.find("lora_adaptations"):
        raise UnsupportedOption("lora_adaptations in config.json", config.find("lora_adaptations"))
    sizes = bert.dimensions(config)
    return {**sizes, "stored_positions": sizes["positions"] + _offset(config.values)}


def rename(name: str, config: Config) -> str | None:
    """Remove the prefix of models with a head."""
    return bert.rename(name.removeprefix("roberta."), config)


def write_bytes(values: KeyValues, config: Config, source: ModelDirectory) -> Vocabulary:
    """Write a byte-level BPE and the number of token types; WordPiece without a tokenizer.json."""
    if not source.has("tokenizer.json"):
        return bert.write_vocabulary(values, config, source)
    vocabulary = decoder_parts.byte_level(values, config, source)
    values.uint32("tokenizer.ggml.token_type_count", config.find("type_vocab_size"))
    return vocabulary


ROBERTA = Family(
    name="bert",
    defaults={"roberta": DEFAULTS},
    derive=derive,
    rules=RULES,
    dimensions=dimensions,
    rename=rename,
    hyperparameters=bert.write_hyperparameters,
    vocabulary=write_bytes,
)
XLM_ROBERTA = replace(ROBERTA, defaults={"xlm-roberta": DEFAULTS}, vocabulary=unigram.write_xlm_roberta)
