"""What is known of the files of models that no process has; looking at one takes a while."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from llama_runner.core.errors import LlamaRunnerError
from llama_runner.gateway.configuration import launch_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Any

    from llama_runner.gateway.served_models import DeclaredModel, ModelFacts

_ABSENT_S = 10.0


class KnownFacts:
    """Facts of models that were only looked at, by their launch."""

    def __init__(
        self, thread: Callable[..., Awaitable[Any]], look: Callable[[DeclaredModel], ModelFacts | None]
    ) -> None:
        """``thread`` calls a function in a thread; ``look`` returns the facts of a model that is on disk."""
        self._thread, self._look = thread, look
        self._facts: dict[str, ModelFacts] = {}
        self._absent: dict[str, float] = {}
        """Until when models that were not there are not looked for again: clients ask for lists often."""

    async def of(self, model: DeclaredModel) -> ModelFacts | None:
        """Return what is known of the file of a model; None where it is not there yet. Does no work for it."""
        launch = launch_of(model)
        kept = self._facts.get(launch)
        if kept is None and time.monotonic() < self._absent.get(launch, 0.0):
            return None
        try:
            if kept is None or not await self._thread(is_unchanged, kept):
                kept = await self._thread(self._look, model)
        except LlamaRunnerError:
            kept = None
        if kept is not None:
            self._facts[launch] = kept
        else:
            self._facts.pop(launch, None)
            self._absent[launch] = time.monotonic() + _ABSENT_S
        return kept

    def look_again(self) -> None:
        """Forget which models were not there: one may have been fetched."""
        self._absent.clear()


def is_unchanged(facts: ModelFacts) -> bool:
    """Return whether the file of a model is the one that was looked at."""
    try:
        return facts.file.stat().st_mtime == facts.modified_at
    except OSError:
        return False
