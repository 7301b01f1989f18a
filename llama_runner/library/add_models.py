"""Adds models to the store without the programs that serve them, and lists the quantizations to choose from."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from llama_runner.core.errors import Interrupted, LlamaRunnerError, UsageError
from llama_runner.core.events import Noticed, Sink
from llama_runner.core.immutable_values import Value
from llama_runner.request.pipeline_graph import NothingToMake, Pipeline, graph_of
from llama_runner.request.plan_and_execute import Preparation
from llama_runner.request.resolve_request import Request
from llama_runner.request.results_of_graph import made_of, path_of
from llama_runner.sources.hub import file_names
from llama_runner.sources.hub.file_selection import AmbiguousFile
from llama_runner.sources.hub.parse_model_name import HubName
from llama_runner.sources.hub.source import HubGguf
from llama_runner.sources.local import LocalGguf
from llama_runner.sources.quantization_types import BITS_PER_WEIGHT, DEFAULT
from llama_runner.sources.resolve_source import open_source
from llama_runner.system import hardware

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llama_runner.request.remote_stores import Opened
    from llama_runner.request.request_keywords import RunnerKeywords
    from llama_runner.request.result_types import ModelFile
    from llama_runner.sources.hub.file_names import Variant
    from llama_runner.store.artifacts import Store

_CLOSING = ("quantization", "filename", "pattern", "max_size", "fit_memory", "outtype")
"""Options that select the file or the quantization."""


class AddedModel(Value):
    """The result of adding one name."""

    name: str
    files: tuple[ModelFile, ...] = ()
    error: LlamaRunnerError | None = None

    def to_json(self) -> dict[str, Any]:
        """Return it for ``models add --json``."""
        error = None if self.error is None else {"code": self.error.code, "message": str(self.error)}
        return {"name": self.name, "files": [file.to_json() for file in self.files], "error": error}


class Choice(Value):
    """A quantization that a repository has, or that can be made."""

    quantization: str
    bytes: int
    """Approximate if the file is made here."""
    fits: bool
    """Whether the memory of this machine suffices."""
    is_default: bool
    file: str | None = None
    """The file in the repository; None if it is made here."""


def add(
    store: Store, sink: Sink, lock_timeout: float, names: Sequence[str], keywords: RunnerKeywords
) -> list[AddedModel]:
    """Fetch or make each model; after a failure the others are still added. Raises ``Interrupted``."""
    if not names:
        raise UsageError("no model is named", hint="llama-runner search WORDS finds some")
    preparation, found = Preparation(store, sink, lock_timeout=lock_timeout), []
    remotes: Opened = {}
    for number, name in enumerate(names, 1):
        if len(names) > 1:
            sink(Noticed("add", f"{number} of {len(names)}: {name}"))
        try:
            found.append(AddedModel(name, _added(store, sink, preparation, name, keywords, remotes)))
        except Interrupted:
            raise
        except LlamaRunnerError as error:
            found.append(AddedModel(name, error=error))
    return found


def _added(
    store: Store, sink: Sink, preparation: Preparation, name: str, keywords: RunnerKeywords, remotes: Opened
) -> tuple[ModelFile, ...]:
    def checked_graph(request: Request) -> Pipeline:
        graph = graph_of(request)
        if graph.model is None:
            raise NothingToMake(str(path_of(graph.source)))
        return graph

    resolve = partial(
        Request, name, keywords, store=store, sink=sink, remember=True, remotes=remotes, needs_programs=False
    )
    graph, _, outcome = preparation.make(resolve, checked_graph, lambda graph: graph.of_the_model)
    return tuple(made_of(store, graph, outcome))


def choices(store: Store, sink: Sink, name: str, keywords: RunnerKeywords) -> list[Choice]:
    """Return the quantizations that a name leaves open; none if the name selects one, or there is only one.

    Asks the Hub about an unknown name. Raises as ``prepare``.
    """
    if any(keywords.get(each) for each in _CLOSING if keywords.get(each) != "auto") or name.partition(":")[0] == "demo":
        return []
    source = open_source(name)
    if isinstance(source, LocalGguf) or (isinstance(source, HubName) and (source.tag or source.file)):
        return []
    try:
        facts = Request(name, keywords, store=store, sink=sink, remember=True, needs_programs=False).facts
    except AmbiguousFile as error:
        return _of_files(error.fitting, "")
    if isinstance(facts.source, HubGguf):
        chosen = facts.source.selection.model
        offered = [one for one in file_names.group_variants(facts.source.pin.files) if one.role == chosen.role]
        return _of_files([one for one in offered if not one.missing], chosen.name)
    if facts.checkpoint_quantization is not None:
        return []
    sizes = {name: int(facts.bytes * bits / 16) for name, bits in BITS_PER_WEIGHT.items()} | {"f16": facts.bytes}
    budget = hardware.model_budget()
    found = [Choice(name, size, size <= budget, name == DEFAULT) for name, size in sizes.items()]
    return sorted(found, key=lambda each: each.bytes)


def _of_files(offered: Sequence[Variant], chosen: str) -> list[Choice]:
    budget = hardware.model_budget()
    found = [Choice(one.label or "?", one.size, one.size <= budget, one.name == chosen, one.name) for one in offered]
    return sorted(found, key=lambda each: each.bytes) if len(found) > 1 else []
