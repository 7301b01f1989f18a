"""Loaded by the Python of ``scripts/test_windows.sh`` only: Wine does not say which process listens on a port."""

from __future__ import annotations

import sys

if sys.platform == "win32":
    import psutil

    def _unknown(self: psutil.Process, kind: str = "inet") -> None:
        raise psutil.AccessDenied(self.pid)

    psutil.Process.net_connections = _unknown  # type: ignore[assignment,method-assign]
