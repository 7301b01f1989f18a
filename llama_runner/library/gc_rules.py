"""What of a store nothing needs, as a list with a reason for each. Decides only: deletes nothing, reads no clock."""

from __future__ import annotations

import re
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from llama_runner.core.immutable_values import Value, field
from llama_runner.core.sizes import size_text
from llama_runner.library.declared_models import DeclaredModels
from llama_runner.library.kept_by_lock_files import LockRoots
from llama_runner.library.list_models import role_of
from llama_runner.store import layout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from llama_runner.library.list_models import Model
    from llama_runner.library.models_kept_by_name import Kept
    from llama_runner.store.contents_of_root import Artifact, Entry, Inventory

Kind = Literal[
    "revision", "intermediate", "build", "source", "unrecorded", "description", "work", "staging", "log", "stamp",
    "lock", "empty", "evicted",
]  # fmt: skip
DAY = 86400.0
OLDER_THAN_S = 7 * DAY
"""What was used or made in this time is not freed."""


class Garbage(Value):
    """Something that may be deleted."""

    kind: Kind
    path: str
    """Below the root, with forward slashes."""
    bytes: int
    reason: str
    artifact: Artifact | None = None
    keep_record: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return it for ``gc --json``."""
        return {name: getattr(self, name) for name in ("kind", "path", "bytes", "reason")}


class Limits(Value):
    """What the user asked for, and when."""

    now: float
    older_than: float = OLDER_THAN_S
    """Seconds."""
    max_size: int | None = None
    """Bytes that the root may have."""


class Roots(Value):
    """What is needed, beside what was used lately."""

    kept: Kept
    locked: LockRoots = field(default_factory=LockRoots)
    """What lock files name."""
    declared: DeclaredModels = field(default_factory=DeclaredModels)
    """What configuration files declare."""
    servers: tuple[str, ...] = ()
    """Paths of files that running servers use."""
    logs: frozenset[str] = frozenset()
    """Names of logs that are shown."""
    current: Callable[[str], frozenset[str] | None] = field(default=lambda _repo: None)
    """Returns the commits that names of a repository stand for; None where nothing is known of it."""
    unused_builds: Callable[[], frozenset[str]] = field(default=frozenset)
    """Returns the paths, below the root, of builds that no run takes."""
    is_busy: Callable[[str], bool] = field(default=lambda _lock: False)
    """Returns whether another process holds the lock of this name."""


class Collection:
    """One look at a store. ``garbage`` is the list."""

    def __init__(self, inventory: Inventory, models: list[Model], roots: Roots, limits: Limits) -> None:
        self._inventory, self._models, self._roots, self._limits = inventory, models, roots, limits

    @cached_property
    def garbage(self) -> list[Garbage]:
        """Everything that may go, each path once: models first, then what rests on nothing, then what does not fit."""
        found = {each.path: each for each in self._of_models()}
        found |= {each.path: each for each in self._programs()}
        found |= {each.path: each for each in (*self._files(), *self._empty()) if each.path not in found}
        if self._limits.max_size is not None:
            found |= {each.path: each for each in self._evicted(found, self._limits.max_size)}
        gone = {each.path for each in found.values() if each.artifact is not None and not each.keep_record}
        found |= {each.path: each for each in self._named_after_artifacts(gone)}
        return list(found.values())

    @property
    def over(self) -> int:
        """How many bytes of artifacts are more than ``max_size`` once everything of the list is freed."""
        if self._limits.max_size is None:
            return 0
        return max(0, self._size(self.garbage) - self._limits.max_size)

    def _size(self, freed: Iterable[Garbage]) -> int:
        """Return what the artifacts take on the disk once these are freed."""
        total = sum(each.bytes or 0 for each in self._inventory.artifacts)
        return total - sum(each.bytes for each in freed if each.artifact is not None)

    def _of_models(self) -> Iterator[Garbage]:
        old = {id(model): text for model, text in self._old_revisions()}
        for model in self._free_models:
            if (text := old.get(id(model))) is not None:
                for each in model.artifacts:
                    yield Garbage("revision", each.path, each.bytes or 0, text, each)
            else:
                yield from self._intermediates(model)

    @cached_property
    def _free_models(self) -> list[Model]:
        """The models that are not protected and of which all records can be read."""
        if not self._is_ours(layout.MODELS):
            return []
        wanted = (self._roots.kept, self._roots.locked, self._roots.declared)
        free = [model for model in self._models if not (model.problems or model.servers)]
        return [model for model in free if not any(roots.has(model) for roots in wanted)]

    def _old_revisions(self) -> Iterator[tuple[Model, str]]:
        """Yield the models that newer ones of the same source replace, with the reason."""
        sources: dict[tuple[str, str], list[Model]] = {}
        for model in self._models:
            sources.setdefault((model.name, model.source), []).append(model)
        for models in sources.values():
            whole = [model for model in models if model.files]
            if len(models) < 2 or not whole:  # noqa: PLR2004 - nothing replaces it
                continue
            newest = max(whole, key=lambda model: model.made)
            named = (self._roots.current(newest.source) if newest.kind == "hf" else None) or {newest.revision}
            for model in models:
                if model is not newest and model.revision not in named and self._is_old(*model.artifacts):
                    yield model, f"old revision: {newest.name} is here at {newest.revision[:12]}"

    def _intermediates(self, model: Model) -> Iterator[Garbage]:
        """Yield what models that are there were made from."""
        made_from: dict[str, str] = {}
        for each in model.artifacts:
            if role_of(each) in ("model", "intermediate"):
                made_from |= dict.fromkeys(each.summary.inputs, each.path)
        for each in model.artifacts:
            if each.bytes is None or not self._is_old(each):
                continue
            user = made_from.get(each.summary.digest)
            if role_of(each) == "intermediate":
                text = "intermediate; it is made again when needed"
                yield Garbage("intermediate", each.path, each.bytes, text, each, keep_record=True)
            elif role_of(each) == "weights" and user is not None:
                text = f"{user.rpartition('/')[2]} is made from it; serving does not read it"
                yield Garbage("intermediate", each.path, each.bytes, text, each, keep_record=True)

    def _programs(self) -> Iterator[Garbage]:
        candidates = [each for each in self._installed if self._is_old(each) and not self._is_served(each.path)]
        builds = [each for each in candidates if each.path.startswith(f"{layout.BUILDS}/")]
        unused = self._roots.unused_builds() if builds else frozenset()
        for each in builds:
            if each.path in unused and not self._roots.locked.has_build(each):
                yield Garbage("build", each.path, each.bytes or 0, "a newer build of this backend is here", each)
        for each in candidates:
            if each.path.startswith(f"{layout.SOURCES}/") and each.bytes is not None:
                text = "builds and conversions are done; it is fetched again when needed"
                yield Garbage("source", each.path, each.bytes, text, each)

    @cached_property
    def _installed(self) -> list[Artifact]:
        parts = tuple(f"{part}/" for part in (layout.BUILDS, layout.SOURCES) if self._is_ours(part))
        directories = [each for each in self._inventory.programs if not each.problems]
        return [each for directory in directories for each in directory.artifacts if each.path.startswith(parts)]

    def _files(self) -> Iterator[Garbage]:
        """Yield what is no artifact."""
        private, days = self._inventory.private, f"{self._limits.older_than / DAY:g} days"
        yield from self._unrecorded()
        buckets = {model.directories[0].split("/")[2] for model in self._models}
        for entry in self._inventory.entries(layout.descriptions(private)):
            if entry.name not in buckets and self._is_past(entry):
                yield _entry("description", entry, "small files of a repository of which nothing is here")
        for entry in self._inventory.entries(layout.work(private)):
            if self._is_past(entry):
                yield _entry("work", entry, f"unfinished work that nothing went on with for {days}")
        for entry in self._inventory.entries(layout.staging(private)):
            if not self._roots.is_busy(entry.name):
                yield _entry("staging", entry, "left by a process that was killed")
        for entry in self._inventory.entries(self._inventory.root / layout.LOGS) if self._is_ours(layout.LOGS) else ():
            name = re.sub(r"\.log\.\d+$", ".log", entry.name)
            if name.endswith(".log") and name not in self._roots.logs and self._is_past(entry):
                yield _entry("log", entry, f"written more than {days} ago")

    def _empty(self) -> Iterator[Garbage]:
        for entry in self._inventory.empty if self._is_ours(layout.MODELS) else ():
            if self._is_past(entry):
                yield _entry("empty", entry, "empty directory")

    def _unrecorded(self) -> Iterator[Garbage]:
        """Yield files of which a process that was killed wrote no record. Other directories than ours have none."""
        for directory in self._inventory.models if self._is_ours(layout.MODELS) else ():
            if not directory.unrecorded or directory.problems or self._is_served(directory.path):
                continue
            for entry in self._inventory.entries(self._inventory.root / directory.path):
                if entry.name in directory.unrecorded and self._is_past(entry):
                    yield _entry("unrecorded", entry, "no record names it")

    def _is_ours(self, part: str) -> bool:
        """Whether a directory of the root is not one of another root, of which nothing is known here."""
        path = self._inventory.root / part
        return not (path.is_symlink() and (path.resolve().parent / layout.PRIVATE).is_dir())

    def _named_after_artifacts(self, gone: set[str]) -> Iterator[Garbage]:
        """Yield the locks and stamps that nothing needs: of artifacts that are not there, ``gone`` among them."""
        inventory = self._inventory
        left = [each for each in inventory.artifacts if each.path not in gone]
        locks = {each.summary.lock for each in left}
        locks |= {layout.state_lock_name(each.directory) for each in left}
        locks |= {layout.state_lock_name(each.path) for each in inventory.directories if each.problems}
        if any(directory.problems for directory in inventory.directories):
            return  # their keys are not known
        work = {entry.name.rpartition("-")[2] for entry in inventory.entries(layout.work(inventory.private))}
        for entry in inventory.entries(layout.locks(inventory.private)):
            stem, _, suffix = entry.name.partition(".")
            reason = None
            if suffix == "holder.json" or (not stem and self._is_past(entry)):
                reason = "left by a process that was killed"
            elif suffix == "lock" and re.fullmatch(r"file-import|bundle-(models|builds)|import-[0-9a-f]{16}", stem):
                reason = "lock of an import that has ended"
            elif suffix == "lock" and stem not in locks and re.fullmatch(r"(state-|repair-)?[0-9a-f]{16}", stem):
                reason = None if stem[:12] in work else "lock of an artifact that is gone"
            if reason is not None and not self._roots.is_busy(stem):
                yield _entry("lock", entry, reason)
        stamps = {name for each in left for name in each.stamps}
        for entry in inventory.entries(layout.last_uses(inventory.private)):
            if entry.name not in stamps and self._is_past(entry):
                yield _entry("stamp", entry, "time of the last use of an artifact that is gone")

    def _evicted(self, found: Mapping[str, Garbage], most: int) -> Iterator[Garbage]:
        """Yield what was used longest ago, until the rest fits."""
        total = self._size(found.values())
        candidates = [
            each
            for model in self._free_models
            for each in model.artifacts
            if each.bytes and each.path not in found and each.step != "import"  # nothing could make it again
        ]
        for each in sorted(candidates, key=self._used):
            if total <= most:
                return
            total -= each.bytes or 0
            text = f"used longest ago, and the store has more than {size_text(most)}"
            yield Garbage("evicted", each.path, each.bytes or 0, text, each, keep_record=True)

    def _is_served(self, path: str) -> bool:
        return any(f"/{path.rstrip('/')}/" in f"{file}/" for file in self._roots.servers)

    def _is_old(self, *artifacts: Artifact) -> bool:
        return all(self._limits.now - self._used(each) >= self._limits.older_than for each in artifacts)

    def _is_past(self, entry: Entry) -> bool:
        return self._limits.now - entry.changed >= self._limits.older_than

    def _used(self, artifact: Artifact) -> float:
        """Return when an artifact was made, served or read by a step last, in seconds since the epoch."""
        read = self._reads.get(artifact.summary.digest, 0.0)
        return max(_made(artifact), artifact.last_used or 0.0, read)

    @cached_property
    def _reads(self) -> dict[str, float]:
        """When an artifact was last an input or a tool, by its digest."""
        found: dict[str, float] = {}
        for each in self._inventory.artifacts:
            when = _made(each)
            for digest in (*each.summary.inputs, *each.summary.tools):
                found[digest] = max(found.get(digest, 0.0), when)
        return found


def _entry(kind: Kind, entry: Entry, reason: str) -> Garbage:
    return Garbage(kind, entry.path, entry.bytes, reason)


def _made(artifact: Artifact) -> float:
    """Return when an artifact was made, or imported; infinity where its record does not tell, so that it is not old."""
    text = str(artifact.summary.imported or artifact.summary.made)
    try:
        return datetime.fromisoformat(f"{text.removesuffix('Z')}+00:00").timestamp()
    except (ValueError, OverflowError):
        return float("inf")
