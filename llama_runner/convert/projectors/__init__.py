"""Vision models whose projector (mmproj) is converted natively, with the module of each.

A projector is a GGUF file with the image encoder and the layers that turn its output into embeddings of the text model.
The table is separate from the modules, so that asking whether a model is in it imports none of them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llama_runner.convert.projectors.projector_definition import Projector

PROJECTORS: dict[str, tuple[str, str, tuple[str | None, ...]]] = {
    "Gemma3ForConditionalGeneration": ("siglip.GEMMA3", "gemma3", ("siglip_vision_model", None)),
    "Idefics3ForConditionalGeneration": ("siglip.IDEFICS3", "idefics3", ("idefics3", "idefics3_vision", None)),
    "LlavaForConditionalGeneration": ("pixtral.PROJECTOR", "llava", ("pixtral",)),
    "Mistral3ForConditionalGeneration": ("pixtral.PROJECTOR", "mistral3", ("pixtral", None)),
    "Qwen2VLForConditionalGeneration": ("qwenvl.QWEN2", "qwen2_vl", ("qwen2_vl", "qwen2_vl_vision", None)),
    "Qwen2_5_VLForConditionalGeneration": ("qwenvl.QWEN25", "qwen2_5_vl", ("qwen2_5_vl", "qwen2_5_vl_vision", None)),
    "Qwen3VLForConditionalGeneration": ("qwen3vl.PROJECTOR", "qwen3_vl", ("qwen3_vl", "qwen3_vl_vision", None)),
    "Qwen3VLMoeForConditionalGeneration": (
        "qwen3vl.PROJECTOR",
        "qwen3_vl_moe",
        ("qwen3_vl_moe", "qwen3_vl_moe_vision", None),
    ),
    "Qwen3_5ForConditionalGeneration": ("qwen3vl.PROJECTOR", "qwen3_5", ("qwen3_5", "qwen3_5_vision", None)),
    "Qwen3_5MoeForConditionalGeneration": (
        "qwen3vl.PROJECTOR",
        "qwen3_5_moe",
        ("qwen3_5_moe", "qwen3_5_moe_vision", None),
    ),
    "SmolVLMForConditionalGeneration": ("siglip.IDEFICS3", "smolvlm", ("smolvlm_vision", "smolvlm", None)),
}
"""Module and constant, ``model_type`` of the model, and the supported ones of its ``vision_config`` (None: absent)."""
_RENAMED = ("llm_config", "lm_config", "thinker_config", "language_config", "lfm")
"""Other names of ``text_config``, which only models have that are not in the table."""


def is_native_projector(config: Mapping[str, Any]) -> bool:
    """Return whether the projector of a model with this config.json is converted natively."""
    names = config.get("architectures")
    name = names[0] if isinstance(names, list) and names else None
    vision = config.get("vision_config")
    if not isinstance(name, str) or name not in PROJECTORS or not isinstance(vision, dict):
        return False
    _, model_type, vision_types = PROJECTORS[name]
    return (
        config.get("model_type") == model_type
        and vision.get("model_type") in vision_types
        and vision.get("architectures") is None  # the official script goes by these
        and not any(other in config for other in _RENAMED)
    )


def projector_of(architecture: str) -> Projector:
    """Return the projector of an architecture of `PROJECTORS`."""
    module, _, name = PROJECTORS[architecture][0].partition(".")
    return cast("Projector", getattr(import_module(f"llama_runner.convert.projectors.{module}"), name))
