"""Qwen 2, 2.5 and 3, dense and with experts: Llama's block with biases (2) or head norms (3).

Follows ``Qwen2Model``, ``Qwen2MoeModel``, ``Qwen3Model`` and ``Qwen3MoeModel`` of llama.cpp's conversion/qwen.py. A
Qwen3 that ranks is refused: it gets a head made of two rows of the output matrix there. So are blocks without experts
among such with them: llama.cpp knows none in these architectures.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from llama_runner.convert import hyperparameters, model_card
from llama_runner.convert.errors import UnsupportedOption
from llama_runner.convert.families import decoder_parts
from llama_runner.convert.families.family_definition import Family, Rule
from llama_runner.convert.families.pooling import pooling_of

if TYPE_CHECKING:
    from llama_runner.convert.gguf_metadata import KeyValues
    from llama_runner.convert.model_config import Config
    from llama_runner.convert.model_directory import ModelDirectory

SHARED: dict[str, Any] = {
    "vocab_size": 151936,
    "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "rope_scaling": None,
    "tie_word_embeddings": False,
}
DENSE = {
    **SHARED,
    "hidden_size": 4096,
    "intermediate_size": 22016,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
}
SPARSE = {
    **SHARED,
    "hidden_size": 2048,
    "num_hidden_layers": 24,
}
DEFAULTS: dict[str, dict[str, Any]] = {
    "qwen2": DENSE,
    "qwen3": {**DENSE, "head_dim": 128},
    "qwen2_moe": {
        **SPARSE,
        "intermediate_size": 5632,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
        "moe_intermediate_size": 1408,
        "shared_expert_intermediate_size": 5632,
        "num_experts_per_tok": 4,
        "num_experts": 60,
    },
    "qwen3_moe": {
        **SPARSE,
        "intermediate_size": 6144,
        "num_attention_heads": 32,
        "num_key_value_heads": 4,
        "moe_intermediate_size": 768,
        "num_experts_per_tok": 8,
        "num_experts": 128,
    },
}


SHARED_EXPERT = (
    Rule("blk.{bid}.ffn_gate_inp_shexp", ("one", "width")),
    Rule("blk.{bid}.ffn_gate_shexp", ("shared_inner", "width")),
    Rule("blk.{bid}.ffn_up_shexp", ("shared_inner", "width")),
    Rule("blk.{bid}.ffn_down_shexp", ("width", "shared_inner")),
)


def derive(values: dict[str, Any], model_type: str) -> dict[str, Any]:
    """Fill in the number of key heads if it is null, as transformers does for the older two."""
    if values.get("num_key_value_heads") is None and model_type in ("qwen2", "qwen3"):
        values["num_key_value_heads"] = values["num_attention_heads"]
    return values


def sparse_dimensions(config: Config) -> dict[str, int]:
    """Return the sizes that the shapes of the rules name, including experts."""
    sizes = decoder_parts.dimensions(config)
    sizes.update(
        experts=config.integer("num_local_experts", "num_experts"),
        expert_inner=config.integer("moe_intermediate_size"),
        one=1,
    )
    return sizes


def shared_dimensions(config: Config) -> dict[str, int]:
    """Return the sizes with experts and the shared expert."""
    return {**sparse_dimensions(config), "shared_inner": config.integer("shared_expert_intermediate_size")}


def write_dense(values: KeyValues, config: Config, source: ModelDirectory, file_type: int) -> None:
    """Write the text model's hyperparameters and the pooling type."""
    _refuse_reranker(config, source)
    hyperparameters.write(values, config, file_type)
    if (pooling := pooling_of(source)) is not None:
        values.uint32("{arch}.pooling_type", pooling)


def write_sparse(values: KeyValues, config: Config, source: ModelDirectory, file_type: int) -> None:
    """Write the text model's hyperparameters and the sizes of the experts."""
    del source
    hyperparameters.write(values, config, file_type)
    if (size := config.find("moe_intermediate_size")) is not None:
        values.uint32("{arch}.expert_feed_forward_length", size)
    if (size := config.find("shared_expert_intermediate_size")) is not None:
        values.uint32("{arch}.expert_shared_feed_forward_length", size)


def _refuse_reranker(config: Config, source: ModelDirectory) -> None:
    card = model_card.head(source.directory)
    hints = (str(config.find("_name_or_path")), source.directory.name, config.architecture)
    names = ("qwen3-reranker", "qwen3-vl-reranker")
    if any(f"# {name}" in card.lower() or any(name in hint.lower() for hint in hints) for name in names):
        raise UnsupportedOption("the kind of model", "Qwen3-Reranker")


QWEN2 = Family(
    name="qwen2",
    defaults={"qwen2": DEFAULTS["qwen2"]},
    validated_rope=frozenset({"qwen2"}),
    derive=derive,
    rules=(*decoder_parts.EMBEDDINGS, *decoder_parts.ATTENTION, *decoder_parts.FEED_FORWARD),
    dimensions=decoder_parts.dimensions,
    rename=decoder_parts.rename_bare,
    hyperparameters=write_dense,
    vocabulary=decoder_parts.pieces_or_bytes,
)
QWEN3 = replace(
    QWEN2,
    name="qwen3",
    defaults={"qwen3": DEFAULTS["qwen3"]},
    validated_rope=frozenset({"qwen3"}),
    rules=(*QWEN2.rules, *decoder_parts.HEAD_NORMS),
)
QWEN2MOE = Family(
    name="qwen2moe",
    defaults={"qwen2_moe": DEFAULTS["qwen2_moe"]},
    validated_rope=frozenset({"qwen2_moe"}),
    rules=(
        *decoder_parts.EMBEDDINGS,
        *decoder_parts.ATTENTION,
        decoder_parts.FEED_FORWARD[0],
        decoder_parts.ROUTER,
        *decoder_parts.EXPERTS,
        *SHARED_EXPERT,
    ),
    dimensions=shared_dimensions,
    rename=decoder_parts.rename,
    hyperparameters=write_sparse,
    vocabulary=decoder_parts.byte_level,
    stacks=decoder_parts.STACKS,
)
QWEN3MOE = replace(
    QWEN2MOE,
    name="qwen3moe",
    defaults={"qwen3_moe": DEFAULTS["qwen3_moe"]},
    validated_rope=frozenset({"qwen3_moe"}),
    rules=(
        *decoder_parts.EMBEDDINGS,
        *decoder_parts.ATTENTION,
        *decoder_parts.HEAD_NORMS,
        decoder_parts.FEED_FORWARD[0],
        decoder_parts.ROUTER,
        *decoder_parts.EXPERTS,
    ),
    dimensions=sparse_dimensions,
)
