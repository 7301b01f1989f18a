"""Tiny Qwen 2 and 3, dense and with experts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.convert.cases import Case
from tests.convert.checkpoints import write_json
from tests.convert.tiny import (
    ALL,
    ATTENTION,
    EMBEDDINGS,
    EXPERTS,
    GATED,
    GPT2_TOKENS,
    HEAD,
    HEAD_NORMS,
    QKV_BIASES,
    expand,
    sizes_of,
    tiny,
)

if TYPE_CHECKING:
    from pathlib import Path

CONFIG: dict[str, Any] = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "vocab_size": GPT2_TOKENS,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "rope_theta": 1000000.0,
    "tie_word_embeddings": False,
    "bos_token_id": 330,
    "eos_token_id": 330,
}
QWEN3: dict[str, Any] = {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "head_dim": 32}
MOE: dict[str, Any] = {
    "architectures": ["Qwen2MoeForCausalLM"], "model_type": "qwen2_moe", "num_experts": 3, "num_experts_per_tok": 2,
    "moe_intermediate_size": 32, "shared_expert_intermediate_size": 40, "norm_topk_prob": False,
}  # fmt: skip
QWEN3_MOE: dict[str, Any] = {**MOE, **QWEN3, "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe",
             "shared_expert_intermediate_size": None}  # fmt: skip
SHARED_EXPERT = """
model.layers.{b}.mlp.shared_expert.gate_proj.weight shared_inner width
model.layers.{b}.mlp.shared_expert.up_proj.weight shared_inner width
model.layers.{b}.mlp.shared_expert.down_proj.weight width shared_inner
model.layers.{b}.mlp.shared_expert_gate.weight 1 width
"""


def qwen(directory: Path, *, dtype: str = "BF16", shards: int = 0, bare: bool = False, **changes: Any) -> Path:
    """A dense Qwen; ``bare`` leaves out the prefix and the head."""
    config = {**CONFIG, **changes}
    head = 128 if config["model_type"] == "qwen3" else None  # where the file does not say
    full = {**config, "head_dim": config.get("head_dim") or head}
    table = EMBEDDINGS + ATTENTION + GATED
    table += HEAD_NORMS if config["model_type"] == "qwen3" else QKV_BIASES
    table += "" if config["tie_word_embeddings"] or bare else HEAD
    shapes = expand(table, sizes_of(full))
    if bare:
        shapes = {name.removeprefix("model."): shape for name, shape in shapes.items()}
    return tiny(directory, config, shapes, dtype=dtype, shards=shards)


def qwen_moe(directory: Path, *, dtype: str = "BF16", shards: int = 0, **changes: Any) -> Path:
    """A Qwen with experts."""
    config = {**CONFIG, **MOE, **changes}
    sizes = {**sizes_of(config), "shared_inner": config["shared_expert_intermediate_size"] or 0}
    shared = config["shared_expert_intermediate_size"] is not None
    table = EMBEDDINGS + ATTENTION + (QKV_BIASES if shared else HEAD_NORMS)
    table += "" if config["tie_word_embeddings"] else HEAD
    table += EXPERTS + (SHARED_EXPERT if shared else "")
    return tiny(directory, config, expand(table, sizes), dtype=dtype, shards=shards)


def _pooled(directory: Path, **changes: Any) -> None:
    qwen(directory, bare=True, **changes)
    modules = [{"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}]
    write_json(directory / "modules.json", modules)
    (directory / "1_Pooling").mkdir()
    write_json(directory / "1_Pooling" / "config.json", {"pooling_mode_lasttoken": True})


NAMES = ("rms_norm_eps", "rope_theta", "max_position_embeddings", "bos_token_id")
FEW: dict[str, Any] = dict.fromkeys(NAMES)
YARN = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
CASES = {
    "qwen2": Case(qwen, ALL, pre="gpt-2"),
    "qwen2-f16": Case(lambda d: qwen(d, dtype="F16", tie_word_embeddings=True), ALL, pre="gpt-2"),
    "qwen2-f32": Case(lambda d: qwen(d, dtype="F32", shards=3), ("auto", "f16", "q8_0"), pre="gpt-2"),
    "qwen2-few": Case(lambda d: qwen(d, **FEW), pre="gpt-2"),
    "qwen2-yarn": Case(lambda d: qwen(d, rope_scaling=YARN, use_sliding_window=True), pre="gpt-2"),
    "qwen2-pooled": Case(lambda d: _pooled(d, architectures=["Qwen2Model"]), ALL, pre="gpt-2"),
    "qwen3-pooled": Case(lambda d: _pooled(d, **{**QWEN3, "architectures": ["Qwen3Model"]}), ALL, pre="gpt-2"),
    "qwen2-odd": Case(lambda d: qwen(d, hidden_size=40, intermediate_size=72), ("q8_0",), pre="gpt-2"),
    "qwen3": Case(lambda d: qwen(d, **QWEN3), ALL, pre="gpt-2"),
    "qwen3-tied": Case(lambda d: qwen(d, **{**QWEN3, "tie_word_embeddings": True, "head_dim": None}), pre="gpt-2"),
    "qwen3-few": Case(lambda d: qwen(d, **{**QWEN3, **FEW, "head_dim": None}), pre="gpt-2"),
    "qwen2moe": Case(qwen_moe, ALL, pre="gpt-2"),
    "qwen2moe-sharded": Case(lambda d: qwen_moe(d, shards=3, dtype="F32"), ("auto", "q8_0"), pre="gpt-2"),
    "qwen3moe": Case(lambda d: qwen_moe(d, **QWEN3_MOE), ALL, pre="gpt-2"),
    "qwen3moe-f16": Case(lambda d: qwen_moe(d, dtype="F16", shards=2, **QWEN3_MOE), pre="gpt-2"),
}  # fmt: skip
