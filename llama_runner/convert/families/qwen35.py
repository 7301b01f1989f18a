"""Qwen3.5, dense and with experts: Qwen3-Next with RoPE by time, height and width, and values in another order.

Follows ``Qwen3_5TextModel`` and ``Qwen3_5MoeTextModel`` of llama.cpp's conversion/qwen.py. The values of linear
attention are stored by the key head that they share; llama.cpp takes the first value of each key head, then the second
of each. What sees is left out. transformers does not know these models yet, so config.json counts as it stands.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from llama_runner.convert.families import decoder_parts, qwen, qwen3next, qwenvl
from llama_runner.convert.families.family_definition import Rule
from llama_runner.convert.model_config import Config
from llama_runner.convert.select_tensor_rows import Rows, part

if TYPE_CHECKING:
    from llama_runner.convert.families.family_definition import Sizes
    from llama_runner.convert.gguf_metadata import KeyValues
    from llama_runner.convert.model_directory import ModelDirectory

SECTIONS = [11, 11, 10, 0]  # of RoPE, where config.json has none


def _by_turns(sizes: Sizes, rows: int, *, start: int = 0) -> Rows:
    """Return the rows of the first value of each key head, then of the second of each."""
    shared, heads = sizes["shared_values"], sizes["key_heads"]
    return Rows(((shared, rows), (heads, shared * rows), (rows, 1)), start)


def values_by_turns(sizes: Sizes) -> Rows:
    """Return all rows of the values, by turns."""
    return _by_turns(sizes, sizes["value_head"])


def heads_by_turns(sizes: Sizes) -> Rows:
    """Return the numbers of the value heads, by turns."""
    return _by_turns(sizes, 1)


def mixed_rows(sizes: Sizes) -> tuple[Rows, Rows]:
    """Return the rows of queries and keys as stored, and those of the values by turns."""
    others = sizes["mixed"] - sizes["values"]
    return part(others, start=0, of=others), _by_turns(sizes, sizes["value_head"], start=others)


def sparse_dimensions(config: Config) -> dict[str, int]:
    """Return the sizes with experts; there may be no feed-forward network without them."""
    given = Config(config.architecture, {"intermediate_size": 1, **config.values})
    sizes = qwen3next.sparse_dimensions(given)
    return {**sizes, "both": 2 * sizes["expert_inner"]}


def rename(name: str, config: Config) -> str | None:
    """Rename as for Qwen3-Next, with the suffix that the experts' matrices lack."""
    return qwen3next.rename(qwenvl.with_suffix(name), config)


def write_hyperparameters(values: KeyValues, config: Config, source: ModelDirectory, file_type: int) -> None:
    """Write the hyperparameters of Qwen3-Next and the sections of RoPE."""
    qwen.write_sparse(values, config, source, file_type)
    sizes = sparse_dimensions(config) if config.find("num_experts") is not None else qwen3next.dimensions(config)
    qwen3next.write_linear(values, config, sizes)
    if "mrope_section" not in config.rope:
        values.integers("{arch}.rope.dimension_sections", SECTIONS)


LINEAR_RULES = (
    *(
        replace(rule, rows=mixed_rows) if rule.name == "blk.{bid}.ssm_conv1d" else rule
        for rule in qwen3next.SHARED_RULES
    ),
    Rule("blk.{bid}.attn_qkv", ("mixed", "width"), rows=mixed_rows, where=qwen3next.is_linear),
    Rule("blk.{bid}.attn_gate", ("values", "width"), rows=values_by_turns, where=qwen3next.is_linear),
    Rule("blk.{bid}.ssm_alpha", ("value_heads", "width"), rows=heads_by_turns, where=qwen3next.is_linear),
    Rule("blk.{bid}.ssm_beta", ("value_heads", "width"), rows=heads_by_turns, where=qwen3next.is_linear),
    Rule(
        "blk.{bid}.ssm_dt",
        ("value_heads",),
        optional=True,
        needs_bias=True,
        rows=heads_by_turns,
        where=qwen3next.is_linear,
    ),
    Rule("blk.{bid}.ssm_a", ("value_heads",), bare=True, decay=True, rows=heads_by_turns, where=qwen3next.is_linear),
    Rule("blk.{bid}.ssm_out", ("width", "values"), order=values_by_turns, where=qwen3next.is_linear),
)
DENSE = replace(
    qwen3next.FAMILY,
    name="qwen35",
    defaults={"qwen3_5_text": {}},
    validated_rope=frozenset(),
    new_rope=frozenset(),
    rules=(*LINEAR_RULES, *(replace(rule, bias=False) for rule in decoder_parts.FEED_FORWARD[1:])),
    dimensions=qwen3next.dimensions,
    hyperparameters=write_hyperparameters,
    targets=qwen3next.PREDICTING_TARGETS,
    stacks=(),
)
SPARSE = replace(
    DENSE,
    name="qwen35moe",
    defaults={"qwen3_5_moe_text": {}},
    rules=(
        *LINEAR_RULES,
        decoder_parts.ROUTER,
        *qwen.SHARED_EXPERT,
        *qwenvl.PACKED_EXPERTS,
    ),
    dimensions=sparse_dimensions,
    rename=rename,
    targets={**qwen3next.PREDICTING_TARGETS, **qwenvl.PACKED_TARGETS},
)
DENSE_COMPOSITE = replace(DENSE, composite="qwen3_5")
SPARSE_COMPOSITE = replace(SPARSE, composite="qwen3_5_moe")
