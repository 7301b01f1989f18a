"""Whether the network may be used."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_TRUE = frozenset({"1", "ON", "YES", "TRUE"})


def is_true(value: str | None) -> bool:
    """Return whether the value of a variable means yes, as huggingface_hub reads it."""
    return value is not None and value.upper() in _TRUE


def is_offline(environment: Mapping[str, str]) -> bool:
    """Return whether the environment forbids to use the network, as huggingface_hub reads it.

    ``HF_HUB_OFFLINE`` decides where it is set to anything but the empty string, else ``TRANSFORMERS_OFFLINE``.
    """
    return is_true(environment.get("HF_HUB_OFFLINE") or environment.get("TRANSFORMERS_OFFLINE"))
