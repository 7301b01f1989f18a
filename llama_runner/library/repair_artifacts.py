"""Makes or fetches damaged artifacts again: exactly what their records describe, under the same key."""

from __future__ import annotations

import os
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from llama_runner.core.digest import short_hash
from llama_runner.core.errors import LlamaRunnerError, StoreError
from llama_runner.core.events import Noticed, Sink
from llama_runner.core.plan import Snapshot
from llama_runner.core.step import Step, step_key
from llama_runner.engine.executor import Executor
from llama_runner.engine.observer import Observer
from llama_runner.library.list_models import LOCAL
from llama_runner.library.verify import Verifier
from llama_runner.library.verify_rules import find_remote, is_compiled_module, published_digests
from llama_runner.request.binaries_graph import programs_graph_of
from llama_runner.request.pipeline_graph import Pipeline, graph_of
from llama_runner.request.plan_and_execute import Preparation
from llama_runner.request.resolve_request import ProgramsRequest, Request
from llama_runner.sources.hub.client import HubClient
from llama_runner.sources.hub.endpoint_and_token import find_access
from llama_runner.sources.hub.errors import offline_error
from llama_runner.sources.hub.hf_cache import find_cached
from llama_runner.sources.hub.pins import Pin, RemoteFile, open_pins
from llama_runner.steps.download import Download, DownloadProjector, Hub
from llama_runner.store import layout, process_locks, removal
from llama_runner.store.local_sources import LocalSources
from llama_runner.system.network_settings import is_offline

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from llama_runner.core.artifact_record import Record
    from llama_runner.request.binaries_graph import Programs
    from llama_runner.request.request_keywords import RunnerKeywords
    from llama_runner.sources.hub.endpoint_and_token import Access
    from llama_runner.store.artifacts import Store
    from llama_runner.store.contents_of_root import Artifact

_ORDER = ("fetch", "unpack", "download", "projector", "convert", "imatrix", "quantize")
"""Steps whose output others read come first."""
_FLAGS = ("--allow-requantize", "--leave-output-tensor", "--pure", "--keep-split")


def unknown_recipe_error(artifact: Artifact) -> StoreError:
    """The options that an artifact was made with do not follow from its record."""
    return StoreError(
        f"{artifact.path} cannot be made again from its record alone",
        hint="run the command that made it with --force-step " + (artifact.step or "STEP"),
    )


def only_imported_error(artifact: Artifact) -> StoreError:
    """An imported file has no other source than the one that it was imported from."""
    return StoreError(f"{artifact.path} was imported, and cannot be made again", hint="import it again: models import")


def in_repair_order(artifacts: Iterable[Artifact]) -> list[Artifact]:
    """Return artifacts in an order in which each is made from what is repaired already."""
    return sorted(artifacts, key=lambda each: _ORDER.index(each.step) if each.step in _ORDER else len(_ORDER))


