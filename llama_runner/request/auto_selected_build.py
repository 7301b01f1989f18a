"""Finds the installed programs that ``auto``, the default, selects."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llama_runner.request import binaries_graph
from llama_runner.request.plan_and_execute import Preparation
from llama_runner.request.resolve_request import ProgramsRequest
from llama_runner.request.results_of_graph import programs_of
from llama_runner.serving.builds_in_use import open_builds

if TYPE_CHECKING:
    from pathlib import Path

    from llama_runner.core.events import Event, Sink
    from llama_runner.llama_cpp.installed_builds import BuildStore
    from llama_runner.store.artifacts import Store


def builds(store: Store, sink: Sink, lock_timeout: float) -> BuildStore:
    """Return the builds under the root of a store; see ``BuildStore``."""
    return open_builds(store, sink=sink, lock_timeout=lock_timeout, auto=lambda: find_auto_programs(store))


def find_auto_programs(store: Store) -> Path | None:
    """Return the directory of the programs that ``auto`` stands for, None if they are not here. Writes nothing."""
    request = ProgramsRequest({"offline": True, "remote_store": ""}, store=store, sink=_silent)
    programs = binaries_graph.programs_graph_of(request)
    plan = Preparation(store, _silent, lock_timeout=0).plan(request, programs)
    if any(planned.step is programs.node for planned in plan.pending):
        return None
    places = {planned.step: planned.place for planned in plan.steps if planned.place is not None}
    return programs_of(store, programs.node, places)


def _silent(_event: Event) -> None:
    """Print nothing."""
