"""Makes what a declared model needs. What is not there is made by a worker, so that the gateway stays small.

A conversion, and the trial of new programs, load numpy and more. What a worker made is up to date for the gateway.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from llama_runner.core.errors import ExitCode, Interrupted, LlamaRunnerError, SourceError, StoreError, UsageError
from llama_runner.gateway import scheduler_state as state
from llama_runner.gateway.errors import CallFailed
from llama_runner.gateway.start_runner_call_worker import Question, WorkerProcess
from llama_runner.serving.errors import DoesNotFit
from llama_runner.serving.template_check import UnreadableTemplate

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from llama_runner.gateway.served_models import DeclaredModel

LOG_LINES = 20
_PERMANENT = (ExitCode.USAGE, ExitCode.SOURCE, ExitCode.STORE)


async def make(root: Path, model: DeclaredModel, warn: Callable[[str, str], None]) -> None:
    """Make all that serving a model needs, in a process of its own. Raises ``CallFailed``.

    Where that fails because of an adapter, the rest is made. ``warn`` gets the kind and the text of warnings. A caller
    that is cancelled ends the process.
    """
    try:
        await _make(root, model, model.all_keywords, warn)
    except CallFailed:
        if not model.lora:
            raise
        await _make(root, model, model.keywords, warn)


async def _make(root: Path, model: DeclaredModel, keywords: dict[str, Any], warn: Callable[[str, str], None]) -> None:
    def tell(event: dict[str, Any]) -> None:
        if event.get("event") == "warned":
            warn(str(event.get("what")), str(event.get("text")))

    ended = asyncio.Event()
    name = None if model.source is None else str(model.source)
    arguments = {"name": name, "keywords": dict(keywords), "extra": list(model.server.extra)}
    worker = WorkerProcess(Question(root, "prepare", arguments), tell, ended.set)
    try:
        await ended.wait()
    finally:
        worker.stop()
    if worker.error is not None:
        raise worker.error


def failure_of(error: Exception) -> state.Failure:
    """Return why a model could not be prepared or loaded."""
    if isinstance(error, DoesNotFit):
        return state.Failure(str(error), hint=error.hint, permanent=True, lacks=error.lacks)
    known = isinstance(error, LlamaRunnerError)
    reason = str(error) if known else f"{type(error).__name__}: {error}"
    kinds = (UsageError, SourceError, StoreError, UnreadableTemplate)
    permanent = isinstance(error, kinds) and not isinstance(error, Interrupted)
    return state.Failure(
        reason.splitlines()[0] if reason else type(error).__name__,
        hint=getattr(error, "hint", None),
        log=tuple(getattr(error, "tail", None) or ())[-LOG_LINES:],
        permanent=permanent or (isinstance(error, CallFailed) and error.exit_status in _PERMANENT),
    )
