"""``Library``: the models of one root. ``Root.models`` is one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_runner.core.events import Noticed, Sink
from llama_runner.core.option_values import wrong_value_error
from llama_runner.library.model_names import Selection, select
from llama_runner.library.models import models_of
from llama_runner.store.inventory import Inventory

if TYPE_CHECKING:
    from llama_runner.library.model_details import Details
    from llama_runner.library.models import Model
    from llama_runner.store.artifacts import Store


FORMS = ("in-toto", "cyclonedx")
"""The documents that ``provenance`` gives."""


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
        from llama_runner.library.kept_models import kept_models  # noqa: PLC0415
        from llama_runner.library.model_details import details_of, drift_of  # noqa: PLC0415 - not for a list

        inventory = Inventory(self._store.root)
        chosen = self._select(inventory, name)
        found = details_of(inventory, chosen, kept=kept_models(self._store.private).has(chosen.models[0]))
        if not check:
            return found
        return found.replace(
            drift=drift_of(self._store, found.model, lambda what, text: self._sink(Noticed(what, text)))
        )

    def provenance(self, name: str, *, form: str = "in-toto") -> dict[str, Any]:
        """Return how a model file was made, from what and by what, as a document for other programs.

        ``form`` is ``in-toto``, a statement with SLSA's provenance, or ``cyclonedx``, an ML-BOM. ``name`` is as for
        ``show``, with ``:QUANT`` where there are several files; ``UsageError``, and ``ToolError`` where the library for
        CycloneDX is not installed.
        """
        from llama_runner.library.lineage import lineage_of  # noqa: PLC0415 - not for a list
        from llama_runner.library.model_names import one_file  # noqa: PLC0415

        if form not in FORMS:
            raise wrong_value_error("form", " or ".join(map(repr, FORMS)), form)
        inventory = Inventory(self._store.root)
        model, artifact = one_file(self._select(inventory, name), name)
        lineage = lineage_of(inventory, model, artifact)
        if form == "in-toto":
            from llama_runner.library.provenance import statement_of  # noqa: PLC0415 - as above

            return statement_of(lineage)
        from llama_runner.library.ml_bom import ml_bom  # noqa: PLC0415 - as above
        from llama_runner.library.model_details import details_of  # noqa: PLC0415

        chosen = Selection((model,), artifact.path.rpartition("/")[2].lower())
        details = details_of(inventory, chosen, kept=False)
        return ml_bom(lineage, details.header, details.artifacts[0]["quality"])

    def keep(self, name: str, *, wanted: bool = True) -> Model:
        """Let ``gc`` keep a model whatever it finds, or with ``wanted=False`` no longer; return the model.

        All revisions of it are kept. As ``show`` and ``StoreError``.
        """
        from llama_runner.library.kept_models import keep  # noqa: PLC0415 - not for a list

        model = self._select(Inventory(self._store.root), name).models[0]
        keep(self._store.private, model, wanted=wanted)
        return model

    def kept(self) -> tuple[str, ...]:
        """Return the names of the models that ``gc`` keeps, also of those that are not here; ``StoreError``."""
        from llama_runner.library.kept_models import kept_models  # noqa: PLC0415 - as above

        return tuple(sorted({name for name, _ in kept_models(self._store.private).names}))

    def _select(self, inventory: Inventory, name: str) -> Selection:
        return select(models_of(inventory), name)
