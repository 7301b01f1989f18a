"""Compares a lock file with the store, the programs of this machine, and the Hub. Writes nothing."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from llama_runner.core.digest import is_digest, scheme_of
from llama_runner.core.immutable_values import Value
from llama_runner.core.machine_path_removal import PATH, without_paths
from llama_runner.request import binaries_graph
from llama_runner.request.lock_differences import Difference, differences
from llama_runner.request.lock_entry import build_of, local_files
from llama_runner.request.lock_file import LockedModel, not_locked_error
from llama_runner.request.lock_models import kept_options
from llama_runner.request.resolve_request import ProgramsRequest
from llama_runner.store.contents_of_root import Inventory
from llama_runner.store.stored_file import recorded_digest, with_digest
from llama_runner.system import hardware

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from llama_runner.core.artifact_record import Record
    from llama_runner.core.events import Sink
    from llama_runner.request.lock_file import LockFile
    from llama_runner.request.plan_and_execute import Preparation
    from llama_runner.store.artifacts import Store
    from llama_runner.store.contents_of_root import Artifact


class CheckedModel(Value):
    """The comparison of one model of a lock file."""

    name: str
    differences: tuple[Difference, ...]
    """Fields that differ in the store or in the programs of this machine."""
    missing: tuple[str, ...]
    """Steps whose artifact is absent; that is no drift."""
    hub: dict[str, str] | None
    """``revision``, ``locked`` and ``now``, where the Hub was asked."""

    @property
    def drifted(self) -> bool:
        """Whether anything differs."""
        return bool(self.differences) or (self.hub is not None and self.hub["locked"] != self.hub["now"])

    def to_json(self) -> dict[str, Any]:
        """Return it for ``lock --check --json``."""
        return {
            "name": self.name,
            "drifted": self.drifted,
            "differences": [each.to_json() for each in self.differences],
            "missing": list(self.missing),
            "hub": self.hub,
        }


class LockCheck(Value):
    """The comparison of a lock file."""

    file: Path
    models: tuple[CheckedModel, ...]

    @property
    def drifted(self) -> bool:
        """Whether any model differs."""
        return any(model.drifted for model in self.models)

    def to_json(self) -> dict[str, Any]:
        """Return the document of ``lock --check --json``."""
        return {
            "file": str(self.file),
            "drifted": self.drifted,
            "models": [each.to_json() for each in self.models],
        }


class LockChecker:
    """Compares the models of a lock file with one root and with the Hub."""

    def __init__(self, store: Store, sink: Sink, preparation: Preparation, *, offline: bool) -> None:
        self._store, self._sink, self._preparation, self._offline = store, sink, preparation, offline

    def check(self, lock: LockFile, names: Iterable[str]) -> LockCheck:
        """Compare the models of these names, or all; ``SourceError`` for a name that the file does not have."""
        chosen = list(lock.models.values())
        if names := list(names):
            for name in names:
                if name not in lock.models:
                    raise not_locked_error(lock.path, name, lock.models)
            chosen = [lock.models[name] for name in dict.fromkeys(names)]
        inventory = Inventory(self._store.root)
        for warning in inventory.warnings(inventory.models):
            self._sink(warning)
        artifacts = [each for one in inventory.models for each in one.artifacts]
        return LockCheck(lock.path, tuple(self._check(lock.path, each, artifacts) for each in chosen))

    def _check(self, file: Path, locked: LockedModel, artifacts: list[Artifact]) -> CheckedModel:
        found: list[Difference] = []
        missing = []
        for label, step in locked.entry["steps"].items():
            digests = [self._digest(each, step["digest"]) for each in _alike(locked, label, step, artifacts)]
            if step["digest"] not in digests:
                found += [Difference(f"steps.{label}.digest", step["digest"], each) for each in dict.fromkeys(digests)]
            if not digests:
                missing.append(label)
        found += self._build(file, locked)
        return CheckedModel(locked.name, tuple(found), tuple(missing), self._hub(locked))

    def _digest(self, artifact: Artifact, locked: str) -> str:
        """Return the digest of an artifact in the scheme of the locked one; the locked one if it is not known."""
        record, scheme = artifact.record, scheme_of(locked)
        if artifact.bytes is not None:
            record = with_digest(self._store, artifact.place, record, scheme, remember=False)
        return str(recorded_digest(record, scheme) or locked)

    def _build(self, file: Path, locked: LockedModel) -> Iterator[Difference]:
        """Yield how the programs that a run would take here differ from the locked ones."""
        about = {name: value for name, value in kept_options(file, locked).items() if name in _PROGRAMS}
        if PATH in str(about):
            return  # which source tree, patch or archive was meant is not known
        request = ProgramsRequest({**about, "offline": self._offline}, store=self._store, sink=self._sink)  # type: ignore[typeddict-item]  # checked there
        programs = binaries_graph.programs_graph_of(request)
        here = build_of(programs.node, self._preparation.plan(request, programs))
        yield from differences({"build": locked.entry["build"]}, {"build": {hardware.platform_tag(): here}})

    def _hub(self, locked: LockedModel) -> dict[str, str] | None:
        """Return what the locked revision is on the Hub now; None for what cannot move."""
        revision = locked.source.get("revision")
        if self._offline or locked.commit is None or revision is None or locked.commit.startswith(revision):
            return None
        from llama_runner.core.events import Noticed  # noqa: PLC0415 - only for the Hub
        from llama_runner.sources.hub.client import HubClient  # noqa: PLC0415
        from llama_runner.sources.hub.endpoint_and_token import find_access  # noqa: PLC0415

        def notice(what: str, text: str) -> None:
            self._sink(Noticed(what, text))

        client = HubClient(find_access(os.environ, token_file=None, notice=notice), notice=notice)
        return {"revision": revision, "locked": locked.commit, "now": client.pin(locked.ref, revision).commit}


_PROGRAMS = ("device", "binaries", "sha256", "source", "patches", "build_type", "cmake_args", "cflags", "cxxflags")


def _alike(
    locked: LockedModel, label: str, step: Mapping[str, Any], artifacts: Iterable[Artifact]
) -> Iterator[Artifact]:
    """Yield the artifacts that were made by the same recipe of the same source as a step of an entry."""
    kind = label.partition(" ")[0]
    is_same: Callable[[Record], bool] = (
        (lambda record: record.source.get("revision") == locked.commit)
        if locked.commit is not None
        else lambda record: _is_local_source(locked, record)
    )
    for artifact in artifacts:
        recipe = artifact.record.recipe
        params = {
            name: value for name, value in recipe.get("params", {}).items() if name != "files" or not locked.commit
        }
        if (recipe.get("step"), recipe.get("version")) != (kind, step.get("version")):
            continue
        given = recipe.get("inputs", {})
        same_inputs = all(_may_be_same(given.get(name), digest) for name, digest in step.get("inputs", {}).items())
        if same_inputs and without_paths(params) == step.get("params") and is_same(artifact.record):
            yield artifact


def _may_be_same(here: object, locked: object) -> bool:
    """Whether two digests are equal, or cannot be compared because of their schemes."""
    if is_digest(here) and is_digest(locked) and scheme_of(str(here)) != scheme_of(str(locked)):
        return True
    return here == locked


def _is_local_source(locked: LockedModel, record: Record) -> bool:
    if not isinstance(record.source.get("files"), dict):
        return False
    return local_files(record.source) == locked.source.get("files")
