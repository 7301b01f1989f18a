"""The models that ``models keep`` protects from ``gc``: one small file under the root."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_runner.core.immutable_values import Value
from llama_runner.store import layout
from llama_runner.store.errors import as_store_error
from llama_runner.store.gc_keep_lists import read_list, update_list

if TYPE_CHECKING:
    from pathlib import Path

    from llama_runner.library.list_models import Model

_MEMBER = "models"


class Kept(Value):
    """The models to keep, as their names and sources."""

    names: frozenset[tuple[str, str]] = frozenset()

    def has(self, model: Model) -> bool:
        """Whether a model is to be kept."""
        return (model.name, model.source) in self.names


def kept_models(private: Path) -> Kept:
    """Return the models to keep; ``StoreError`` if the file is damaged, so that ``gc`` deletes none of them."""
    found = read_list(layout.kept_models(private), _MEMBER, lambda each: (str(each["name"]), str(each["source"])))
    return Kept(frozenset(found))


def kept_model(private: Path, name: str) -> Model | None:
    """Return the one model to keep that has this name or source, without its files; None if there is none."""
    from llama_runner.library.list_models import Model  # noqa: PLC0415 - only for a model that is gone

    wanted = name.lower()
    found = [each for each in kept_models(private).names if wanted in (each[1].lower(), each[0].lower())]
    return Model(*found[0], "", "", (), ()) if len(found) == 1 else None


def keep(private: Path, model: Model, *, wanted: bool) -> None:
    """Protect a model, or end that. Raises ``StoreError``."""
    path, mine = layout.kept_models(private), {(model.name, model.source)}

    def entries() -> list[Any]:
        names = kept_models(private).names
        names = names | mine if wanted else names - mine
        return [{"name": name, "source": source} for name, source in sorted(names)]

    try:
        update_list(path, _MEMBER, entries)
    except OSError as error:
        raise as_store_error(error, path) from error
