"""How long a server that is asked to stop may take until it is killed."""

from __future__ import annotations

GRACE_S = 10.0
"""Seconds that a server may take to end after SIGTERM: it lets requests in flight finish."""
KILL_GRACE_S = 5.0
"""Seconds that the process that supervises a server may take to end after it."""
