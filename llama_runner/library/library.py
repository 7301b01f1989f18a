"""``Library``: the models of one root. ``Root.models`` is one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llama_runner.core.events import Noticed, Sink
from llama_runner.library.models import models_of
from llama_runner.library.names import select
from llama_runner.store.inventory import Inventory

if TYPE_CHECKING:
    from llama_runner.library.details import Details
    from llama_runner.library.models import Model
    from llama_runner.library.names import Selection
    from llama_runner.store.artifacts import Store


class Library:
    """The models under one root. Each call looks anew."""

    def __init__(self, store: Store, sink: Sink) -> None:
        self._store, self._sink = store, sink

    def list(self, *, everything: bool = False) -> list[Model]:
        """Return the models that are there, one for each source and revision, sorted by name.

        With ``everything`` also those of which only intermediates, adapters, projectors or records are left. Reads
        records only; there is a warning for each that cannot be read.
        """
        inventory = Inventory(self._store.root)
        for warning in inventory.warnings(inventory.models):
            self._sink(warning)
        return [model for model in models_of(inventory) if everything or model.files]

    def show(self, name: str, *, check: bool = False) -> Details:
        """Return what is known of a model: the newest revision of it, where the name does not say which.

        ``name`` is what ``run`` takes, an alias, or a unique beginning; ``UsageError`` where it means no model or
        several. ``check`` asks the Hub what it has now.
        """
        from llama_runner.library.details import details_of, drift_of  # noqa: PLC0415 - not for a list
        from llama_runner.library.kept import kept_models  # noqa: PLC0415

        inventory = Inventory(self._store.root)
        chosen = self._select(inventory, name)
        found = details_of(inventory, chosen, kept=kept_models(self._store.private).has(chosen.models[0]))
        if not check:
            return found
        return found.replace(
            drift=drift_of(self._store, found.model, lambda what, text: self._sink(Noticed(what, text)))
        )

    def _select(self, inventory: Inventory, name: str) -> Selection:
        return select(models_of(inventory), name)