class Repair:
    """Repairs artifacts of one store."""

    def __init__(self, store: Store, sink: Sink, lock_timeout: float, *, offline: bool = False) -> None:
        self._store, self._sink, self._lock_timeout = store, sink, lock_timeout
        self._offline = offline or is_offline(os.environ)

    def repair(self, artifact: Artifact, damaged: frozenset[str]) -> str:
        """Make an artifact again, of which these files are damaged; return how. Raises a ``LlamaRunnerError``.

        Other files of a download are used as they are. The damaged bytes stay until the new ones are complete. One
        process at a time repairs an artifact.
        """
        lock = layout.lock_file(self._store.private, f"repair-{short_hash(artifact.record.key, 16)}")
        with process_locks.hold(lock, "verify --repair", self._sink, timeout=self._lock_timeout):
            if self._is_repaired(artifact):
                return "another process repaired it"
            return self._repair(artifact, damaged)

    def _is_repaired(self, artifact: Artifact) -> bool:
        """Whether the artifact was published again since its record was read, and is as recorded now."""
        record = self._store.record(artifact.place)
        if record is None or record == artifact.record:
            return False
        return not Verifier(self._store, lambda _event: None).run([artifact.with_record(record)], "last").problems

    def _repair(self, artifact: Artifact, damaged: frozenset[str]) -> str:
        if artifact.record.made.get("kept") is False:
            removal.remove(self._store, artifact.place, artifact.record, keep=artifact.record)
            return "it was deleted; it is made again when needed"
        if self._without_compiled(artifact, damaged):
            return "it was deleted"
        if artifact.step == "import":
            raise only_imported_error(artifact)
        is_download = bool(published_digests(artifact))
        if is_download:
            self._execute(self._download(artifact, damaged))
        else:
            self._make(artifact)
        now = self._store.record(artifact.place)
        if now is None or now.key != artifact.record.key:
            raise unknown_recipe_error(artifact)
        what = "fetched" if is_download else "made"
        same = "" if now.digest == artifact.record.digest else "; its bytes are others than before, as a tool changed"
        return f"it was {what} again{same}"

    def _without_compiled(self, artifact: Artifact, damaged: frozenset[str]) -> bool:
        """Delete modules that Python compiled; return whether the directory is as recorded then.

        It changes nothing if another file is damaged too.
        """
        recorded = artifact.record.facts.get("files") or ()
        if not damaged or not all(is_compiled_module(name) and name not in recorded for name in damaged):
            return False
        for file in (self._store.path(artifact.place) / name for name in damaged):
            file.unlink(missing_ok=True)
            with suppress(OSError):
                file.parent.rmdir()
        return not Verifier(self._store, lambda _event: None).run([artifact], "last").problems

    def _execute(self, step: Step) -> None:
        sources = LocalSources(self._store, remember=True, inspect=lambda _source: None)
        observer = Observer(self._store, sources)
        plan = observer.plan([step], Snapshot({}, frozenset({step.kind})))
        Executor(self._store, observer, self._sink, lock_timeout=self._lock_timeout).execute(plan)

    def _download(self, artifact: Artifact, damaged: frozenset[str]) -> Download:
        """Return the step that fetches the damaged files of a download, and takes the others as they are."""
        record, published = artifact.record, published_digests(artifact)
        pin = self._pin(str(record.source.get("ref")), str(record.source.get("revision")))
        found = {name: find_remote(pin, name, digest) for name, digest in published.items()}
        remote = tuple(file for file in found.values() if file is not None)
        if not remote or len(remote) < len(found):
            raise unknown_recipe_error(artifact)
        names = {file.name: name for name, file in found.items() if file is not None}
        kind = Download if artifact.step == "download" else DownloadProjector
        hub = Hub(pin, self._access, lambda file: self._candidates(pin, file, artifact, names[file.name], damaged))
        step = kind(tuple(published.items()), artifact.place.name, artifact.directory, remote, hub)
        if step_key(step, {}) != record.key:
            raise unknown_recipe_error(artifact)
        self._link_healthy(
            artifact, {names[file.name]: file.name for file in remote if names[file.name] not in damaged}
        )
        return step

    def _link_healthy(self, artifact: Artifact, names: Mapping[str, str]) -> None:
        """Link files of a directory to where a download is resumed: they need no space there."""
        key = artifact.record.key
        work, lock = self._store.work(artifact.step, key), layout.lock_file(self._store.private, short_hash(key, 16))
        for name, remote in names.items() if artifact.is_tree else ():
            with suppress(OSError), process_locks.try_hold(lock) as held:  # else they are found while the step runs
                if held:
                    (work / remote).parent.mkdir(parents=True, exist_ok=True)
                    os.link(self._store.root / artifact.path / name, work / remote)

    def _candidates(
        self, pin: Pin, file: RemoteFile, artifact: Artifact, name: str, damaged: frozenset[str]
    ) -> Iterator[Path]:
        """Yield files on this machine that may hold these bytes; each is hashed before it is used."""
        path = self._store.root / artifact.path
        if artifact.is_tree and name not in damaged:
            yield path / name
        described = layout.descriptions(self._store.private) / pin.artifact_directory / file.name
        if described.is_file():
            yield described
        bad = {path / each if artifact.is_tree else path for each in damaged}
        if file.sha256 is not None:
            here = self._store.find_downloads(file.sha256, pin.revisions_pattern)
            yield from (each for each in here if each not in bad)
        if cached := find_cached(pin, file, os.environ):
            yield cached

    def _pin(self, repo: str, commit: str) -> Pin:
        known = open_pins(self._store.private, self._sink)
        if (pin := known.read(repo).pins.get(commit)) is not None:
            return pin
        if self._offline:
            raise offline_error(f"{repo} at {commit[:12]}")
        return HubClient(self._access(), notice=self._notice).pin(repo, commit)

    def _access(self) -> Access:
        if self._offline:
            raise offline_error("what is damaged")
        return find_access(os.environ, token_file=None, notice=self._notice)

    def _notice(self, what: str, text: str) -> None:
        self._sink(Noticed(what, text))

    def _make(self, artifact: Artifact) -> None:
        """Run the step of an artifact again, in the graph of a request that has it."""
        preparation: Any = Preparation(self._store, self._sink, lock_timeout=self._lock_timeout)  # of either graph
        is_model = artifact.directory.startswith(layout.MODELS)
        build: Any = graph_of if is_model else programs_graph_of
        for keywords in _keywords(artifact, self._store):
            try:
                request = self._request(keywords, is_model=is_model)
                graph = build(request)
                plan = Preparation(self._store, lambda _event: None, lock_timeout=0).plan(request, graph)
            except LlamaRunnerError:
                continue
            wanted = [planned for planned in plan.steps if planned.key == artifact.record.key]
            if not any(planned.place == artifact.place for planned in wanted):
                continue
            kind = wanted[0].step.kind
            resolve = partial(self._request, keywords, is_model=is_model, force=(kind,))
            preparation.make(resolve, build, lambda graph: self._step(graph, artifact))
            return
        raise unknown_recipe_error(artifact)

    def _step(self, graph: Pipeline | Programs, artifact: Artifact) -> list[Step]:
        """Return the step of a graph that makes an artifact."""
        request_plan = Observer(self._store, LocalSources(self._store, remember=False, inspect=lambda _source: None))
        plan = request_plan.plan(graph.targets, Snapshot())
        return [planned.step for planned in plan.steps if planned.place == artifact.place]

    def _request(self, keywords: dict[str, Any], *, is_model: bool, force: tuple[str, ...] = ()) -> ProgramsRequest:
        """Resolve a request that may have made an artifact, with the steps to force."""
        given = cast("RunnerKeywords", {**keywords, "offline": self._offline, "force": force})
        if is_model:
            return Request(None, given, store=self._store, sink=self._sink, remember=True)
        return ProgramsRequest(given, store=self._store, sink=self._sink)


