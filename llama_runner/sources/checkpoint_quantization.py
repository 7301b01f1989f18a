"""Quantization of a checkpoint, as config.json states it.

The converter is chosen from it before anything is converted; reading quantized tensors is the task of ``convert``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_runner.core.immutable_values import Value

if TYPE_CHECKING:
    from collections.abc import Mapping

UNCHANGED_TYPES = {"mxfp4": "mxfp4_moe"}
"""Methods whose weights conversion keeps, each with the resulting file type."""

UNQUANTIZED_BITS = 16
_BITS = {"mxfp4": 4, "bitnet": 2}
_EIGHT = 8


class CheckpointQuantization(Value):
    """Quantization method as named in config.json, with the approximate number of bits per weight."""

    method: str
    bits: int

    @property
    def unchanged_type(self) -> str | None:
        """Return the type of the converted file if conversion keeps the weights as they are, else None."""
        return UNCHANGED_TYPES.get(self.method)

    def converted_bytes(self, size: int) -> int:
        """Return the approximate size of the converted weights; ``size`` is that of the stored weights, in bytes."""
        return size if self.unchanged_type else size * UNQUANTIZED_BITS // self.bits


def read_quantization(config: Mapping[str, Any]) -> CheckpointQuantization | None:
    """Return the quantization that config.json states; None if the weights are not quantized."""
    settings = config.get("quantization_config")
    if not isinstance(settings, dict):
        return None
    method = settings.get("quant_method")
    if not isinstance(method, str):
        return None
    bits = _BITS.get(method) or _bit_count(settings.get("bits")) or _bits_of_group(settings) or _EIGHT
    return CheckpointQuantization(method=method, bits=bits)


def _bits_of_group(settings: dict[str, Any]) -> int | None:
    groups = settings.get("config_groups")
    first = next(iter(groups.values()), None) if isinstance(groups, dict) else None
    weights = first.get("weights") if isinstance(first, dict) else None
    return _bit_count(weights.get("num_bits")) if isinstance(weights, dict) else None


def _bit_count(value: object) -> int | None:
    return value if type(value) is int and 0 < value <= UNQUANTIZED_BITS else None
