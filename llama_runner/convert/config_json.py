"""Loads config.json as llama.cpp's converter does: with the defaults of the model type.

The official script loads config.json through transformers, so an absent value has the default of the model's
configuration class. Each family lists these defaults per ``model_type``. If transformers would refuse the file, the
script falls back to the plain JSON, and so does `load`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_runner.convert import config_number_limits, quantization_config
from llama_runner.convert.errors import BadHyperparameter, UnsupportedOption
from llama_runner.convert.families import FLAT, TEXT_PARTS
from llama_runner.convert.model_config import Config, as_object
from llama_runner.convert.model_directory import architecture_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llama_runner.convert.families.family_definition import Family
    from llama_runner.convert.model_directory import ModelDirectory

# What transformers insists on for each kind of RoPE scaling; without it, it refuses the whole file.
ROPE_NEEDS = {
    "default": {"rope_type"},
    "linear": {"rope_type", "factor"},
    "dynamic": {"rope_type", "factor"},
    "yarn": {"rope_type", "factor"},
    "longrope": {"rope_type", "short_factor", "long_factor"},
    "llama3": {
        "rope_type",
        "factor",
        "original_max_position_embeddings",
        "low_freq_factor",
        "high_freq_factor",
    },
}
# Sub-configurations of models that see, hear or draft; their tensors are not those of a text model.
COMPOSITES = (
    "text_config",
    "llm_config",
    "lm_config",
    "thinker_config",
    "language_config",
    "lfm",
    "draft_vocab_size",
)


def load(source: ModelDirectory, family: Family) -> Config:
    """Return config.json with the defaults of its model type; raises for what cannot be converted faithfully."""
    raw = source.config
    architecture = architecture_of(source)
    quantization = quantization_config.find_quantization(source, architecture)
    whole: Mapping[str, Any] = {}
    if family.composite is not None:
        whole, raw = _parts(raw, family, architecture)
    _refuse(raw)
    model_type = raw.get("model_type")
    if not isinstance(model_type, str) or model_type not in family.defaults:
        # transformers would guess from the path, or take another model's defaults
        known = ", ".join(sorted(family.defaults))
        raise UnsupportedOption("model_type in config.json", model_type, hint=f"{architecture} is known with {known}")
    for values in (whole, raw):
        config_number_limits.check_counts(values)
    values = {**whole, **_filled(raw, family, model_type)}
    if "tie_word_embeddings" not in raw and whole.get("tie_word_embeddings") is True:
        values["tie_word_embeddings"] = True  # said beside the text part, whose default is another
    return Config(architecture, values, quantization=quantization)


def _parts(raw: Mapping[str, Any], family: Family, architecture: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the settings of the whole model, and those of its text part."""
    known = family.composite
    if (found := raw.get("model_type")) != known:
        raise UnsupportedOption("model_type in config.json", found, hint=f"{architecture} is known with {known}")
    if architecture in FLAT and "text_config" not in raw:
        return dict(raw), {**raw, "model_type": TEXT_PARTS[architecture]["model_type"][0]}
    text = as_object("text_config", raw.get("text_config"))
    named = text.get("architectures")  # the official script goes by these
    if named is not None and named not in ([name] for name in TEXT_PARTS[architecture]["architectures"]):
        raise UnsupportedOption("architectures in text_config", named)
    return {name: value for name, value in raw.items() if name != "text_config"}, text


def _refuse(raw: Mapping[str, Any]) -> None:
    for name in COMPOSITES:
        if raw.get(name) is not None:
            raise UnsupportedOption(f"{name} in config.json", type(raw[name]).__name__)


def _filled(raw: Mapping[str, Any], family: Family, model_type: str) -> Mapping[str, Any]:
    defaults = family.defaults[model_type]
    scaling = raw.get("rope_scaling")
    if scaling is not None and not isinstance(scaling, dict):
        raise BadHyperparameter("rope_scaling", f"is {scaling!r}, an object is expected")
    if scaling is not None and family.scaling is not None:
        scaling = family.scaling({**defaults, **raw}, scaling)
        if scaling is None:
            return dict(raw)
    elif scaling is not None and model_type in family.validated_rope:
        if "type" in scaling and model_type not in family.new_rope:
            scaling = {**scaling, "rope_type": scaling["type"]}
        kind = scaling.get("rope_type", "default")
        if not isinstance(kind, str):
            raise BadHyperparameter("rope_scaling.rope_type", f"is {kind!r}, a name is expected")
        if "rope_type" not in scaling or not ROPE_NEEDS.get(kind, set()) <= set(scaling):
            return dict(raw)  # transformers refuses this file, so no default is filled in
    values = {**defaults, **raw}
    if scaling is not None:
        values["rope_scaling"] = dict(scaling)
    return family.derive(values, model_type)
