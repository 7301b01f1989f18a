"""Restarts a server that ends by itself, with increasing pauses and a limit of failures in a row."""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal

from llama_runner.core.errors import Interrupted, ServerError
from llama_runner.core.events import ServerRestarting
from llama_runner.serving.errors import GaveUp, ModelGone
from llama_runner.serving.server_registry import began, register

if TYPE_CHECKING:
    from collections.abc import Callable

    from llama_runner.serving.server_process import Server

Policy = Literal["no", "on-failure", "always"]

LIMIT = 5
"""Starts in a row that may fail, or serve for less than ``STEADY_S``."""

STEADY_S = 60.0
"""Seconds after which a start counts as successful and the count of failures begins at zero."""

PAUSES_S = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0)
"""Seconds of pause before the first restart, the second, …"""


def looked_after(*, detached: bool) -> dict[str, Any]:
    """Return the members of a registry entry that describe the supervising process, which is this one."""
    return {"supervisor": os.getpid(), "supervisor_began": began(os.getpid()), "detached": detached}


class Supervisor:
    """Supervisor of one server. ``wait`` returns when the server is not restarted any more.

    ``request_stop`` and ``request_restart`` return at once, as a signal handler must.
    """

    def __init__(self, server: Server, policy: Policy, *, limit: int = LIMIT) -> None:
        self.server = server
        self._policy, self._limit = policy, limit
        self._anew = False
        self._stopped, self._woken = threading.Event(), threading.Event()

    def request_stop(self, *, kill: bool = True) -> None:
        """Stop the server and do not restart it; a second call kills it, unless ``kill`` is false."""
        self._stopped.set()
        self._woken.set()
        self.server.request_stop(kill=kill)

    def request_restart(self) -> None:
        """Stop the server and start it again at once, under every policy; also while it loads."""
        if not self._anew:  # asked again, a server is killed
            self._anew = True
            self._woken.set()
            self.server.request_stop()

    def wait_ready(self, cancelled: Callable[[], bool] = lambda: False) -> None:
        """Return once the server is ready for the first time; raises as ``Server.wait_ready`` does.

        When a restart is requested meanwhile, the server that is started anew is waited for.
        """
        while True:
            try:
                self.server.wait_ready(cancelled)
            except ServerError:
                if self._stopped.is_set():
                    raise Interrupted from None
                if not self._anew:
                    raise
                self._start_again()
            else:
                return

    def wait(self) -> int:
        """Return the exit status of the server once it has ended for good.

        Until then it is started again: at the same port, with the same key and log. Raises ``GaveUp`` after
        ``limit`` starts in vain in a row, ``ModelGone`` when there is nothing to start it with, and the error of a
        start that nobody wants to be tried again.
        """
        status, failed = self.server.wait(), 0
        failure: ServerError | None = None
        while not self._stopped.is_set():
            if self._anew:
                failed = 0
            elif self._policy == "no" or (self._policy == "on-failure" and status == 0 and failure is None):
                if failure is not None:
                    raise failure
                break
            elif failed >= self._limit:
                raise GaveUp(self.server.spec.alias, failed, failure, status)
            else:
                self._pause(status, failed)
                if self._stopped.is_set():
                    break
            steady, failure = self._attempt()
            status, failed = self.server.wait(), 0 if steady else failed + 1
        return status

    def _start_again(self) -> None:
        """Start the server anew. A request that comes while there is none applies to the new one."""
        self._woken.clear()
        if not self.server.spec.model.exists():
            raise ModelGone(self.server.spec.model)
        self._anew = False
        self.server = self.server.again()
        if self._stopped.is_set() or self._anew:
            self.server.request_stop(kill=False)  # a handler that ran since the line before has asked already

    def _pause(self, status: int, failed: int) -> None:
        """Wait, longer each time; while there is no server, it is this process that can be asked to stop."""
        pause = PAUSES_S[min(failed, len(PAUSES_S) - 1)]
        self.server.tell(ServerRestarting(status, failed + 1, self._limit, pause))
        path = register(self.server.registry, os.getpid(), self.server.entry("restarting"))
        self._woken.wait(pause)
        if path is not None:
            with suppress(OSError):
                path.unlink(missing_ok=True)

    def _attempt(self) -> tuple[bool, ServerError | None]:
        """Start the server and wait for its end. Return whether it served long enough, and the error if it failed."""
        try:
            self._start_again()
            self.server.wait_ready()
            since = time.monotonic()
            self.server.wait()
        except ModelGone:
            raise
        except ServerError as error:
            return False, error
        return time.monotonic() - since >= STEADY_S, None
