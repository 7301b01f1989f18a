"""Reads durations."""

from __future__ import annotations

import re

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_duration(text: str, *, unit: str) -> float:
    """Return the seconds of a text such as ``7d``, ``12h``, ``30m``, ``90s``; ``unit`` is that of a bare number.

    Raises ``ValueError`` for any other text.
    """
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,6})?)([dhms]?)", text.strip().lower(), re.ASCII)
    if match is None:
        raise ValueError(f"{text!r} is not a time such as 7d, 12h or 30m")
    return float(match[1]) * _SECONDS[match[2] or unit]
