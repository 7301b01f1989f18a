"""Writes lock files: prepares each model, and writes down what it resolved to, was made by and became."""

from __future__ import annotations

import hashlib
import os
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from llama_runner.core.errors import StoreError, UsageError
from llama_runner.core.immutable_values import Value
from llama_runner.core.machine_path_removal import PATH, without_paths
from llama_runner.request.lock_differences import UNKNOWN, differences
from llama_runner.request.lock_entry import step_labels
from llama_runner.request.lock_file import (
    NAME,
    LockedModel,
    LockFile,
    bad_lock_file_error,
    in_order,
    not_locked_error,
    read_lock_file,
)
from llama_runner.request.lock_names import lock_name, ref_of
from llama_runner.request.model_and_build_options import (
    ARTIFACTS,
    BUILD,
    CONVERSION,
    HUB,
    MODEL,
    PROGRAMS,
    QUANTIZATION,
)
from llama_runner.request.pipeline_graph import graph_of
from llama_runner.request.request_keywords import checked
from llama_runner.request.resolve_request import Request, with_demo
from llama_runner.sources.local import LocalGguf, LocalSafetensors
from llama_runner.sources.resolve_source import open_source
from llama_runner.store import layout
from llama_runner.store.errors import NO_ROOM, as_store_error
from llama_runner.store.gc_files_in_use import remember_file
from llama_runner.system import hardware
from llama_runner.system.files import try_writing, write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from llama_runner.core.events import Sink
    from llama_runner.engine.plan_outcome import Outcome
    from llama_runner.request.lock_differences import Difference
    from llama_runner.request.lock_names import NamedSource
    from llama_runner.request.pipeline_graph import Pipeline
    from llama_runner.request.plan_and_execute import Preparation
    from llama_runner.request.request_keywords import RunnerKeywords
    from llama_runner.store.artifacts import Store

_OF_LOCK = ("update", "locked", "lock_file")
_NOT_KEPT = {
    *("hf_model", "gguf_path", "safetensors_dir", "demo"),  # the name says it
    *("update", "offline", "token_file"),  # about this call
    "trust_remote_code",  # consent is not stored
    *("keep_f16", "jobs", "check"),  # they change no bytes
}
KEPT = tuple(
    option.name
    for option in (*MODEL, *HUB, *CONVERSION, *QUANTIZATION, *PROGRAMS, *BUILD)
    if option.name not in _NOT_KEPT
)
"""The options that a lock file keeps, so that ``lock --update NAME`` means the same again."""
_DEFAULTS = {option.name: option.default for option in ARTIFACTS}


def kept_options(file: Path, locked: LockedModel) -> dict[str, Any]:
    """Return the options that a model was locked with; ``UsageError`` with the name of the file for a wrong value."""
    kept = {name: value for name, value in locked.options.items() if name in KEPT}
    try:
        checked(cast("RunnerKeywords", dict(kept)))
    except UsageError as error:
        raise bad_lock_file_error(file, f"{locked.name}: options: {error}") from None
    return kept


class LockedNow(Value):
    """The result of locking one model."""

    name: str
    action: str
    """``locked``, ``updated``, ``unchanged``, or ``platform added``."""
    changed: tuple[Difference, ...] = ()
    """The fields that an update changed."""

    def to_json(self) -> dict[str, Any]:
        """Return it for ``lock --json``."""
        return {"name": self.name, "action": self.action, "changed": [each.to_json() for each in self.changed]}


