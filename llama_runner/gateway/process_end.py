"""Waits in the event loop for the end of a child process."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


async def ended(pid: int, wait: Callable[[], Any]) -> None:
    """Return when a child process has ended. ``wait`` is awaited where the system has no pidfd."""
    try:
        descriptor = os.pidfd_open(pid)
    except (AttributeError, OSError):
        await wait()
        return
    loop, done = asyncio.get_running_loop(), asyncio.Event()
    try:
        loop.add_reader(descriptor, done.set)
        await done.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
