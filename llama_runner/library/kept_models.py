"""The models that ``models keep`` protects from ``gc``: one small file under the root."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llama_runner.core.errors import StoreError
from llama_runner.core.immutable import Value
from llama_runner.store import layout
from llama_runner.store.errors import as_store_error
from llama_runner.system.files import read_json, write_json

if TYPE_CHECKING:
    from pathlib import Path

    from llama_runner.library.models import Model

SCHEMA = 1


def unreadable_list_error(path: Path, why: str) -> StoreError:
    """Return the error for a list that cannot be read, so that nothing may be deleted."""
    return StoreError(f"{path} does not say which models to keep: {why}", hint="mend it, or remove it")


class Kept(Value):
    """The models to keep, as their names and sources."""

    names: frozenset[tuple[str, str]] = frozenset()

    def has(self, model: Model) -> bool:
        """Whether a model is to be kept."""
        return (model.name, model.source) in self.names


def kept_models(private: Path) -> Kept:
    """Return the models to keep; ``StoreError`` if the file is damaged, so that ``gc`` deletes none of them."""
    path = layout.kept_models(private)
    try:
        found = read_json(path)
        if found["schema"] != SCHEMA:
            raise ValueError(f"schema {found['schema']}, this program reads {SCHEMA}")
        return Kept(frozenset((str(each["name"]), str(each["source"])) for each in found["models"]))
    except (FileNotFoundError, NotADirectoryError):
        return Kept()
    except OSError as error:
        raise unreadable_list_error(path, error.strerror or str(error)) from None
    except (ValueError, LookupError, TypeError) as error:
        raise unreadable_list_error(path, str(error)) from None


def kept_model(private: Path, name: str) -> Model | None:
    """Return the one model to keep that has this name or source, without its files; None if there is none."""
    from llama_runner.library.models import Model  # noqa: PLC0415 - only for a model that is gone

    wanted = name.lower()
    found = [each for each in kept_models(private).names if wanted in (each[1].lower(), each[0].lower())]
    return Model(*found[0], "", "", (), ()) if len(found) == 1 else None


def keep(private: Path, model: Model, *, wanted: bool) -> None:
    """Protect a model, or end that. Raises ``StoreError``."""
    from filelock import FileLock  # noqa: PLC0415 - only to write

    path = layout.kept_models(private)
    try:
        lock = layout.lock_file(private, "kept")
        lock.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(lock):
            mine = {(model.name, model.source)}
            names = kept_models(private).names
            names = names | mine if wanted else names - mine
            found = [{"name": name, "source": source} for name, source in sorted(names)]
            write_json(path, {"schema": SCHEMA, "models": found}, durable=True)
    except OSError as error:
        raise as_store_error(error, path) from error
