"""Builds a tiny checkpoint of any family from a table of its tensors.

A line of the table is a name and dimensions: ``model.layers.{b}.mlp.up_proj.weight inner width``. ``{b}`` stands for
every block, ``{e}`` for every expert; a dimension is a number or the name of a size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.convert.cases import Case
from tests.convert.checkpoints import Shapes, copy_tokenizer, encoded, shard, write_json, write_safetensors

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

FAST = {"tokenizer_class": "PreTrainedTokenizerFast"}
GPT2_TOKENS = 336  # a few more than the small tokenizer has, and no multiple of 32
ALL = ("auto", "f32", "f16", "bf16", "q8_0")
EMBEDDINGS = """
model.embed_tokens.weight vocabulary width
model.norm.weight width
"""
HEAD = "lm_head.weight vocabulary width\n"
ATTENTION = """
model.layers.{b}.input_layernorm.weight width
model.layers.{b}.self_attn.q_proj.weight queries width
model.layers.{b}.self_attn.k_proj.weight keys width
model.layers.{b}.self_attn.v_proj.weight keys width
model.layers.{b}.self_attn.o_proj.weight width queries
model.layers.{b}.post_attention_layernorm.weight width
"""
QKV_BIASES = """
model.layers.{b}.self_attn.q_proj.bias queries
model.layers.{b}.self_attn.k_proj.bias keys
model.layers.{b}.self_attn.v_proj.bias keys
"""
OUT_BIAS = "model.layers.{b}.self_attn.o_proj.bias width\n"
ATTENTION_BIASES = QKV_BIASES + OUT_BIAS
HEAD_NORMS = """
model.layers.{b}.self_attn.q_norm.weight head
model.layers.{b}.self_attn.k_norm.weight head
"""
GATED = """
model.layers.{b}.mlp.gate_proj.weight inner width
model.layers.{b}.mlp.up_proj.weight inner width
model.layers.{b}.mlp.down_proj.weight width inner
"""
GATED_BIASES = """
model.layers.{b}.mlp.gate_proj.bias inner
model.layers.{b}.mlp.up_proj.bias inner
model.layers.{b}.mlp.down_proj.bias width
"""
EXPERTS = """
model.layers.{b}.mlp.gate.weight experts width
model.layers.{b}.mlp.experts.{e}.gate_proj.weight expert_inner width
model.layers.{b}.mlp.experts.{e}.up_proj.weight expert_inner width
model.layers.{b}.mlp.experts.{e}.down_proj.weight width expert_inner
"""


def sizes_of(config: Mapping[str, Any]) -> dict[str, int]:
    """The sizes that most tables need."""
    width, heads = config.get("hidden_size", 0), config.get("num_attention_heads") or 1
    size = config.get("head_dim") or width // heads
    return {
        "vocabulary": config.get("vocab_size", 0), "width": width, "inner": config.get("intermediate_size", 0),
        "head": size, "queries": heads * size, "keys": (config.get("num_key_value_heads") or heads) * size,
        "blocks": config.get("num_hidden_layers", 0),
        "experts": config.get("num_local_experts") or config.get("num_experts") or config.get("n_routed_experts") or 0,
        "expert_inner": config.get("moe_intermediate_size") or 0,
    }  # fmt: skip


def expand(table: str, sizes: Mapping[str, int], blocks: range | None = None) -> Shapes:
    """The names and shapes of a table; ``blocks`` are those that it is for, all by default."""
    shapes: Shapes = {}
    for line in filter(str.strip, table.splitlines()):
        name, *dimensions = line.split()
        shape = tuple(int(item) if item.isdecimal() else sizes[item] for item in dimensions)
        for block in (blocks or range(sizes["blocks"])) if "{b}" in name else range(1):
            for expert in range(sizes["experts"]) if "{e}" in name else range(1):
                shapes[name.format(b=block, e=expert)] = shape
    return shapes


def built(
    config: Mapping[str, Any],
    table: str,
    *,
    outtypes: tuple[str, ...] = ("auto",),
    sizes: Mapping[str, int] | None = None,
    tokenizer: str = "gpt2",
    dtype: str = "BF16",
    shards: int = 0,
    files: Mapping[str, Any] | None = None,
) -> Case:
    """A case of a checkpoint with that configuration and those tensors; ``sizes`` and JSON ``files`` are added."""

    def build(directory: Path) -> None:
        shapes = expand(table, {**sizes_of(config), **(sizes or {})})
        tiny(directory, config, shapes, dtype=dtype, tokenizer=tokenizer, shards=shards)
        for name, content in (files or {}).items():
            (directory / name).parent.mkdir(exist_ok=True)
            write_json(directory / name, content)

    return Case(build, outtypes, pre="gpt-2" if tokenizer == "gpt2" else "-")


def tiny(
    directory: Path,
    config: Mapping[str, Any],
    shapes: Shapes,
    *,
    dtype: str = "BF16",
    tokenizer: str = "gpt2",
    shards: int = 0,
    extra: Mapping[str, tuple[str, tuple[int, ...], bytes]] | None = None,
) -> Path:
    """Write a checkpoint: configuration (without what is None), weights that depend on their names, tokenizer."""
    directory.mkdir(parents=True, exist_ok=True)
    write_json(directory / "config.json", {key: value for key, value in config.items() if value is not None})
    tensors = {**encoded(shapes, dtype), **(extra or {})}
    write_safetensors(directory / "model.safetensors", tensors)
    if shards:
        shard(directory, shards)
    copy_tokenizer(directory, tokenizer)
    if tokenizer == "gpt2":
        write_json(directory / "tokenizer_config.json", FAST)
    return directory
