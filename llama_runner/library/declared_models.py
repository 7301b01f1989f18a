"""Models that are served under a name: ``gc`` keeps them, ``models remove`` refuses them.

Configuration files declare them, or clients of the gateway pulled them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llama_runner.core.errors import StoreError, UsageError
from llama_runner.core.immutable_values import Value, field
from llama_runner.store import layout
from llama_runner.system.files import read_json

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from llama_runner.library.list_models import Model


_LARGEST = 4 << 20


class DeclaredModels(Value):
    """Declared models: for each name where its files are from."""

    names: Mapping[str, str] = field(default_factory=dict)
    """``ORG/MODEL[@REV][:QUANT]``, or the absolute path of a local model, by each name that means it."""
    sources: frozenset[str] = frozenset()
    """The same without revision and quantization, in lower case if it is a name on the Hub."""
    pulled: frozenset[str] = frozenset()
    """Likewise, of models that clients of the gateway pulled."""

    def has(self, model: Model) -> bool:
        """Whether a model is declared, or was pulled by a client."""
        return self.declares(model) or _is_in(self.pulled, model)

    def declares(self, model: Model) -> bool:
        """Whether a configuration file declares a model."""
        return _is_in(self.sources, model)


def _is_in(sources: frozenset[str], model: Model) -> bool:
    return not sources.isdisjoint((model.source, model.source.lower(), model.name))


class PulledByClient(UsageError):
    """A client of the gateway pulled the model, and it is served from then on."""

    def __init__(self, name: str) -> None:
        hint = "insist with --force, or delete it at the gateway: DELETE /api/delete"
        super().__init__(f"a client of the gateway pulled {name}", hint=hint)


def pulled_by_clients(private: Path) -> dict[str, str]:
    """Return the models that clients of the gateway pulled: sources by name. ``StoreError`` for a damaged file.

    The file is written by ``gateway.created_models``.
    """
    path = layout.gateway_models(private)
    try:
        pulled = read_json(path, _LARGEST)["pulled"]
        return {str(name): str(source) for name, source in pulled.items()}
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        hint = "models that clients of the gateway pulled are kept there; remove the file to do without"
        raise StoreError(f"{path} cannot be read: {error}", hint=hint) from None
