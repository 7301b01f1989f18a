"""Whether a child process has ended, waiting for that in the event loop, and clearing up after it."""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from llama_runner.system.platforms import open_process, peek_exit_status

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Awaitable, Callable, Sequence

    from llama_runner.serving.server_process import Server

_LOADS_FIRST_S = 1.0
_PRUNE_EVERY_S = 60.0
_CLEARING_S = 10.0


async def ended(pid: int, wait: Callable[[], Any]) -> None:
    """Return when a child process has ended. ``wait`` is awaited where the system has no pidfd."""
    descriptor = open_process(pid)
    if descriptor is None:
        await wait()
        return
    loop, done = asyncio.get_running_loop(), asyncio.Event()
    try:
        loop.add_reader(descriptor, done.set)
        await done.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


def exit_status(child: subprocess.Popen[bytes]) -> int | None:
    """Return how a child process ended, negative for a signal; None while it runs.

    Unlike ``poll``, it also says so while another thread waits for the process.
    """
    status = child.poll()
    if status is not None:
        return status
    try:
        return peek_exit_status(child.pid)
    except ChildProcessError:  # another thread was told, and says so at once
        return child.wait()


class EndedServers:
    """Clears up after servers that were stopped: a second later, and together.

    The next model, which takes their memory, has the processor first. Looking for what a process left behind takes as
    long for many as for one, and a gateway may start a server for each request.
    """

    def __init__(self, thread: Callable[..., Awaitable[Any]]) -> None:
        """``thread`` calls a function in a thread."""
        self._thread = thread
        self._servers: list[Server] = []
        self._clearing: set[asyncio.Future[None]] = set()
        self._is_closing = asyncio.Event()
        self._pruned_at = time.monotonic()

    def add(self, server: Server) -> None:
        """Take a server whose process has ended."""
        self._servers.append(server)
        if len(self._servers) == 1:
            clearing = asyncio.ensure_future(self._clear_up())
            self._clearing.add(clearing)
            clearing.add_done_callback(self._clearing.discard)

    async def _clear_up(self) -> None:
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._is_closing.wait(), _LOADS_FIRST_S)
        servers, self._servers = self._servers, []
        prunes = self._is_closing.is_set() or time.monotonic() - self._pruned_at > _PRUNE_EVERY_S
        if prunes:
            self._pruned_at = time.monotonic()
        with suppress(Exception):
            await self._thread(_clear_up, servers, prunes)

    async def close(self) -> None:
        """Clear up now, and return when that is done."""
        self._is_closing.set()
        if self._clearing:
            await asyncio.wait(set(self._clearing), timeout=_CLEARING_S)


def _clear_up(servers: Sequence[Server], prunes: bool) -> None:
    """Do what ``Server.stop`` does for servers of one registry, with one search for what they left behind."""
    from llama_runner.serving.end_with_parent import kill_marked  # noqa: PLC0415 - not before a server ends
    from llama_runner.serving.server_log import prune  # noqa: PLC0415 - as above

    kill_marked(*(server._mark for server in servers))  # noqa: SLF001 - `Server.stop` looks for one
    for server in servers:
        server.stop(swept=True)
    if prunes:
        prune(servers[-1].log, servers[-1].registry)
