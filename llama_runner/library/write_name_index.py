"""Writes the names by which ``run`` finds models that are in the store and nowhere else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llama_runner.library.list_models import quantization_of, role_of
from llama_runner.store import layout
from llama_runner.store.contents_of_root import Inventory
from llama_runner.store.name_index import NamedModel, write_names

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llama_runner.store.artifacts import Store
    from llama_runner.store.contents_of_root import Artifact


def update_names(store: Store) -> None:
    """Write the names that the records have, the newest first. Raises ``OSError``."""
    from filelock import FileLock  # noqa: PLC0415 - only to write

    lock = layout.lock_file(store.private, "names")
    lock.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock):
        artifacts = [artifact for directory in Inventory(store.root).models for artifact in directory.artifacts]
        artifacts.sort(key=_arrived, reverse=True)
        write_names(store.private, [model for each in artifacts for model in _named(store, each)])


def _arrived(artifact: Artifact) -> str:
    made = artifact.record.made
    return str(made.get("imported") or made.get("at") or "")


def _named(store: Store, artifact: Artifact) -> Iterator[NamedModel]:
    name = artifact.record.source.get("name")
    is_weights = role_of(artifact) == "weights" and artifact.step == "import"
    if not isinstance(name, str) or artifact.bytes is None or not (role_of(artifact) == "model" or is_weights):
        return
    file = "" if is_weights else artifact.name
    if artifact.is_tree and not is_weights:
        file = min((path.name for path in (store.root / artifact.path).glob("*.gguf")), default="")
    tag = "" if is_weights or ":" in name else quantization_of(artifact).strip("?")
    alias = name if artifact.step == "import" or not tag else f"{name}:{tag}"
    yield NamedModel(name, artifact.directory, file, artifact.name, tag, alias)
