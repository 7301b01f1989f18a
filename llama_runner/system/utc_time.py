"""Times in UTC as text, as records and other files under the root have them."""

from __future__ import annotations

import time


def utc_text(seconds: float | None = None) -> str:
    """Return ``2026-11-20T10:11:12Z`` for a time in seconds since the epoch (default: now)."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
