"""Which llama-server is likely to be started next: a process begins to be it, so that its start takes less time.

It is the one that others are stopped for, and before that is known, the one that was stopped last: where two models
take turns, that one is asked next.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from llama_runner.llama_cpp.program_environment import program_environment
from llama_runner.serving.prestarted_process import SpareProcesses

if TYPE_CHECKING:
    from llama_runner.serving.prestarted_process import Likely, SpareProcess

_LOADING_S = 0.01  # the next process is made while a model loads
_KEPT_S = 5.0


class NextServer:
    """Keeps one process. All methods but ``launched`` and ``close`` are for the event loop."""

    def __init__(self) -> None:
        self._spares = SpareProcesses()
        self._launched: dict[str, Likely] = {}
        """What was launched last of each model that may begin early."""
        self._stopped = ""
        self._dropping: asyncio.TimerHandle | None = None

    def launched(self, model: str, server: Likely) -> None:
        """Remember what was launched of a model."""
        self._launched[model] = server

    def known(self, model: str, what: object) -> Likely | None:
        """Return what was launched last of a model, if it was made from the same."""
        found = self._launched.get(model)
        return found if found is not None and found.what == what else None

    def stopped(self, model: str) -> None:
        """Remember which model was stopped last."""
        self._stopped = model

    def expect(self, server: Likely) -> None:
        """Let the process begin to be a server that others are stopped for."""
        self._spares.begin(server)
        self._drop_later()

    def take(self, what: object, model: str) -> SpareProcess | None:
        """Return the process, for the start of ``what``, and have the next one made while that loads."""
        asyncio.get_running_loop().call_later(_LOADING_S, self._make, model)
        return self._spares.take(what)

    def close(self) -> None:
        """End the process, and make none any more."""
        self._spares.close()

    def _make(self, starting: str) -> None:
        likely = self._launched.get(self._stopped) if self._stopped != starting else None
        self._spares.make(program_environment(os.environ), likely)
        self._drop_later()

    def _drop_later(self) -> None:
        """Have another process made if this one has begun to be a server that nobody starts soon."""
        if self._dropping is not None:
            self._dropping.cancel()
        self._dropping = asyncio.get_running_loop().call_later(_KEPT_S, self._drop)

    def _drop(self) -> None:
        self._spares.drop()
        self._spares.make(program_environment(os.environ))
