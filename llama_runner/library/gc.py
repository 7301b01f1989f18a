"""Deletes what is safe to remove. ``gc_rules`` makes the list."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from llama_runner.core.errors import StoreError
from llama_runner.core.immutable_values import Value, field
from llama_runner.library.artifacts_in_use import UseCheck, served_files
from llama_runner.library.declared_models import DeclaredModels
from llama_runner.library.gc_rules import Collection, Garbage, Limits, Roots
from llama_runner.library.kept_by_lock_files import lock_roots
from llama_runner.library.list_models import models_of
from llama_runner.library.models_kept_by_name import kept_models
from llama_runner.serving import server_registry
from llama_runner.store import layout, process_locks, removal
from llama_runner.store.contents_of_root import Inventory
from llama_runner.store.errors import as_store_error
from llama_runner.store.record_summaries import SummaryCache
from llama_runner.system.utc_time import utc_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from llama_runner.core.events import Sink
    from llama_runner.llama_cpp.installed_builds import BuildStore
    from llama_runner.store.artifacts import Store

_LOCK = "gc"


class Collected(Value):
    """What can be deleted, or was."""

    garbage: tuple[Garbage, ...]
    applied: bool
    left: dict[str, str] = field(default_factory=dict)
    """Why something was not deleted, by path."""
    over: int = 0
    """Bytes that the artifacts have more than ``max_size`` allows, where that cannot be reached."""

    @property
    def bytes(self) -> int:
        """What is freed, or would be."""
        return sum(each.bytes for each in self.garbage if each.path not in self.left)

    def to_json(self) -> dict[str, Any]:
        """Return the document of ``gc --json``."""
        return {
            "applied": self.applied,
            "bytes": self.bytes,
            "garbage": [each.to_json() for each in self.garbage],
            "left": self.left,
            **({"over": self.over} if self.over else {}),
        }


class Collector:
    """Deletes what is safe to remove under one root. ``builds`` returns the installed builds."""

    def __init__(
        self,
        store: Store,
        sink: Sink,
        builds: Callable[[], BuildStore],
        lock_timeout: float,
        declared: Callable[[], DeclaredModels] = DeclaredModels,
    ) -> None:
        """``declared`` returns what configuration files declare."""
        self._store, self._sink, self._builds, self._lock_timeout = store, sink, builds, lock_timeout
        self._declared = declared

    def look(self, *, older_than: float, max_size: int | None) -> Collected:
        """Return what would be deleted. Writes nothing."""
        found = self._collection(older_than, max_size)
        return Collected(tuple(found.garbage), applied=False, over=found.over)

    def collect(self, *, older_than: float, max_size: int | None) -> Collected:
        """Delete it, and return what was deleted and what was left. One process at a time does this.

        Raises ``StoreError``, also if the store cannot be written.
        """
        path = layout.lock_file(self._store.private, _LOCK)
        if not self._store.root.is_dir():
            return Collected((), applied=True)
        try:
            with process_locks.hold(path, "gc", self._sink, timeout=self._lock_timeout):
                server_registry.forget_ended(layout.servers(self._store.private))
                found = self._collection(older_than, max_size)
                garbage, over = found.garbage, found.over
                left = self._free(garbage)
                taken = {each.path for each in garbage}  # locks that were taken for this are garbage too
                more = [each for each in self._collection(older_than, max_size).garbage if each.kind == "lock"]
                left |= self._free(more)
                garbage += [each for each in more if each.path not in taken]
        except OSError as error:
            raise as_store_error(error, self._store.root) from error
        return Collected(tuple(garbage), applied=True, left=left, over=over)

    def _collection(self, older_than: float, max_size: int | None) -> Collection:
        private = self._store.private
        inventory = Inventory(self._store.root, SummaryCache(private))
        for warning in inventory.warnings(inventory.directories):
            self._sink(warning)
        roots = Roots(
            kept=kept_models(private),
            locked=lock_roots(private, self._sink),
            declared=self._declared(),
            servers=tuple(served_files(private)),
            logs=frozenset(server_registry.logs_in_use(layout.servers(private))),
            current=self._current,
            unused_builds=self._unused_builds,
            is_busy=self._is_busy,
        )
        limits = Limits(time.time(), older_than, max_size)
        return Collection(inventory, models_of(inventory), roots, limits)

    def _current(self, repo: str) -> frozenset[str] | None:
        from llama_runner.sources.hub.pins import open_pins  # noqa: PLC0415 - only where there are two revisions

        pins = open_pins(self._store.private, self._sink)
        return frozenset(pins.read(repo).names.values()) or None

    def _unused_builds(self) -> frozenset[str]:
        unused = self._builds().unused()
        return frozenset(build.path.relative_to(self._store.root).as_posix() for build in unused)

    def _is_busy(self, name: str) -> bool:
        try:
            return process_locks.is_held(layout.lock_file(self._store.private, name))
        except FileNotFoundError:
            return False
        except OSError:  # not ours to lock
            return True

    def _free(self, garbage: Iterable[Garbage]) -> dict[str, str]:
        """Free one after the other; return why some were left."""
        left: dict[str, str] = {}
        for each in garbage:
            try:
                self._free_one(each)
            except StoreError as error:
                left[each.path] = str(error)
            except OSError as error:
                left[each.path] = str(as_store_error(error, self._store.root))
        return left

    def _free_one(self, garbage: Garbage) -> None:
        path, private = self._store.root / garbage.path, self._store.private
        if garbage.kind == "build":
            self._builds().remove(f"{path.parent.name}/{path.name}")
        elif (artifact := garbage.artifact) is not None:
            keep = artifact.record if garbage.keep_record else None
            if keep is not None and garbage.kind == "evicted":
                keep = keep.replace(made={**keep.made, "freed": utc_text()})
            check = UseCheck(self._store, artifact)
            removal.remove(self._store, artifact.place, artifact.record, check=check, keep=keep)
            self._remove_empty(path.parent)  # what holds the shards of a model
        elif garbage.kind == "staging":
            removal.discard_locked(path, layout.lock_file(private, path.name))
        elif garbage.kind == "work":
            self._discard_work(garbage)
        elif garbage.kind == "lock":
            removal.unlink_lock(path)
        elif garbage.kind == "empty":
            self._remove_empty(path)
        elif garbage.kind == "description":
            from shutil import rmtree  # noqa: PLC0415 - only here

            rmtree(path)
        else:
            path.unlink(missing_ok=True)

    def _remove_empty(self, directory: Path) -> None:
        """Remove a directory of models, and those that hold it, as far as nothing is in them."""
        models = self._store.root / layout.MODELS
        with suppress(OSError):
            while directory != models and models in directory.parents:
                directory.rmdir()
                directory = directory.parent

    def _discard_work(self, garbage: Garbage) -> None:
        """Delete unfinished work, unless the step runs now. Its name has the first digits of the key."""
        path, private = self._store.root / garbage.path, self._store.private
        key = path.name.rpartition("-")[2]
        found = list(layout.locks(private).glob(f"{key}*.lock")) or [layout.lock_file(private, key)]
        if not removal.discard_locked(path, found[0]):
            raise removal.InUse(f"{garbage.path} is being worked on by {process_locks.describe_holder(found[0])}")
        if len(found[0].stem) != 16:  # noqa: PLR2004 - made here
            found[0].unlink(missing_ok=True)
