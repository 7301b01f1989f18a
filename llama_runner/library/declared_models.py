"""The models that configuration files declare: ``gc`` keeps them, ``models remove`` refuses them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llama_runner.core.immutable_values import Value, field

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llama_runner.library.list_models import Model


class DeclaredModels(Value):
    """Declared models: for each name where its files are from."""

    names: Mapping[str, str] = field(default_factory=dict)
    """``ORG/MODEL[@REV][:QUANT]``, or the absolute path of a local model, by each name that means it."""
    sources: frozenset[str] = frozenset()
    """The same without revision and quantization, in lower case if it is a name on the Hub."""

    def has(self, model: Model) -> bool:
        """Whether a configuration file declares a model."""
        return model.source in self.sources or model.source.lower() in self.sources or model.name in self.sources
