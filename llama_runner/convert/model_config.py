"""Hyperparameters of one model, with typed and bounded access; `config_json` loads them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_runner.convert import config_number_limits
from llama_runner.convert.errors import BadHyperparameter

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from llama_runner.convert.quantization_config import Quantization

ROPE_THETA = ("global_rope_theta", "rope_global_theta", "rope_theta_global", "rope_theta", "rotary_emb_base")
LOCAL_ROPE_THETA = (
    "local_rope_theta",
    "rope_local_theta",
    "rope_theta_local",
    "swa_rope_theta",
    "rope_local_base_freq",
)


class Config:
    """Hyperparameters of one model; ``rope`` has the RoPE settings.

    ``quantization`` is that of the stored weights, None if there is none.
    """

    def __init__(
        self, architecture: str, values: Mapping[str, Any], *, quantization: Quantization | None = None
    ) -> None:
        self.architecture = architecture
        self.values = values
        self.quantization = quantization
        self.rope = _rope(self)
        config_number_limits.check_nested("rope_scaling", self.rope)

    def find(self, *names: str) -> Any:  # noqa: ANN401 - JSON is anything
        """Return the value of the first name that is present, which may be null; None if none is.

        Raises ``BadHyperparameter`` for a number outside of the limits.
        """
        name = next((name for name in names if name in self.values), None)
        if name is None:
            return None
        value = self.values[name]
        config_number_limits.check(name, value)
        return value

    def number(self, *names: str) -> float:
        """Return a required number."""
        value = self.find(*names)
        if type(value) not in (int, float):
            raise BadHyperparameter(names[0], f"is {value!r}, a number is expected")
        return float(value)

    def positive(self, *names: str) -> float:
        """Return a required number above zero."""
        value = self.number(*names)
        if value <= 0:
            raise BadHyperparameter(names[0], f"is {value}, a number above zero is expected")
        return value

    def share(self, *names: str) -> float:
        """Return a required number from 0 to 1."""
        return share(names[0], self.find(*names))

    def integer(self, *names: str) -> int:
        """Return a required whole number above zero."""
        value = self.find(*names)
        if value is None:
            raise BadHyperparameter(names[0], "is missing")
        if type(value) is not int or value <= 0:
            raise BadHyperparameter(names[0], f"is {value!r}, a number above zero is expected")
        return value

    def count(self, *names: str) -> int:
        """Return a whole number; zero if absent or null."""
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


def as_object(name: str, value: object) -> dict[str, Any]:
    """Return a value that is an object; empty for null. Raises ``BadHyperparameter`` for any other."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise BadHyperparameter(name, f"is {value!r}, an object is expected")
    return dict(value)


def _rope(config: Config) -> dict[str, Any]:
    """Return the RoPE settings of old and new checkpoints as one dict."""
    name = "rope_parameters" if "rope_parameters" in config.values else "rope_scaling"
    rope = as_object(name, config.values.get(name))
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
    """Return the RoPE settings of sliding-window layers; empty if there are none."""
    return as_object("sliding_attention", config.rope.get("sliding_attention"))


def full_rope(config: Config) -> dict[str, Any]:
    """Return the RoPE settings of full-attention layers."""
    return as_object("full_attention", config.rope.get("full_attention", config.rope))
