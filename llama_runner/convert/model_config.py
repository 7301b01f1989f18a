"""config.json as llama.cpp's converter sees it: with the defaults of the model type filled in.

The official script loads config.json through transformers, so an absent value is not absent: it has the default
of the model's configuration class. Each family lists those defaults per ``model_type``. Where transformers would
refuse the file, the script falls back to the bare JSON, and so does `load`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_runner.convert import limits, quantization_config
from llama_runner.convert.errors import BadHyperparameter, UnsupportedOption
from llama_runner.convert.families import READING
from llama_runner.convert.model_directory import architecture_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from llama_runner.convert.families.family import Family
    from llama_runner.convert.model_directory import Source
    from llama_runner.convert.quantization_config import Quantization

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
ROPE_THETA = ("global_rope_theta", "rope_global_theta", "rope_theta_global", "rope_theta", "rotary_emb_base")
LOCAL_ROPE_THETA = (
    "local_rope_theta",
    "rope_local_theta",
    "rope_theta_local",
    "swa_rope_theta",
    "rope_local_base_freq",
)
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


class Config:
    """The hyperparameters of one model, with typed access and the RoPE settings gathered in ``rope``.

    ``quantization`` says how the weights are stored, where they are not plain numbers.
    """

    def __init__(
        self, architecture: str, values: Mapping[str, Any], *, quantization: Quantization | None = None
    ) -> None:
        self.architecture = architecture
        self.values = values
        self.quantization = quantization
        self.rope = _rope(self)
        limits.check_nested("rope_scaling", self.rope)

    def find(self, *names: str) -> Any:  # noqa: ANN401 - JSON is anything
        """The value of the first name that is there, be it null; None where none is.

        Raises ``BadHyperparameter`` for a number outside of the limits.
        """
        name = next((name for name in names if name in self.values), None)
        if name is None:
            return None
        value = self.values[name]
        limits.check(name, value)
        return value

    def number(self, *names: str) -> float:
        """A number that has to be there."""
        value = self.find(*names)
        if type(value) not in (int, float):
            raise BadHyperparameter(names[0], f"is {value!r}, a number is expected")
        return float(value)

    def positive(self, *names: str) -> float:
        """A number above zero that has to be there."""
        value = self.number(*names)
        if value <= 0:
            raise BadHyperparameter(names[0], f"is {value}, a number above zero is expected")
        return value

    def share(self, *names: str) -> float:
        """A number from 0 to 1 that has to be there."""
        return share(names[0], self.find(*names))

    def integer(self, *names: str) -> int:
        """A whole number above zero that has to be there."""
        value = self.find(*names)
        if value is None:
            raise BadHyperparameter(names[0], "is missing")
        if type(value) is not int or value <= 0:
            raise BadHyperparameter(names[0], f"is {value!r}, a number above zero is expected")
        return value

    def count(self, *names: str) -> int:
        """A whole number; zero where it is absent or null."""
        value = self.find(*names)
        if value is None:
            return 0
        if type(value) is not int or value < 0:
            raise BadHyperparameter(names[0], f"is {value!r}, a whole number is expected")
        return value


def share(name: str, value: object) -> float:
    """Return a value that is a number from 0 to 1. Raises ``BadHyperparameter`` for any other."""
    if type(value) not in (int, float) or not 0 <= value <= 1:  # type: ignore[operator]
        raise BadHyperparameter(name, f"is {value!r}, a number from 0 to 1 is expected")
    return float(value)  # type: ignore[arg-type]


def load(source: Source, family: Family) -> Config:
    """config.json with the defaults of its model type. Raises for what cannot be converted faithfully."""
    raw = source.object("config.json", purpose="the model's hyperparameters")
    architecture = architecture_of(source)
    quantization = quantization_config.find(source, architecture)
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
        limits.check_counts(values)
    return Config(architecture, {**whole, **_filled(raw, family, model_type)}, quantization=quantization)


def _parts(raw: Mapping[str, Any], family: Family, architecture: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The settings of the whole, and those of its part that reads text."""
    known = family.composite
    if (found := raw.get("model_type")) != known:
        raise UnsupportedOption("model_type in config.json", found, hint=f"{architecture} is known with {known}")
    text = _object("text_config", raw.get("text_config"))
    named = text.get("architectures")  # the official script goes by these
    if named is not None and named not in ([name] for name in READING[architecture]["architectures"]):
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


def _object(name: str, value: object) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise BadHyperparameter(name, f"is {value!r}, an object is expected")
    return dict(value)


def _rope(config: Config) -> dict[str, Any]:
    """RoPE settings from where old and new checkpoints keep them, as one table."""
    name = "rope_parameters" if "rope_parameters" in config.values else "rope_scaling"
    rope = _object(name, config.values.get(name))
    if "full_attention" in rope or "sliding_attention" in rope:
        return rope
    if (local := config.find(*LOCAL_ROPE_THETA)) is not None:
        rope["sliding_attention"] = {"rope_theta": local}
    moved: Iterable[tuple[str, Any]] = (
        ("rope_theta", config.find(*ROPE_THETA)),
        ("rope_type", rope.get("type")),
        ("partial_rotary_factor", config.find("partial_rotary_factor", "rope_pct", "rope_percent")),
        ("original_max_position_embeddings", config.find("original_max_position_embeddings")),
    )
    for key, value in moved:
        if value is not None:
            rope.setdefault(key, value)
    return rope


def sliding_rope(config: Config) -> dict[str, Any]:
    """The RoPE settings of the layers that attend to a window; empty where they are not said."""
    return _object("sliding_attention", config.rope.get("sliding_attention"))


def full_rope(config: Config) -> dict[str, Any]:
    """The RoPE settings of the layers that attend to everything."""
    return _object("full_attention", config.rope.get("full_attention", config.rope))
