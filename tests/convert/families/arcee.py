"""Tiny models of Arcee."""

from __future__ import annotations

from typing import Any

from tests.convert.families.llama import CONFIG as LLAMA
from tests.convert.tiny import ALL, ATTENTION, ATTENTION_BIASES, EMBEDDINGS, HEAD, built
from tests.convert.variations import ROPES

CONFIG: dict[str, Any] = {**LLAMA, "architectures": ["ArceeForCausalLM"], "model_type": "arcee", "rope_theta": 10000.0}
FEED_FORWARD = """
model.layers.{b}.mlp.up_proj.weight inner width
model.layers.{b}.mlp.down_proj.weight width inner
"""
BIASES = """
model.layers.{b}.mlp.up_proj.bias inner
model.layers.{b}.mlp.down_proj.bias width
"""
BODY = EMBEDDINGS + ATTENTION + FEED_FORWARD
FEW: dict[str, Any] = dict.fromkeys((
    "rms_norm_eps", "rope_theta", "max_position_embeddings", "tie_word_embeddings", "bos_token_id",
))  # fmt: skip
POOLED = {
    "modules.json": [{"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}],
    "1_Pooling/config.json": {"pooling_mode_lasttoken": True},
}
CASES = {
    "arcee": built(CONFIG, BODY + HEAD, outtypes=ALL),
    "tied": built({**CONFIG, "tie_word_embeddings": True}, BODY, dtype="F16", shards=2),
    "every-key": built({**CONFIG, "num_key_value_heads": None}, BODY.replace("keys", "queries") + HEAD, dtype="F32"),
    "one-key": built({**CONFIG, "num_key_value_heads": 1}, BODY + HEAD, dtype="F32", shards=3),
    "head-size": built({**CONFIG, "head_dim": 24}, BODY + HEAD, dtype="F16"),
    "biases": built({**CONFIG, "attention_bias": True, "mlp_bias": True}, BODY + HEAD + ATTENTION_BIASES + BIASES),
    "few": built({**CONFIG, **FEW}, BODY + HEAD, dtype="F16"),
    "pooled": built(CONFIG, BODY + HEAD, files=POOLED),
    **{
        kind: built({**CONFIG, "rope_scaling": rope}, BODY + HEAD) for kind, rope in ROPES.items() if kind != "longrope"
    },
    "no-scaling": built({**CONFIG, "rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, BODY + HEAD),
}
