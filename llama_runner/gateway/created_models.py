"""Models and names that clients made through the API: pulled models, copies, variants.

They are in one small file in the private directory of the root. The configuration file stays the user's: it may be
read-only, in version control, or shared, and a client that may use the API must not edit it. Where both name a model,
the configuration counts.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from llama_runner.core.errors import StoreError
from llama_runner.core.immutable_values import Value, field
from llama_runner.gateway.served_models import Catalogue, DeclaredModel, ServedModel
from llama_runner.store import layout, process_locks
from llama_runner.system.files import read_json, write_json

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from llama_runner.gateway.route_interface import Models

SCHEMA = 1
_LARGEST = 4 << 20
_LOCK = "gateway-models"


def unwritable_error(path: Path, why: str) -> StoreError:
    """Return the error for a file that cannot be read or replaced."""
    return StoreError(f"{path}: {why}", hint="models that clients make are kept there")


class CreatedModels(Value):
    """What clients made: sources of pulled models by their names, and further names of models."""

    pulled: dict[str, str] = field(default_factory=dict)
    names: dict[str, ServedModel] = field(default_factory=dict)

    def merged(self, catalogue: Catalogue) -> Catalogue:
        """Return a catalogue with these models. Names that it has, and names of models that it lacks, are left out."""
        for name, source in self.pulled.items():
            if name not in catalogue.served:
                catalogue = catalogue.with_model(DeclaredModel(name=name, source=source))
        for name, served in self.names.items():
            if name not in catalogue.served and served.declared in catalogue.declared:
                catalogue = catalogue.with_name(served)
        return catalogue

    def has(self, name: str) -> bool:
        """Return whether a client made the model of this name."""
        return name in self.pulled or name in self.names

    def with_pulled(self, name: str, source: str) -> CreatedModels:
        """Return these models and a pulled one."""
        return self.replace(pulled={**self.pulled, name: source})

    def with_name(self, served: ServedModel) -> CreatedModels:
        """Return these models and one more name."""
        return self.replace(names={**self.names, served.name: served})

    def without(self, name: str) -> CreatedModels:
        """Return these models without one name, and without the names that lead to a removed model."""
        pulled = {key: value for key, value in self.pulled.items() if key != name}
        gone = {name} & self.pulled.keys()
        names = {key: value for key, value in self.names.items() if key != name and value.declared not in gone}
        return CreatedModels(pulled, names)


class CreatedStore:
    """What clients made of the models of one root, as one gateway serves it. Another gateway may change the file."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._path = layout.gateway_models(root / layout.PRIVATE)
        self._read_at: tuple[int, ...] | None = None
        self._configured = Catalogue()
        self.current = CreatedModels()

    async def load(self, configured: Catalogue) -> Catalogue:
        """Read the file and return a catalogue with what it has. Where it is damaged, what was read before stays."""
        self._read_at, self._configured = self._version(), configured
        with suppress(OSError, ValueError, LookupError, TypeError, AttributeError):
            self.current = await asyncio.to_thread(_read_if_there, self._root)
        return self.current.merged(configured)

    def has(self, name: str) -> bool:
        """Return whether a client made what is served under a name: the configuration counts where both have it."""
        return self.current.has(name) and name not in self._configured.served

    def has_name(self, name: str) -> bool:
        """Return whether that is one more name for a model."""
        return self.has(name) and name in self.current.names

    @property
    def is_outdated(self) -> bool:
        """Whether the file was changed after it was read, by another gateway of the root or by this one.

        Asked in the event loop before each request: 7 µs on a local disk, where a thread takes ten times as long.
        """
        return self._version() != self._read_at

    def _version(self) -> tuple[int, ...] | None:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_ino, status.st_size, status.st_mtime_ns

    async def forget(self, name: str, models: Models) -> None:
        """End a name that a client made, and the names that lead to it. Raises ``StoreError``."""
        before = self.current
        await self.change(lambda made: made.without(name))
        catalogue = models.catalogue
        for each in before.names.keys() - self.current.names.keys() | {name}:
            if each not in self._configured.served:
                catalogue = catalogue.without(each)
        await models.declare(catalogue)

    async def change(self, change: Callable[[CreatedModels], CreatedModels]) -> None:
        """Change the file, and what is served, alike. Raises ``StoreError``."""
        await asyncio.to_thread(change_created, self._root, change)
        self.current = change(self.current)


def change_created(root: Path, change: Callable[[CreatedModels], CreatedModels]) -> CreatedModels:
    """Replace what clients made by ``change`` of it and return that. Raises ``StoreError``.

    Takes a lock, as several gateways may have one root, and blocks: call it in a thread. A file that cannot be read is
    not replaced.
    """
    private = root / layout.PRIVATE
    path = layout.gateway_models(private)
    try:
        with process_locks.hold(layout.lock_file(private, _LOCK), "gateway", timeout=30):
            before = _read_if_there(root)
            after = change(before)
            if after != before:
                document = _document(after)
                if len(json.dumps(document, indent=1)) >= _LARGEST:  # it could not be read again
                    raise unwritable_error(path, f"it would be larger than the limit of {_LARGEST} bytes")
                write_json(path, document, durable=True, mode=0o600, indent=1)
    except OSError as error:
        raise unwritable_error(path, error.strerror or str(error)) from error
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise unwritable_error(path, f"it is damaged, or of another version: {error}") from error
    return after


def _read_if_there(root: Path) -> CreatedModels:
    try:
        return _read(root)
    except FileNotFoundError:
        return CreatedModels()


def _read(root: Path) -> CreatedModels:
    found = read_json(layout.gateway_models(root / layout.PRIVATE), _LARGEST)
    if found["schema"] != SCHEMA:
        raise ValueError(f"schema {found['schema']!r}")
    pulled = {_text(name): _text(source) for name, source in found["pulled"].items()}
    return CreatedModels(pulled, {_text(name): _served(name, each) for name, each in found["names"].items()})


def _served(name: str, found: dict[str, Any]) -> ServedModel:
    system = found.get("system")
    return ServedModel(
        name=name,
        declared=_text(found["of"]),
        is_alias=bool(found.get("is_alias")),
        sampling=dict(found.get("sampling") or {}),
        template=dict(found.get("template") or {}),
        system=None if system is None else _text(system),
        base=str(found.get("base") or ""),
        adapters={_text(name): float(scale) for name, scale in (found.get("adapters") or {}).items()},
    )


def _document(created: CreatedModels) -> dict[str, Any]:
    names = {
        name: {
            "of": each.declared,
            "is_alias": each.is_alias,
            "sampling": each.sampling,
            "template": each.template,
            "system": each.system,
            **({"base": each.base, "adapters": each.adapters} if each.adapters else {}),
        }
        for name, each in created.names.items()
    }
    return {"schema": SCHEMA, "pulled": created.pulled, "names": names}


def _text(value: Any) -> str:  # noqa: ANN401 - from a file
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value
