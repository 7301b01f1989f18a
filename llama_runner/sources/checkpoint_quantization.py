"""How the weights of a model are stored, where its config.json says that they are quantized already.

Read before anything is converted, to choose what is made of them; whether they can be is `convert`'s business.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_runner.core.value import Value

if TYPE_CHECKING:
    from collections.abc import Mapping

KEPT = {"mxfp4": "mxfp4_moe"}
"""Methods whose weights stay as they are when they are converted, and the type of file that this gives."""

SIXTEEN = 16
_BITS = {"mxfp4": 4, "bitnet": 2}
_EIGHT = 8


class Stored(Value):
    """A method, as config.json names it, and about how many bits it takes for a weight."""

    method: str
    bits: int

    @property
    def kept(self) -> str | None:
        """The type of the converted file, where conversion leaves the weights as they are."""
        return KEPT.get(self.method)

    def converted_bytes(self, size: int) -> int:
        """About how many bytes weights of that size take when they are converted."""
        return size if self.kept else size * SIXTEEN // self.bits


def stored(config: Mapping[str, Any]) -> Stored | None:
    """Say how the weights are stored, by config.json; None where they are plain numbers, or nothing is said."""
    settings = config.get("quantization_config")
    if not isinstance(settings, dict):
        return None
    method = settings.get("quant_method")
    if not isinstance(method, str):
        return None
    bits = _BITS.get(method) or _number(settings.get("bits")) or _of_groups(settings) or _EIGHT
    return Stored(method=method, bits=bits)


def _of_groups(settings: dict[str, Any]) -> int | None:
    groups = settings.get("config_groups")
    first = next(iter(groups.values()), None) if isinstance(groups, dict) else None
    weights = first.get("weights") if isinstance(first, dict) else None
    return _number(weights.get("num_bits")) if isinstance(weights, dict) else None


def _number(value: object) -> int | None:
    return value if type(value) is int and 0 < value <= SIXTEEN else None
