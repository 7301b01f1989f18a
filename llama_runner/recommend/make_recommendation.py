"""``Runner.recommend``: from a model's name or files to a recommendation for this machine. Fetches no weights."""

from __future__ import annotations

import os
import re
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from llama_runner.core.errors import UsageError
from llama_runner.core.option_values import wrong_value_error
from llama_runner.llama_cpp.program_environment import program_environment
from llama_runner.recommend.choose_quantization import (
    LARGEST_CONTEXT,
    MARGIN,
    USUAL_CONTEXT,
    Candidate,
    Machine,
    Recommendation,
    Row,
    choose,
    row_of,
)
from llama_runner.recommend.estimate_memory import DEFAULT_TRAINED, memory_models
from llama_runner.recommend.machine_speed import is_free, llama_bench, machine_rates, reads_of
from llama_runner.recommend.model_headers import headers_of
from llama_runner.recommend.model_speed import Measured, corrected, types_of
from llama_runner.request.binaries_graph import programs_graph_of
from llama_runner.request.plan_and_execute import Preparation
from llama_runner.request.resolve_request import Request
from llama_runner.request.results_of_graph import programs_of
from llama_runner.serving.llama_server.memory_by_fit_params import Room
from llama_runner.sources.hub import file_names
from llama_runner.sources.hub.source import HubGguf
from llama_runner.sources.local import LocalGguf, LocalSafetensors
from llama_runner.sources.quantization_types import BITS_PER_WEIGHT, FLOAT, canonical_type
from llama_runner.store import layout
from llama_runner.system.platforms import EXE
from llama_runner.system.processes import try_output

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llama_runner.core.events import Sink
    from llama_runner.recommend.model_headers import Headers
    from llama_runner.request.model_facts import AnySource
    from llama_runner.request.request_keywords import RunnerKeywords
    from llama_runner.sources.hub.client import HubClient
    from llama_runner.sources.hub.pins import Pin, RemoteFile
    from llama_runner.store.artifacts import Store


def no_estimate_error(name: str) -> UsageError:
    """Return the error for a model whose tensors only llama.cpp's own script knows."""
    return UsageError(
        f"{name} is converted by llama.cpp's own script, so its size is not known before",
        hint="llama-runner prepare makes it; then recommend the GGUF file",
    )


def recommend(
    model: str | Path | None,
    keywords: RunnerKeywords,
    *,
    store: Store,
    sink: Sink,
    context: int | None = None,
    memory: int | None = None,
) -> Recommendation:
    """Return what is recommended; see ``Runner.recommend``."""
    for name, value in (("context", context), ("memory", memory)):
        if value is not None and value < 1:
            raise wrong_value_error(name, "1 or more", value)
    request = Request(model, keywords, store=store, sink=sink, remember=True, needs_programs=False)
    source, programs = request.facts.source, _programs(request, store, sink)
    free = is_free()
    with tempfile.TemporaryDirectory() as directory:
        found = _headers(request, Path(directory), layout.descriptions(store.private))
        if found is None:
            raise no_estimate_error(source.name)
        first = found.headers[0]
        trained = first.facts().get("context_length") or DEFAULT_TRAINED
        models, room, estimated_by = memory_models(found, programs, Path(directory), trained)
        candidates = _candidates(source, found, programs, request.options.quantization)
        projector = _projector_bytes(source)
        models = {kind: each.replace(process=each.process + projector) for kind, each in models.items()}
        available = room.host if memory is None else memory
        room = Room(int(available * MARGIN), room.devices)
        program, kept = llama_bench(programs), layout.speeds(store.private)
        rates = machine_rates(program, kept, on_gpu=bool(models["f16"].near.devices), free=free)
        machine = Machine(models, room, trained, rates, reads_of(found.headers))
        wanted = context or min(USUAL_CONTEXT, trained)
        rows = tuple(row_of(candidate, wanted, machine) for candidate in candidates)
        chosen, why = choose(rows)
        if program is not None and rates is not None and not rates.measured_by.startswith("copy"):
            measured = _measured(Path(directory), source, found, programs, chosen, models["f16"].kv_bytes)
            if measured is not None:
                rates = corrected(rates, measured, wanted, program=program, kept=kept, free=free)
            machine = machine.replace(rates=rates)
            rows = tuple(row_of(candidate, wanted, machine) for candidate in candidates)
            chosen, why = choose(rows)
    left = 0
    if chosen is not None:
        most = min(context or LARGEST_CONTEXT, chosen.context)
        candidate = Candidate(chosen.quantization, chosen.bytes, chosen.file)
        chosen = row_of(candidate, most, machine, most=most).replace(fits=chosen.fits)
        left = max(0, room.host + sum(free for _, free in room.devices) - models["f16"].total(0, chosen.bytes))
    return Recommendation(
        model=str(source.name),
        rows=rows,
        recommended=chosen,
        why=why,
        wanted_context=wanted,
        trained_context=trained,
        available=available,
        free=left,
        kv_bytes=models["f16"].kv_bytes,
        estimated_by=estimated_by,
        speed_by="" if rates is None else rates.measured_by,
        speed_range=(1.0, 1.0) if rates is None else rates.range,
        projector=source.selection.projector.name
        if isinstance(source, HubGguf) and source.selection.projector
        else None,
        drafts=_drafts(source),
    )