def _keywords(artifact: Artifact, store: Store) -> Iterator[dict[str, Any]]:
    """Yield the options that may have made an artifact, as far as records have them."""
    recipe, params = artifact.record.recipe, _params(artifact.record)
    if not artifact.directory.startswith(layout.MODELS):
        yield {}
        yield {"device": str(params.get("backend", "auto")), "binaries": "build"}
        return
    source = _source_keywords(artifact)
    if artifact.step != "quantize":
        found = {**source, "outtype": params.get("outtype", "auto"), "quantization": "auto"}
        yield {**found, "pre_tokenizer": params.get("pre_tokenizer")}
        yield {**found, "converter": "official", "trust_remote_code": bool(params.get("trusted"))}
        return
    found = {**source, "quantization": params.get("type"), **_tuning(params.get("tuning"))}
    records = store.records(store.root / artifact.directory).values()
    bases = [_params(each) for each in records if each.digest == recipe.get("inputs", {}).get("model")]
    for base in bases or [{}]:  # several conversions may have given the same bytes
        named = {name: base[name] for name in ("outtype", "pre_tokenizer") if base.get(name)}
        yield {**found, **named}
        yield {**found, **named, "converter": "official", "trust_remote_code": bool(base.get("trusted"))}


def _params(record: Record) -> dict[str, Any]:
    found = record.recipe.get("params", {})
    return found if isinstance(found, dict) else {}


def _source_keywords(artifact: Artifact) -> dict[str, Any]:
    source = artifact.record.source
    ref, kind = str(source.get("ref")), source.get("kind")
    if kind == "hf":
        return {"hf_model": f"{ref}@{source.get('revision')}"}
    if f"/{LOCAL}demo__" in artifact.directory and Path(ref).parts[-2:] == ("demo", "model"):
        return {"demo": True}
    return {"gguf_path" if kind == "gguf" else "safetensors_dir": ref}


def _tuning(words: object) -> dict[str, Any]:
    """Return the options of quantization whose arguments a record has."""
    left = [str(word) for word in words] if isinstance(words, list) else []
    found: dict[str, Any] = {}
    rules = []
    while left:
        word = left.pop(0)
        name = word.removeprefix("--").replace("-", "_")
        if word in _FLAGS:
            found[name] = True
        elif word == "--tensor-type" and left:
            rules.append(left.pop(0))
        elif left:
            found[name] = left.pop(0)
    return {**found, "tensor_types": tuple(rules)} if rules else found
