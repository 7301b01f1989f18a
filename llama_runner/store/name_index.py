"""Names of models whose files are in the store and nowhere else: ``run NAME`` starts them.

The names are in the records of the models (member ``name`` of ``source``). ``names.json`` is made from the records
after each import, so that a start reads one small file. A name whose files are gone is ignored.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llama_runner.core.artifact_record import TREE
from llama_runner.core.errors import StoreError, UsageError
from llama_runner.core.immutable_values import Value
from llama_runner.core.step import Place
from llama_runner.store import layout
from llama_runner.store.digest_cache import payload_stamp
from llama_runner.system.files import read_json, write_json

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from llama_runner.store.artifacts import Store

SCHEMA = 1
DEFAULT_TAG = ":latest"
"""What a name without a tag stands for in Ollama."""


def ambiguous_name_error(name: str, fitting: Iterable[str]) -> UsageError:
    """Return the error for a name that several models in the store have."""
    return UsageError(f"{name!r} fits {', '.join(fitting)}", hint="give the quantization too")


def changed_file_error(name: str, path: Path) -> StoreError:
    """Return the error for a file that is not the one that was imported."""
    return StoreError(
        f"{path} has changed since {name} was imported",
        hint="another program may have written to it, if it is a hard link; import the model again",
    )


class NamedModel(Value):
    """A model in the store with its name."""

    name: str
    directory: str
    """Below the root, with forward slashes."""
    file: str
    """The file in the directory that is opened; empty for a directory of safetensors."""
    artifact: str
    """The file, or ``.`` if the artifact is the directory itself."""
    quantization: str = ""
    alias: str = ""
    """The name in the server's API, and of what is made of the model."""

    @property
    def title(self) -> str:
        """The name with the quantization."""
        return f"{self.name}:{self.quantization}" if self.quantization else self.name

    @property
    def place(self) -> Place:
        """The place of the artifact."""
        return Place(self.directory, "" if self.artifact == TREE else self.artifact)


def read_names(private: Path) -> list[NamedModel]:
    """Return the named models, the newest first; none if the file is absent, damaged or of another version."""
    try:
        found = read_json(layout.model_names(private))
        if found["schema"] != SCHEMA:
            return []
        return [NamedModel(*map(str, entry)) for entry in found["models"]]
    except (OSError, ValueError, LookupError, TypeError):
        return []


def write_names(private: Path, models: Iterable[NamedModel]) -> None:
    """Replace the named models, the newest first. Raises ``OSError``."""
    entries = [[one.name, one.directory, one.file, one.artifact, one.quantization, one.alias] for one in models]
    write_json(layout.model_names(private), {"schema": SCHEMA, "models": entries}, durable=True)


def find_named(
    store: Store, name: str, *, exact: bool = False, remember: bool = False
) -> tuple[NamedModel, Path] | None:
    """Return the model of a name and the path of its file or directory; None if there is none.

    Case does not count. A name without a tag stands for the only one that has a tag, unless ``exact``. With
    ``remember``, the record of a file whose times or mode another program changed gets its new stamp. Raises
    ``UsageError`` if it fits several models, ``StoreError`` if the bytes are not those that were imported.
    """
    found: dict[str, NamedModel] = {}
    changed: dict[str, StoreError] = {}
    for model in _fitting(read_names(store.private), name, exact=exact):
        title = model.title.lower()
        if title in found or (record := store.record(model.place)) is None:
            continue
        state = store.payload_state(model.place, record)
        if state == "changed":
            changed.setdefault(title, changed_file_error(model.title, store.path(model.place)))
        elif state != "absent":
            found[title] = model
            if state == "restamp" and remember:
                store.update(model.place, record.replace(stamp=payload_stamp(store.path(model.place))))
    for title, error in changed.items():
        if title not in found:
            raise error
    if len(found) > 1:
        raise ambiguous_name_error(name, sorted(found))
    for model in found.values():
        directory = store.root / model.directory
        return model, directory / model.file if model.file else directory
    return None


def nearest_name(private: Path, name: str) -> str | None:
    """Return the name of an imported model that is here and most like another one; None if none is."""
    from difflib import get_close_matches  # noqa: PLC0415 - only for mistakes

    there = (one for one in read_names(private) if (private.parent / one.directory / one.file).exists())
    names = {one.name.lower(): one.name for one in there}
    close = get_close_matches(name.lower(), names, 1, 0.6)
    return names[close[0]] if close else None


def find_projector(store: Store, model: NamedModel) -> Path | None:
    """Return the multimodal projector that was imported with a model, None if there is none."""
    directory = store.root / "/".join(model.directory.split("/")[:3])
    for name, record in store.records(directory).items():
        role = record.recipe.get("params", {}).get("role", record.recipe.get("step"))
        if role == "projector" and (directory / name).is_file():
            return directory / name
    return None


def _fitting(models: list[NamedModel], name: str, *, exact: bool) -> list[NamedModel]:
    """Return the models of exactly this name, or else those that have it with a quantization or a tag."""
    wanted = name.lower()
    named = [(one.name.lower(), one) for one in models]
    whole = [one for own, one in named if wanted == own]
    other = [
        one for own, one in named if wanted in (one.title.lower(), own + DEFAULT_TAG, own.removesuffix(DEFAULT_TAG))
    ]
    return whole or other or ([] if exact else [one for own, one in named if wanted == own.rpartition(":")[0]])
