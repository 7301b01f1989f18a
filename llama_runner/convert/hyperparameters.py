"""Writes the hyperparameters that llama.cpp's converter writes for every text model: a table and RoPE.

A family calls `write` and then adds what is its own, or writes `rows` of its own. The order of the rows is the order in
the file. A row is a key, the type, and the names in config.json, of which the first that is there counts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llama_runner.convert.errors import BadHyperparameter, UnsupportedOption
from llama_runner.convert.model_config import full_rope, sliding_rope

if TYPE_CHECKING:
    from llama_runner.convert.gguf_metadata import KeyValues
    from llama_runner.convert.model_config import Config

Row = tuple[str, str, tuple[str, ...]]

SIZES: tuple[Row, ...] = (
    ("block_count", "uint32", ("n_layers", "num_hidden_layers", "n_layer", "num_layers")),
    (
        "context_length",
        "uint32",
        (
            "max_position_embeddings",
            "n_ctx",
            "n_positions",
            "max_length",
            "max_sequence_length",
            "model_max_length",
        ),
    ),
    ("embedding_length", "uint32", ("hidden_size", "n_embd", "dim")),
    (
        "feed_forward_length",
        "uint32",
        (
            "prefix_dense_intermediate_size",
            "dense_intermediate_size",
            "intermediate_size",
            "n_inner",
            "hidden_dim",
        ),
    ),
    ("attention.head_count", "uint32", ("num_attention_heads", "n_head", "n_heads")),
    ("attention.head_count_kv", "uint32", ("num_key_value_heads", "n_kv_heads")),
)
NORMS_AND_EXPERTS: tuple[Row, ...] = (
    ("attention.layer_norm_rms_epsilon", "float32", ("rms_norm_eps", "norm_eps")),
    ("attention.layer_norm_epsilon", "float32", ("layer_norm_eps", "layer_norm_epsilon", "norm_epsilon")),
    ("expert_count", "uint32", ("num_local_experts", "num_experts", "n_routed_experts")),
    ("expert_used_count", "uint32", ("num_experts_per_tok", "num_experts_per_token", "top_k_experts")),
    ("expert_group_count", "uint32", ("n_group",)),
    ("expert_group_used_count", "uint32", ("topk_group",)),
)
HEAD_SIZES: tuple[Row, ...] = (
    ("attention.key_length", "uint32", ("head_dim",)),
    ("attention.value_length", "uint32", ("head_dim",)),
)
SCORE_FUNCTIONS = (
    "score_function",
    "scoring_func",
    "score_func",
    "moe_router_activation",
    "moe_router_activation_func",
    "expert_selection_fn",
)
GATING = {"softmax": 1, "sigmoid": 2, "sqrtsoftplus": 4}  # llama.cpp's numbers
YARN = (
    ("yarn_ext_factor", ("extrapolation_factor",)),
    ("yarn_attn_factor", ("attention_factor", "attn_factor")),
    ("yarn_beta_fast", ("beta_fast",)),
    ("yarn_beta_slow", ("beta_slow",)),
)
MROPE_SECTIONS = 4


def write(values: KeyValues, config: Config, file_type: int) -> None:
    """Write the common hyperparameters; ``file_type`` is llama.cpp's number of the output type."""
    rows(values, config, SIZES)
    if config.find("is_causal") is False:
        values.boolean("{arch}.attention.causal", value=False)
    _rope(values, config)
    rows(values, config, NORMS_AND_EXPERTS)
    if (function := config.find(*SCORE_FUNCTIONS)) is not None:
        if not isinstance(function, str) or function not in GATING:
            raise UnsupportedOption("the experts' score function", function)
        values.uint32("{arch}.expert_gating_func", GATING[function])
    rows(values, config, HEAD_SIZES)
    values.uint32("general.file_type", file_type)


def rows(values: KeyValues, config: Config, table: tuple[Row, ...]) -> None:
    """Write the rows of a table for which config.json has a value."""
    for key, kind, names in table:
        if (value := config.find(*names)) is not None:
            getattr(values, kind)(f"{{arch}}.{key}", value)


def _rope(values: KeyValues, config: Config) -> None:
    rope = full_rope(config)
    _rope_scaling(values, rope)
    if "mrope_section" in config.rope:
        sections = config.rope["mrope_section"]
        if not isinstance(sections, list) or not all(type(size) is int for size in sections):
            raise BadHyperparameter("rope_scaling.mrope_section", f"is {sections!r}, a list of numbers is expected")
        values.integers("{arch}.rope.dimension_sections", [*sections, *[0] * MROPE_SECTIONS][:MROPE_SECTIONS])
    if (theta := rope.get("rope_theta")) is not None:
        values.float32("{arch}.rope.freq_base", theta)
    if (local := sliding_rope(config).get("rope_theta")) is not None:
        values.float32("{arch}.rope.freq_base_swa", local)


def _rope_scaling(values: KeyValues, rope: dict[str, object]) -> None:
    kind, factor = rope.get("rope_type"), rope.get("factor")
    if kind in ("su", "longrope"):
        values.string("{arch}.rope.scaling.type", "longrope")
    if kind not in ("linear", "yarn") or factor is None:
        return  # "llama3" is a tensor of its own, "dynamic" and "default" are not written
    values.string("{arch}.rope.scaling.type", str(kind))
    values.float32("{arch}.rope.scaling.factor", factor)
    if kind == "linear":
        return
    if (original := rope.get("original_max_position_embeddings")) is None:
        raise BadHyperparameter("rope_scaling.original_max_position_embeddings", "is missing, YaRN needs it")
    values.uint32("{arch}.rope.scaling.original_context_length", original)
    for key, names in YARN:
        name = next((name for name in names if name in rope), names[0])
        if (value := rope.get(name)) is not None:
            values.float32(f"{{arch}}.rope.scaling.{key}", value)
