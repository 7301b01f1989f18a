"""Tiny Idefics 3 and SmolVLM, of which the text part is compared."""

from __future__ import annotations

from typing import Any

from tests.convert.cases import Case
from tests.convert.checkpoints import LLAMA_CONFIG
from tests.convert.families.composites import composite
from tests.convert.families.llama import LLAMA3_ROPE
from tests.convert.tiny import ALL, ATTENTION, EMBEDDINGS, GATED, HEAD

TEXT: dict[str, Any] = {
    **LLAMA_CONFIG, "hidden_size": 64, "intermediate_size": 96, "vocab_size": 336, "bos_token_id": 330,
    "eos_token_id": 330,
}  # fmt: skip
VISION = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "patch_size": 2}
TABLE = EMBEDDINGS + ATTENTION + GATED
SEEING = """
model.vision_model.embeddings.patch_embedding.weight 8 3 2 2
model.vision_model.encoder.layers.0.self_attn.q_proj.weight 8 8
model.vision_model.post_layernorm.weight 8
model.connector.modality_projection.proj.weight width 32
"""
FEW: dict[str, Any] = dict.fromkeys(
    ("rms_norm_eps", "rope_theta", "max_position_embeddings", "num_attention_heads", "num_key_value_heads")
)


def idefics3(table: str = TABLE + HEAD, **options: Any) -> Case:
    """An Idefics 3."""
    text = {**TEXT, **options.pop("text", {})}
    named = {"architectures": ["VLlama3ForCausalLM"], **options.pop("named", {})}
    return composite(
        options.pop("architecture", "Idefics3ForConditionalGeneration"), options.pop("model_type", "idefics3"),
        "llama", text, table.replace("model.", "model.text_model.") + SEEING, vision=VISION,
        own={"scale_factor": 2, **options.pop("own", {})}, part=named, **options,
    )  # fmt: skip


def smolvlm(table: str = TABLE + HEAD, **options: Any) -> Case:
    """A SmolVLM."""
    return idefics3(table, architecture="SmolVLMForConditionalGeneration", model_type="smolvlm", **options)


CASES = {
    "idefics3": idefics3(outtypes=ALL),
    "idefics3-f16": idefics3(dtype="F16", outtypes=ALL, shards=3),
    "idefics3-f32": idefics3(dtype="F32"),
    "idefics3-tied": idefics3(TABLE, text={"tie_word_embeddings": None}, own={"tie_word_embeddings": True}, shards=2),
    "idefics3-llama3": idefics3(text={"rope_scaling": LLAMA3_ROPE, "head_dim": 64}),
    "idefics3-one-key": idefics3(text={"num_key_value_heads": 1}),
    "smolvlm": smolvlm(outtypes=ALL),
    "smolvlm-f16": smolvlm(dtype="F16", shards=2),
    "smolvlm-f32": smolvlm(dtype="F32"),
    "smolvlm-few": smolvlm(text=FEW, sizes={"num_attention_heads": 32, "num_key_value_heads": 32}),
}
