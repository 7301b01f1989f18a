"""Times and durations of Ollama's API: ``keep_alive``, nanoseconds, RFC 3339. Pure."""

from __future__ import annotations

import math
import re
from datetime import datetime, timezone
from typing import Any

from llama_runner.core.printable_text import printable
from llama_runner.gateway.errors import BadRequest

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)"
_DURATION = re.compile(rf"([+-]?)((?:{_PART})+)")
_NUMBER = re.compile(r"[+-]?[0-9]+(?:\.[0-9]*)?")
FOREVER = math.inf
"""What a negative duration means: the model stays loaded."""
_LONGEST = 290 * 365 * 86400.0
"""Seconds that a duration can have in Go; a longer one means forever."""
FAR_FUTURE = "9999-12-31T23:59:59Z"
"""When a model that stays loaded expires: clients show the zero time as "Stopping…"."""


def bad_keep_alive_error(value: object) -> BadRequest:
    """Return the error for a duration that cannot be read."""
    return BadRequest(
        f"keep_alive: {printable(repr(value), limit=80)} is no duration",
        field="keep_alive",
        hint='use seconds, a text such as "5m" or "1h30m", 0 to unload, or -1 to keep the model loaded',
    )


def keep_alive_seconds(value: Any) -> float | None:  # noqa: ANN401 - as the client sent it
    """Return ``keep_alive`` in seconds; None if it was not given, ``FOREVER`` for a negative one.

    Takes numbers of seconds and durations of Go such as ``5m`` or ``1h30m``; also a number as text, which Ollama
    refuses. Raises ``BadRequest``.
    """
    if value is None or value == "":
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise bad_keep_alive_error(value)
    seconds = _text_seconds(value) if isinstance(value, str) else value
    if seconds is None or seconds != seconds:  # noqa: PLR0124 - NaN
        raise bad_keep_alive_error(value)
    return FOREVER if seconds < 0 or seconds > _LONGEST else float(seconds)


def _text_seconds(text: str) -> float | None:
    text = text.strip()
    if _NUMBER.fullmatch(text):
        return float(text)
    found = _DURATION.fullmatch(text)
    if found is None:
        return None
    total = sum(float(number) * _UNITS[unit] for number, unit in re.findall(_PART, found[2]))
    return -total if found[1] == "-" else total


def nanoseconds(milliseconds: Any) -> int:  # noqa: ANN401 - from the JSON of a server
    """Return a duration of llama-server in milliseconds as integer nanoseconds; 0 for what is none."""
    if isinstance(milliseconds, bool) or not isinstance(milliseconds, (int, float)):
        return 0
    return max(0, round(milliseconds * 1e6)) if math.isfinite(milliseconds) else 0


def time_text(seconds: float | None) -> str:
    """Return a time in seconds since the epoch as RFC 3339 with microseconds; ``FAR_FUTURE`` for none and forever."""
    if seconds is None or not math.isfinite(seconds):
        return FAR_FUTURE
    try:
        found = datetime.fromtimestamp(seconds, timezone.utc)
    except (OverflowError, ValueError, OSError):
        return FAR_FUTURE
    return found.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
