"""The installed builds of llama.cpp, with the servers that run from them and the smoke test of imported builds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_runner.llama_cpp.installed_builds import BuildStore
from llama_runner.serving.server_registry import running
from llama_runner.store import layout

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from llama_runner.core.events import Sink
    from llama_runner.engine.step_workspace import StagedWorkspace
    from llama_runner.store.artifacts import Store


def open_builds(
    store: Store,
    *,
    sink: Sink = lambda _event: None,
    lock_timeout: float = 6 * 3600,
    auto: Callable[[], Path | None] = lambda: None,
) -> BuildStore:
    """Return the builds under the root of a store. ``lock_timeout`` is how many seconds an import waits for others.

    ``auto`` returns the programs that a run without a choice takes.
    """
    return BuildStore(
        store,
        running=lambda: running(layout.servers(store.private)),
        smoke_test=_smoke_test,
        sink=sink,
        lock_timeout=lock_timeout,
        auto=auto,
    )


def _smoke_test(workspace: StagedWorkspace, params: Mapping[str, Any]) -> None:
    from llama_runner.serving.smoke_test import Expected, prove  # noqa: PLC0415 - not to list

    prove(workspace.out, Expected(backend=str(params.get("backend", "cpu")), build=params.get("build")), workspace)
