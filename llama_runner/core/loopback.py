"""Hosts that only this machine reaches."""

from __future__ import annotations

WITHOUT_KEY = "loopback"
"""The name of clients of this machine that have no key, and the namespace of their sessions."""


def is_loopback(host: str) -> bool:
    """Return whether a host is certainly one of the loopback interface: ``localhost``, ``::1`` or ``127.…``."""
    return host in ("localhost", "::1") or (host.startswith("127.") and host.replace(".", "").isdigit())
