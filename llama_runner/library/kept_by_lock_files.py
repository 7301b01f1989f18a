"""The artifacts and builds that the lock files used with a root name; ``gc`` keeps them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_runner.core.errors import StoreError, UsageError
from llama_runner.core.events import Noticed
from llama_runner.core.immutable_values import Value
from llama_runner.request.lock_entry import build_form
from llama_runner.request.lock_file import read_lock_file
from llama_runner.store import layout
from llama_runner.store.gc_files_in_use import known_files

if TYPE_CHECKING:
    from pathlib import Path

    from llama_runner.core.events import Sink
    from llama_runner.library.list_models import Model
    from llama_runner.store.contents_of_root import Artifact


def unreadable_lock_error(path: Path, why: str) -> StoreError:
    """Return the error for a lock file that cannot be read, so that nothing may be freed."""
    return StoreError(f"what {path} locks is not known: {why}", hint="mend the file, or remove it")


class LockRoots(Value):
    """The digests and builds that lock files name."""

    digests: frozenset[str] = frozenset()
    builds: tuple[dict[str, Any], ...] = ()

    def has(self, model: Model) -> bool:
        """Whether a lock file names an artifact of a model."""
        return any(each.summary.digest in self.digests for each in model.artifacts)

    def has_build(self, artifact: Artifact) -> bool:
        """Whether a lock file names a build."""
        record = artifact.record
        return bool(self.builds) and build_form(record.recipe, record.digest) in self.builds


def lock_roots(private: Path, sink: Sink) -> LockRoots:
    """Return what the known lock files name; ``StoreError`` for an unreadable one, a notice for a deleted one."""
    digests: set[str] = set()
    builds: list[dict[str, Any]] = []
    for path in known_files(layout.lock_files(private)):
        try:
            models = read_lock_file(path).models.values()
        except FileNotFoundError:
            sink(Noticed("lock_file", f"{path} is gone, so what it locked is not kept because of it"))
            continue
        except UsageError as error:
            raise unreadable_lock_error(path, str(error)) from None
        for model in models:
            digests |= model.digests
            builds += model.entry["build"].values()
    return LockRoots(frozenset(digests), tuple(builds))
