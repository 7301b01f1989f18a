"""Which LoRA adapters a request to llama-server uses: always the full list, zeros included. Pure.

llama-server keeps the KV cache of a slot unless a request names other scales than the one before. A request without
the list would reuse what another adapter computed.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from llama_runner.core.errors import UsageError
from llama_runner.core.immutable_values import Value

if TYPE_CHECKING:
    from collections.abc import Mapping

MIX = "+"
"""Between the names of adapters that are applied together."""
_SCALED = "--lora-scaled"
_OPTIONS = ("--lora", _SCALED)
GENERATING = (
    *("/v1/chat/completions", "/v1/completions", "/v1/responses", "/completion", "/completions", "/infill"),
    *("/chat/completions",),
)
"""Paths of llama-server whose requests are given the list."""


def unknown_adapter_error(name: str, known: tuple[str, ...]) -> UsageError:
    """Return the error for an adapter that is not loaded."""
    there = f"the adapters are {', '.join(known)}" if known else "start the server with --lora NAME=PATH"
    return UsageError(f"there is no adapter {name!r}", hint=there)


class AdapterScales(Value):
    """The adapters of a process by their ids, which are their positions, each with its usual scale."""

    names: tuple[str, ...] = ()
    scales: tuple[float, ...] = ()

    def chosen(self, wanted: str | Mapping[str, float] | None) -> tuple[float, ...]:
        """Return the scale of each adapter. Raises ``UsageError`` for an unknown name and for what is no scale.

        ``wanted``: ``a``, ``a+b``, an empty text for none, a table of scales, or None for the usual scales. A name
        without a scale has its usual one, or 1 where that is 0.
        """
        if wanted is None:
            return self.scales
        usual = dict(zip(self.names, self.scales, strict=True))
        if isinstance(wanted, str):
            wanted = {name: usual.get(name) or 1.0 for name in split_mix(wanted)}
        for name, scale in wanted.items():
            if name not in usual:
                raise unknown_adapter_error(name, self.names)
            if not is_scale(scale):
                raise UsageError(f"{scale!r} is no scale of the adapter {name!r}", hint="give a number")
        return tuple(float(wanted.get(name, 0.0)) for name in self.names)

    def with_more(self, others: AdapterScales) -> AdapterScales:
        """Return these adapters and others, whose ids follow."""
        return AdapterScales((*self.names, *others.names), (*self.scales, *others.scales))

    def members(self, wanted: str | Mapping[str, float] | None = None) -> dict[str, Any]:
        """Return what a request for text is given; nothing for a process without adapters. Raises as ``chosen``."""
        chosen = self.chosen(wanted)
        return {"lora": scale_list(chosen)} if chosen else {}


def adapters_in(words: tuple[str, ...]) -> AdapterScales:
    """Return the adapters of ``--lora`` and ``--lora-scaled`` among options for llama-server, by their paths."""
    if not any(word.startswith("--lora") for word in words):
        return AdapterScales()
    from llama_runner.core.csv_option_values import parse_row  # noqa: PLC0415 - few servers have any

    found = [
        (option, field)
        for at, option in enumerate(words[:-1])
        if option in _OPTIONS
        for field in parse_row(words[at + 1])
    ]
    names = [field.rpartition(":")[0] if option == _SCALED else field for option, field in found]
    scales = [_scale(field) if option == _SCALED else 1.0 for option, field in found]
    return AdapterScales(tuple(names), tuple(scales))


def _scale(field: str) -> float:
    try:
        return float(field.rpartition(":")[2])
    except ValueError:  # llama-server refuses it
        return 1.0


def scale_list(scales: tuple[float, ...]) -> list[dict[str, Any]]:
    """Return scales as llama-server reads them: every id, those that are zero included."""
    return [{"id": number, "scale": scale} for number, scale in enumerate(scales)]


def split_mix(text: str) -> list[str]:
    """Return the names in ``a+b``; none for an empty text."""
    return text.split(MIX) if text else []


def is_scale(value: object) -> bool:
    """Return whether a value is a finite number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
