"""Notices of what a plan will fetch, compile and install; the error if that is impossible offline."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llama_runner.core.events import Chosen, Noticed
from llama_runner.core.sizes import size_text
from llama_runner.request.offline_check import fetching_steps
from llama_runner.request.pipeline_graph import Pipeline
from llama_runner.sources.hub.source import HubGguf
from llama_runner.sources.local import LocalGguf, LocalSafetensors
from llama_runner.steps.download import Download

if TYPE_CHECKING:
    from llama_runner.core.events import Sink
    from llama_runner.core.plan import Plan
    from llama_runner.request.binaries_graph import Programs


def announce(plan: Plan, graph: Pipeline | Programs, sink: Sink) -> None:
    """Say what will be fetched and compiled."""
    programs = graph.programs if isinstance(graph, Pipeline) else graph
    if programs.why and any(planned.step is programs.node and planned.remote is None for planned in plan.pending):
        sink(Noticed("backend", programs.why))
    if not isinstance(graph, Pipeline):
        return
    _announce_script(plan, graph, sink)
    source = graph.source
    files = [file for step in fetching_steps(plan) if isinstance(step, Download) for file in step.remote]
    if files and not isinstance(source, (LocalGguf, LocalSafetensors)):
        why = source.selection.why if isinstance(source, HubGguf) else "to be converted here"
        names = tuple(file.name for file in sorted(files, key=lambda file: -file.size))
        sink(Chosen(source.pin.repo, source.pin.commit, names, sum(file.size for file in files), why))


def _announce_script(plan: Plan, graph: Pipeline, sink: Sink) -> None:
    """Say that llama.cpp's own script will run, why, and what is installed for it."""
    from llama_runner.steps.convert_official import OfficialAdapter, OfficialConvert  # noqa: PLC0415
    from llama_runner.steps.python_environment import (  # noqa: PLC0415 - not on the warm path
        FETCHED_BYTES,
        INSTALLED_BYTES,
        ConverterEnvironment,
    )

    running = [planned.step for planned in plan.pending if planned.remote is None]
    made = [step.kind for step in running if isinstance(step, (OfficialConvert, OfficialAdapter))]
    if not made:
        return
    choice = graph.official
    why = f"llama.cpp's own script converts ({choice.why if choice else ' and '.join(dict.fromkeys(made))})"
    for step in running:
        if isinstance(step, ConverterEnvironment):
            sizes = f"{size_text(INSTALLED_BYTES)}, {size_text(FETCHED_BYTES)} to fetch"
            why += f", in a Python environment of its own, which is installed first ({sizes})"
    sink(Noticed("official_converter", why))