def _programs(request: Request, store: Store, sink: Sink) -> Path | None:
    """Return the directory of the programs that the request would use; None if they are not here yet."""
    programs = programs_graph_of(request)
    plan = Preparation(store, sink, lock_timeout=0).plan(request, programs)
    if any(planned.step is programs.node for planned in plan.pending):
        return None
    places = {planned.step: planned.place for planned in plan.steps if planned.place is not None}
    return programs_of(store, programs.node, places)


def _headers(request: Request, directory: Path, descriptions: Path) -> Headers | None:
    source = request.facts.source
    if isinstance(source, (LocalGguf, LocalSafetensors)):
        return headers_of(source, directory, _no_part, None)
    small = descriptions / source.pin.artifact_directory
    return headers_of(source, directory, partial(_part_of, request, source.pin), small)


def _projector_bytes(source: AnySource) -> int:
    """Return the bytes of the multimodal projector that a model is served with."""
    match source:
        case HubGguf() if source.selection.projector is not None:
            return source.selection.projector.size
        case LocalGguf() if source.projector is not None:
            return source.projector.stat().st_size
    return 0


def _drafts(source: AnySource) -> tuple[str, ...]:
    """Return the draft models of a repository that are single files."""
    if not isinstance(source, HubGguf) or source.selection.model.role == "draft":
        return ()
    found = file_names.group_variants(source.pin.files)
    return tuple(one.name for one in found if one.role == "draft" and one.shards == 1)


def _no_part(_file: RemoteFile, _start: int, _end: int) -> bytes:
    raise AssertionError("a local model is not fetched")


def _part_of(request: Request, pin: Pin, file: RemoteFile, start: int, end: int) -> bytes:
    """Return a part of a file of a repository."""
    return _client(request).read(pin.repo, pin.commit, file.name, start, end) if end > start else b""


def _client(request: Request) -> HubClient:
    from llama_runner.sources.hub.client import HubClient  # noqa: PLC0415 - only for names on the Hub
    from llama_runner.sources.hub.errors import offline_error  # noqa: PLC0415

    if request.offline or request.facts.hub is None:
        raise offline_error(f"the header of {request.facts.source.name}")
    return HubClient(request.facts.hub.access())


def _candidates(source: AnySource, found: Headers, programs: Path | None, asked: str | None) -> Sequence[Candidate]:
    """Return the quantizations to choose from, the largest first: those that are there, or can be made."""
    match source:
        case HubGguf():
            return _of_repository(source)
        case LocalGguf() if source.header.facts().get("quantization") not in FLOAT:
            name = str(source.header.facts().get("quantization", "?"))
            return [Candidate(name, found.size, source.path.name)]
    plain = str(found.headers[0].facts().get("quantization", "f16"))
    names = [plain, *BITS_PER_WEIGHT]
    if asked is not None:
        names = [canonical_type(name, imatrix=True) for name in asked.split(",")]
    elements = sum(entry.elements for header in found.headers for entry in header.entries)
    sizes = {name: found.size if name == plain else _made_size(found, programs, name, elements) for name in names}
    return [Candidate(name, size) for name, size in sorted(sizes.items(), key=lambda each: -each[1]) if size]


def _of_repository(source: HubGguf) -> list[Candidate]:
    chosen = source.selection.model
    offered = [chosen]
    if not source.selection.why.startswith(("asked for", "it fits")):
        offered = [
            one
            for one in file_names.group_variants(source.pin.files)
            if one.role == chosen.role and one.base == chosen.base and not one.missing
            if one.quantization not in file_names.FOREIGN
        ]
    found = {one.label or "?": Candidate(one.label or "?", one.size, one.name) for one in offered}
    return sorted(found.values(), key=lambda each: -each.bytes)


def _measured(
    directory: Path, source: AnySource, found: Headers, programs: Path | None, chosen: Row | None, kv_bytes: int
) -> Measured | None:
    """Return what to measure: the model that the headers are of, or the chosen quantization of it."""
    if chosen is None or chosen.tokens_per_second is None:
        return None
    plain = str(found.headers[0].facts().get("quantization"))
    if isinstance(source, HubGguf) or chosen.quantization == plain:
        return Measured(directory, found, {}, found.size, kv_bytes)
    types = types_of(_dry_run(found, programs, chosen.quantization))
    return Measured(directory, found, types, chosen.bytes, kv_bytes) if types else None


def _made_size(found: Headers, programs: Path | None, name: str, elements: int) -> int:
    """Return the bytes of a quantization, by a dry run of llama-quantize; without it an estimate by bits."""
    if size := re.search(r"quant size\s*=\s*([0-9.]+) MiB", _dry_run(found, programs, name)):
        return round(float(size[1]) * (1 << 20))
    return round(elements * BITS_PER_WEIGHT.get(name, 0.0) / 8)


def _dry_run(found: Headers, programs: Path | None, name: str) -> str:
    """Return what a dry run of llama-quantize prints; an empty text without the program."""
    program = None if programs is None else programs / f"llama-quantize{EXE}"
    if program is None or not program.is_file():
        return ""
    argv: list[str | Path] = [program, "--dry-run", found.path, name]
    return try_output(argv, env=program_environment(os.environ), timeout=60) or ""
