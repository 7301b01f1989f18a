"""Ministral 3, and the text part of Mistral 3: Llama with attention scaled by position.

Follows ``Mistral3Model`` of llama.cpp's conversion/mistral3.py. What sees is left out here, as in LLaVA and Pixtral,
which have the same parts around a plain Llama or Mistral.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from llama_runner.convert.errors import BadHyperparameter, UnsupportedOption
from llama_runner.convert.families import decoder_parts, llama

if TYPE_CHECKING:
    from llama_runner.convert.gguf_metadata import KeyValues
    from llama_runner.convert.model_config import Config
    from llama_runner.convert.model_directory import ModelDirectory

SCALED = "ministral3"  # transformers does not know it yet, so that config.json counts as it stands
SCALES = {"rope.scaling.yarn_log_multiplier": "mscale_all_dim", "attention.temperature_scale": "llama_4_scaling_beta"}


def derive(values: dict[str, Any], model_type: str) -> dict[str, Any]:
    """Fill in the number of key heads of a Mistral."""
    return values if model_type == SCALED else llama.derive(values, model_type)


def rename(name: str, config: Config) -> str | None:
    """Drop the vision part, and remove the prefix of the text part."""
    text = decoder_parts.rename_text_part(name, config)
    return None if text is None else llama.rename(text, config)


def write_hyperparameters(values: KeyValues, config: Config, source: ModelDirectory, file_type: int) -> None:
    """Write Llama's hyperparameters and the attention scale."""
    llama.write_hyperparameters(values, config, source, file_type)
    if config.find("model_type") != SCALED:
        return
    if (kind := config.rope.get("rope_type")) != "yarn":
        raise UnsupportedOption(f"rope_type of {SCALED} in config.json", kind)
    for key, name in SCALES.items():
        if (value := config.rope.get(name)) is None:
            raise BadHyperparameter(f"rope_parameters.{name}", "is missing")
        values.float32(f"{{arch}}.{key}", value)


FAMILY = replace(
    llama.FAMILY,
    name="mistral3",
    defaults={SCALED: {}, "mistral": llama.DEFAULTS["mistral"]},
    derive=derive,
    rename=rename,
    hyperparameters=write_hyperparameters,
)
COMPOSITE = replace(FAMILY, composite="mistral3")
LLAVA = replace(llama.FAMILY, rename=rename, composite="llava")
