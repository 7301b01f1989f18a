"""Tells, before a plan runs, what it will download, why programs are made, and that llama.cpp's own script converts.

``offline_check`` refuses a plan that would download something without a network.
"""

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
    """Send the notices of a plan to the sink."""
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
    """Send the notice that llama.cpp's own script will run, with the reason and what is installed for it."""
    from llama_runner.steps.convert_official import OfficialAdapter, OfficialConvert  # noqa: PLC0415
    from llama_runner.steps.official_converter_environment import ConverterEnvironment  # noqa: PLC0415 - not on the warm path

    running = [planned.step for planned in plan.pending if planned.remote is None]
    made = [step.kind for step in running if isinstance(step, (OfficialConvert, OfficialAdapter))]
    environment = next((step for step in running if isinstance(step, ConverterEnvironment)), None)
    choice = graph.official
    if made:
        why = f"llama.cpp's own script converts ({choice.why if choice else ' and '.join(dict.fromkeys(made))})"
    elif environment is not None and any(step.kind in ("train", "merge") for step in running):
        why = "PEFT runs"
    else:
        return
    if environment is not None:
        fetched = environment.estimate().fetch
        sizes = f"{size_text(environment.estimate().disk - fetched)}, {size_text(fetched)} to fetch"
        why += f", in a Python environment of its own, which is installed first ({sizes})"
    sink(Noticed("official_converter" if made else "training", why))
