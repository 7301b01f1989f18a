"""Removes models by name: deletes their bytes; their records stay and have the time."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from llama_runner.core.errors import NeedsForce, StoreError, UsageError
from llama_runner.core.immutable_values import Value, field
from llama_runner.library.artifacts_in_use import UseCheck
from llama_runner.library.declared_models import PulledByClient
from llama_runner.library.kept_by_lock_files import lock_roots
from llama_runner.library.list_models import artifact_json, files_of, lies_in, models_of
from llama_runner.library.model_names import select
from llama_runner.library.models_kept_by_name import kept_models
from llama_runner.store import removal
from llama_runner.store.contents_of_root import Inventory
from llama_runner.store.errors import as_store_error
from llama_runner.system.utc_time import utc_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from llama_runner.core.events import Sink
    from llama_runner.library.declared_models import DeclaredModels
    from llama_runner.library.list_models import Model
    from llama_runner.library.model_names import Selection
    from llama_runner.store.artifacts import Store
    from llama_runner.store.contents_of_root import Artifact


class Removal(Value):
    """What ``models remove`` deletes, or has deleted."""

    models: tuple[str, ...]
    artifacts: tuple[Artifact, ...]
    shared: int = 0
    """Bytes of them that other names of the same files keep on the disk, such as those of the Hugging Face cache."""
    removed: bool = False
    left: Mapping[str, str] = field(default_factory=dict)
    """Why something was left after all, by path."""

    @property
    def bytes(self) -> int:
        """What is freed, or would be."""
        return sum(each.bytes or 0 for each in self.artifacts if each.path not in self.left) - self.shared

    def to_json(self) -> dict[str, Any]:
        """Return the document of ``models remove --json``."""
        return {
            "models": list(self.models),
            "removed": self.removed,
            "bytes": self.bytes,
            "shared": self.shared,
            "artifacts": [artifact_json(each) for each in self.artifacts],
            "left": dict(self.left),
        }


def used_by_server_error(model: Model, servers: Iterable[Mapping[str, Any]]) -> StoreError:
    """A running server uses the model."""
    who = " and ".join(f"{each.get('alias')} (process {each.get('pid')}, {each.get('url')})" for each in servers)
    return StoreError(f"{model.title} is used by {who}", hint="stop it first: llama-runner stop NAME")


def is_kept_error(model: Model) -> NeedsForce:
    """``models keep`` protects the model."""
    hint = f"insist with --force, or end that: llama-runner models keep {model.name} --undo"
    return NeedsForce(f"{model.name} is one of the models to keep", hint=hint)


def unfinished_name_error(name: str) -> UsageError:
    """A variable of a script may have been empty; without it, all of the model would be deleted."""
    return UsageError(
        f"nothing stands after the last character of {name!r}", hint="leave it out, or name what to remove"
    )


def is_locked_error(model: Model) -> NeedsForce:
    """A lock file names the model."""
    return NeedsForce(f"a lock file names {model.name}", hint="insist with --force, or take it out of the lock file")


def is_declared_error(model: Model) -> NeedsForce:
    """The configuration file declares the model."""
    hint = "insist with --force, or take it out of the file: llama-runner config remove NAME"
    return NeedsForce(f"the configuration file declares {model.name}", hint=hint)


def nothing_left_error(model: Model) -> UsageError:
    """Of the model only records are left."""
    return UsageError(f"nothing of {model.title} is here but its records", hint="it was deleted before")


def look(
    store: Store,
    names: Sequence[str],
    *,
    declared: DeclaredModels,
    force: bool,
    sink: Sink,
    in_use: bool = False,
) -> Removal:
    """Return what would be deleted, with ``in_use`` also of what a server uses. Writes nothing.

    Raises ``UsageError`` for names that mean no model or several, and without ``force`` for models to keep, in a lock
    file or declared; ``StoreError`` for what a server uses.
    """
    if not names:
        raise UsageError("no model is named", hint="llama-runner models list shows what is there")
    inventory = Inventory(store.root)
    models, kept, locked = models_of(inventory), kept_models(store.private), lock_roots(store.private, sink)
    found: dict[str, Artifact] = {}
    titles: dict[str, None] = {}
    left: dict[str, str] = {}
    for name in names:
        if name.endswith((":", "@")):
            raise unfinished_name_error(name)
        selection = select(models, declared.names.get(name, name), beginnings=False)
        there = [each for each in selection.artifacts if each.bytes is not None]
        if not in_use:
            _check_servers(selection, there)
        for model in selection.models:
            if not force:
                _check_wanted(model, kept=kept.has(model), locked=locked.has(model), declared=declared)
            if any(each in there for each in model.artifacts):
                titles[model.title] = None
            left |= {path: f"its record cannot be read: {why}" for path, why in model.problems.items()}
        if not there:
            raise nothing_left_error(selection.models[0])
        found |= {each.path: each for each in there}
    shared = sum(_shared(store, each) for each in found.values())
    return Removal(tuple(titles), tuple(found.values()), shared, left=left)


def _check_wanted(model: Model, *, kept: bool, locked: bool, declared: DeclaredModels) -> None:
    """Raise ``UsageError`` for a model that is to stay."""
    if kept:
        raise is_kept_error(model)
    if locked:
        raise is_locked_error(model)
    if declared.declares(model):
        raise is_declared_error(model)
    if declared.has(model):
        raise PulledByClient(model.name)


def _check_servers(selection: Selection, artifacts: Iterable[Artifact]) -> None:
    paths = [each.path for each in artifacts]
    for model in selection.models:
        users = [
            about for about in model.servers if any(lies_in(file, path) for path in paths for file in files_of(about))
        ]
        if users:
            raise used_by_server_error(model, users)


def _shared(store: Store, artifact: Artifact) -> int:
    """Return the bytes of a file that has other names, which deleting this one does not free."""
    with suppress(OSError):
        status = (store.root / artifact.path).stat()
        if not artifact.is_tree and status.st_nlink > 1:
            return status.st_size
    return 0


def remove(store: Store, names: Sequence[str], *, declared: DeclaredModels, force: bool, sink: Sink) -> Removal:
    """Delete what ``look`` returns, and return it. What is in use now is left. Raises as ``look``."""
    found = look(store, names, declared=declared, force=force, sink=sink)
    at, left = utc_text(), dict(found.left)
    for each in found.artifacts:
        marked = each.record.replace(made={**each.record.made, "removed": at})
        try:
            removal.remove(store, each.place, each.record, check=UseCheck(store, each), keep=marked)
        except StoreError as error:
            left[each.path] = str(error)
        except OSError as error:
            left[each.path] = str(as_store_error(error, store.root))
    return found.replace(left=left, removed=True)