class LockResult(Value):
    """The result of ``lock``."""

    file: Path
    models: tuple[LockedNow, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the document of ``lock --json``."""
        return {"file": str(self.file), "models": [each.to_json() for each in self.models]}


def needs_paths_error(name: str, options: list[str]) -> UsageError:
    """Return the error for a model that was locked with files, which a lock file does not name."""
    flags = " and ".join(f"--{option.replace('_', '-')}" for option in options)
    text = f"{name} was locked with {flags}, whose paths are not in the lock file"
    return UsageError(text, hint=f"give {flags} again")


class Locker:
    """Locks models of one root in one file."""

    def __init__(self, preparation: Preparation, store: Store, sink: Sink, file: str | Path | None) -> None:
        """``file`` defaults to ``llama-runner.lock`` in the working directory."""
        self._preparation, self._store, self._sink = preparation, store, sink
        self.file = Path(NAME).absolute() if file is None else layout.user_path(file).absolute()

    def lock(self, requests: Iterable[tuple[str | Path | None, RunnerKeywords]]) -> LockResult:
        """Lock models with their options, each written as soon as it is made; return what was done.

        A model that is locked already stays as it is; with ``update`` it is resolved and made anew, with the options
        that it was locked with.
        """
        self._read()  # a damaged file is told before anything is made
        done = []
        for model, keywords in requests:
            given = checked({name: value for name, value in keywords.items() if name not in _OF_LOCK})
            done.append(self._lock(model, given, update=keywords.get("update", False)))
        return LockResult(self.file, tuple(done))

    def _lock(self, model: str | Path | None, keywords: RunnerKeywords, *, update: bool) -> LockedNow:
        given, named = with_demo(model, keywords)
        source = open_source(
            given,
            hf_model=named.get("hf_model"),
            gguf_path=named.get("gguf_path"),
            safetensors_dir=named.get("safetensors_dir"),
            demo=named.get("demo", False),
        )
        name, lock = lock_name(source, named), self._read()
        before = lock.models.get(name)
        if update and before is None:
            before = self._to_update(lock, name, source)
        if before is None:
            entry = self._make(model, keywords)
            self._write(LockedModel(name, entry))
            return LockedNow(name, "locked")
        if not update:
            return self._add_platform(model, keywords, before)
        merged = self._with_options_of(before, keywords)
        if not isinstance(source, (LocalGguf, LocalSafetensors)):
            merged["update"] = True
        entry = self._make(model, merged)
        changed = tuple(differences(before.entry, entry))
        entry["build"] = {**before.entry["build"], **entry["build"]}
        name = lock_name(source, with_demo(model, merged)[1])
        self._write(LockedModel(name, entry), instead_of=before.name)
        return LockedNow(name, "updated" if changed else "unchanged", changed)

    def _to_update(self, lock: LockFile, name: str, source: NamedSource) -> LockedModel:
        if not lock.models:
            raise not_locked_error(self.file, name, ())
        return lock.find(name, ref_of(source))

    def _add_platform(self, model: str | Path | None, keywords: RunnerKeywords, before: LockedModel) -> LockedNow:
        """Add the programs of this platform to an entry that has those of others only."""
        here = hardware.platform_tag()
        if here in before.entry["build"]:
            if before.commit is None:  # another model may have the same name
                self._check(model, keywords, before)
            remember_file(layout.lock_files(self._store.private), self.file)
            return LockedNow(before.name, "unchanged")
        free = LockedModel(before.name, {**before.entry, "build": {here: UNKNOWN}})
        entry = self._make(model, self._with_options_of(before, keywords), free)
        build = {**before.entry["build"], here: entry["build"][here]}
        self._write(LockedModel(before.name, {**before.entry, "build": build}))
        return LockedNow(before.name, "platform added")

    def _check(self, model: str | Path | None, keywords: RunnerKeywords, before: LockedModel) -> None:
        """Raise ``LockDiffers`` if a local model is not the locked one."""
        given = self._with_options_of(before, keywords)
        request = Request(model, given, store=self._store, sink=self._sink, remember=False, locked=before)
        self._preparation.plan(request, graph_of(request))

    def _with_options_of(self, before: LockedModel, keywords: RunnerKeywords) -> RunnerKeywords:
        """Return the options that a model was locked with, and over them those that are given now."""
        given = {name: value for name, value in keywords.items() if value != _DEFAULTS.get(name)}
        kept = {name: value for name, value in kept_options(self.file, before).items() if name not in given}
        if unknown := sorted(name for name, value in kept.items() if PATH in str(value)):
            raise needs_paths_error(before.name, unknown)
        return checked({**kept, **given})

    def _make(
        self, model: str | Path | None, keywords: RunnerKeywords, locked: LockedModel | None = None
    ) -> dict[str, Any]:
        """Prepare a model and return its entry. Where the file could not be written, nothing is made."""
        with _write_errors(self.file):
            try_writing(self.file.resolve().parent)
        resolve = partial(Request, model, keywords, store=self._store, sink=self._sink, remember=True, locked=locked)
        graph, plan, outcome = self._preparation.make(resolve, graph_of)
        given = checked(with_demo(model, keywords)[1])
        kept = {name: value for name, value in given.items() if name in KEPT}
        return {
            **_known(self._preparation.locked_form(graph, plan, outcome)),
            "options": without_paths(
                {
                    name: str(value) if isinstance(value, os.PathLike) else value
                    for name, value in kept.items()
                    if value != _DEFAULTS[name]
                }
            ),
            "tools": self._tools(graph, outcome),
        }

    def _tools(self, graph: Pipeline, outcome: Outcome) -> dict[str, Any]:
        """Return what made each artifact: it is written down, and not compared."""
        found: dict[str, Any] = {}
        for step, label in step_labels(graph).items():
            record = self._store.record(outcome.places[step]) if step in outcome.places else None
            if record is not None:
                found[label] = without_paths({"by": str(record.made.get("by")), **_noted(record.noted)})
        return found

    def _read(self) -> LockFile:
        try:
            return read_lock_file(self.file)
        except FileNotFoundError:
            return LockFile(self.file)

    def _write(self, model: LockedModel, *, instead_of: str | None = None) -> None:
        """Set one entry; another process may have written others meanwhile."""
        from filelock import FileLock  # noqa: PLC0415 - only to write

        model = LockedModel(model.name, in_order(model.entry))
        digits = hashlib.sha256(os.fsencode(self.file)).hexdigest()[:16]
        lock = layout.lock_file(self._store.private, f"lock-file-{digits}")
        with ExitStack() as stack:
            with suppress(OSError):  # a root that cannot be written has no locks
                lock.parent.mkdir(parents=True, exist_ok=True)
                stack.enter_context(FileLock(lock))
            content = self._read().with_model(model, instead_of=instead_of).format()
            with _write_errors(self.file):
                write_atomically(self.file.resolve(), content, durable=True)
        remember_file(layout.lock_files(self._store.private), self.file)


@contextmanager
def _write_errors(file: Path) -> Iterator[None]:
    """Turn an ``OSError`` while a lock file is written into a ``StoreError``."""
    try:
        yield
    except OSError as error:
        if error.errno in NO_ROOM:
            raise as_store_error(error, file) from error
        why = error.strerror or str(error)
        raise StoreError(f"cannot write {file}: {why}", hint="name another place with --lock-file") from error


def _known(form: Any) -> Any:  # noqa: ANN401 - JSON
    """Return a form without what is not known."""
    if isinstance(form, dict):
        return {name: _known(item) for name, item in form.items() if item is not UNKNOWN}
    return form


def _noted(noted: Mapping[str, Any]) -> dict[str, str]:
    """Return the tools of a record as texts."""
    found = {}
    for name, value in noted.items():
        if isinstance(value, dict) and ("digest" in value or "name" in value):
            found[name] = str(value.get("digest") or f"{value['name']} {value.get('version', '')}".rstrip())
    return found
