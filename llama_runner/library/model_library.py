"""``Library``: the models of one root. ``Management.models`` is one."""

from __future__ import annotations

import os
from typing import IO, TYPE_CHECKING, Any

from llama_runner.core.errors import UsageError
from llama_runner.core.option_values import wrong_value_error
from llama_runner.library.declared_models import DeclaredModels
from llama_runner.library.list_models import models_of
from llama_runner.library.model_names import Selection, select
from llama_runner.request.check_method_arguments import public_method
from llama_runner.store import layout
from llama_runner.store.contents_of_root import Inventory
from llama_runner.store.local_sources import source_read_errors
from llama_runner.store.record_summaries import SummaryCache
from llama_runner.system.files import open_regular

if TYPE_CHECKING:
    import builtins
    from collections.abc import Callable
    from pathlib import Path

    from typing_extensions import Unpack

    from llama_runner.core.events import Sink
    from llama_runner.library.add_models import AddedModel, Choice
    from llama_runner.library.bundle_export import Exported
    from llama_runner.library.bundle_import import Imported
    from llama_runner.library.file_import import ForeignModel, How, ImportedModel
    from llama_runner.library.inputs_of_artifact import Lineage
    from llama_runner.library.list_models import Model
    from llama_runner.library.model_details import Details
    from llama_runner.library.remove_models import Removal
    from llama_runner.library.verify import Verification
    from llama_runner.llama_cpp.installed_builds import BuildStore
    from llama_runner.request.request_keywords import RunnerKeywords
    from llama_runner.store.artifacts import Store


FORMS = ("in-toto", "cyclonedx")
"""The documents that ``provenance`` gives."""


class Library:
    """The models under one root. Each call looks anew."""

    def __init__(
        self,
        store: Store,
        sink: Sink,
        *,
        builds: Callable[[], BuildStore],
        lock_timeout: float = 6 * 3600,
        declared: Callable[[], DeclaredModels] = DeclaredModels,
    ) -> None:
        """``declared`` returns what configuration files declare."""
        self._store, self._sink, self._builds, self._lock_timeout = store, sink, builds, lock_timeout
        self._declared = declared

    @public_method
    def list(self, *, everything: bool = False) -> list[Model]:
        """Return the models that are there, one for each source and revision, sorted by name.

        With ``everything`` also those of which only intermediates, adapters, projectors or records are left. Reads
        records only; there is a warning for each that cannot be read.
        """
        cache = SummaryCache(self._store.private)
        inventory = Inventory(self._store.root, cache)
        for warning in inventory.warnings(inventory.models):
            self._sink(warning)
        cache.write()
        return [model for model in models_of(inventory) if everything or model.is_here]

    @public_method
    def show(self, name: str, *, check: bool = False, sha256: bool = False) -> Details:
        """Return what is known of a model: the newest revision of it, where the name does not say which.

        ``name`` is what ``run`` takes, an alias, or a unique beginning; ``UsageError`` where it means no model or
        several. ``check`` asks the Hub what it has now. With ``sha256`` that of each file is computed where its record
        lacks it, and recorded.
        """
        from llama_runner.library.model_details import details_of, drift_of  # noqa: PLC0415 - not for a list
        from llama_runner.library.models_kept_by_name import kept_models  # noqa: PLC0415

        inventory = Inventory(self._store.root, SummaryCache(self._store.private))
        chosen = self._select(inventory, name)
        kept = kept_models(self._store.private).has(chosen.models[0])
        found = details_of(inventory, chosen, kept=kept, hashed_in=self._store if sha256 else None)
        return found.replace(drift=drift_of(self._store, found.model, self._sink)) if check else found

    def lineage(self, name: str) -> tuple[Inventory, Lineage]:
        """Return one model file with what it was made from, and the inventory that this was read from."""
        from llama_runner.library.inputs_of_artifact import lineage_of  # noqa: PLC0415 - not for a list
        from llama_runner.library.model_names import one_file  # noqa: PLC0415

        inventory = Inventory(self._store.root)
        model, artifact = one_file(self._select(inventory, name), name)
        return inventory, lineage_of(inventory, model, artifact)

    @public_method
    def provenance(self, name: str, *, form: str = "in-toto") -> dict[str, Any]:
        """Return how a model file was made, from what and by what, as a document for other programs.

        ``form`` is ``in-toto``, a statement with SLSA's provenance, or ``cyclonedx``, an ML-BOM. ``name`` is as for
        ``show``, with ``:QUANT`` where there are several files; ``UsageError``, and ``ToolError`` where the library for
        CycloneDX is not installed.
        """
        if form not in FORMS:
            raise wrong_value_error("form", " or ".join(map(repr, FORMS)), form)
        inventory, lineage = self.lineage(name)
        if form == "in-toto":
            from llama_runner.library.provenance import statement_of  # noqa: PLC0415 - as above

            return statement_of(lineage)
        from llama_runner.library.inputs_of_artifact import file_name  # noqa: PLC0415 - as above
        from llama_runner.library.ml_bom import ml_bom  # noqa: PLC0415 - as above
        from llama_runner.library.model_details import details_of  # noqa: PLC0415

        chosen = Selection((lineage.model,), file_name(lineage.artifact).lower())
        details = details_of(inventory, chosen, kept=False)
        return ml_bom(lineage, details.header, details.artifacts[0]["quality"])

    @public_method
    def keep(self, name: str, *, wanted: bool = True) -> Model:
        """Protect a model from ``gc``, or with ``wanted=False`` end that; return the model.

        All revisions of it are kept. Of a model that is no longer here only the name and the source are returned.
        Raises as ``show``, and ``StoreError``.
        """
        from llama_runner.library.models_kept_by_name import keep, kept_model  # noqa: PLC0415 - not for a list

        try:
            model = self._select(Inventory(self._store.root), name).models[0]
        except UsageError:
            gone = None if wanted else kept_model(self._store.private, name)
            if gone is None:
                raise
            model = gone
        keep(self._store.private, model, wanted=wanted)
        return model

    def kept(self) -> tuple[str, ...]:
        """Return the names of the models that ``gc`` keeps, also of those that are not here; ``StoreError``."""
        from llama_runner.library.models_kept_by_name import kept_models  # noqa: PLC0415 - as above

        return tuple(sorted({name for name, _ in kept_models(self._store.private).names}))

    @public_method
    def add(self, *names: str, **keywords: Unpack[RunnerKeywords]) -> builtins.list[AddedModel]:
        """Fetch or make models, without the programs; return the result of each name.

        A model that fails has its ``error``, and the others are added. Raises ``Interrupted``.
        """
        from llama_runner.library.add_models import add  # noqa: PLC0415 - loads the pipeline

        return add(self._store, self._sink, self._lock_timeout, names, keywords)

    @public_method
    def choices(self, name: str, **keywords: Unpack[RunnerKeywords]) -> builtins.list[Choice]:
        """Return the quantizations that a name leaves open, the smallest first; none where there is no choice.

        Asks the Hub about a name that is not known here. Raises as ``Runner.prepare``.
        """
        from llama_runner.library.add_models import choices  # noqa: PLC0415 - as above

        return choices(self._store, self._sink, name, keywords)

    @public_method
    def remove(self, *names: str, force: bool = False, apply: bool = True, dry_run: bool | None = None) -> Removal:
        """Delete models, or one quantization of each with ``NAME:QUANT``; return what was deleted.

        Their records stay, so ``plan`` says what happened to them. Without ``apply`` nothing is deleted. A model that
        ``keep``, a lock file or the configuration names is a ``UsageError`` without ``force``, one that a server uses a
        ``StoreError``. ``dry_run`` is the old opposite of ``apply``.
        """
        from llama_runner.library.remove_models import look, remove  # noqa: PLC0415 - not for a list

        if dry_run is not None:
            import warnings  # noqa: PLC0415

            apply = not dry_run
            warnings.warn(f"dry_run={dry_run} is now apply={apply}", DeprecationWarning, stacklevel=3)
        declared = self._declared()
        return (remove if apply else look)(self._store, names, declared=declared, force=force, sink=self._sink)

    def look_at_removal(self, *names: str, force: bool = False) -> Removal:
        """Return what ``remove`` would delete, also of models that servers use now. Raises as ``remove`` otherwise."""
        from llama_runner.library.remove_models import look  # noqa: PLC0415 - not for a list

        return look(self._store, names, declared=self._declared(), force=force, sink=self._sink, in_use=True)

    @public_method
    def verify(
        self, *names: str, since: float | str | None = None, repair: bool = False, offline: bool = False
    ) -> Verification:
        """Read every file and compare it with its record, with the digests of the Hub and with its own header.

        ``names`` are those of models, or paths below the root; without any, everything is read. ``since`` leaves out
        what was read since a time, in seconds since the epoch, or with ``last`` since the last run began. ``repair``
        makes or fetches again what is damaged. Raises as ``show``, ``StoreError``, and ``Interrupted``.
        """
        from llama_runner.library.verify_store import verify_store  # noqa: PLC0415 - not for a list

        return verify_store(
            self._store,
            self._sink,
            names,
            since=since,
            repair=repair,
            offline=offline,
            lock_timeout=self._lock_timeout,
        )

    @public_method
    def export(self, *names: str, output: str | Path | IO[bytes], programs: bool = False) -> Exported:
        """Write models with their records and pins into a bundle, the same bytes each time; return what was written.

        ``output`` is a new file, compressed if its name ends with ``.zst``, or a stream. With ``programs``, those that
        a run would use come along. Raises ``UsageError`` for names, for an existing file and for models of which no
        file is here, ``StoreError`` for a file that is not the recorded one.
        """
        from llama_runner.library.bundle_export import Exporter  # noqa: PLC0415 - not for a list

        target = _path(output) if isinstance(output, (str, os.PathLike)) else output
        return Exporter(self._store, self._sink).export(
            names, target, programs=self._builds().path() if programs else None
        )

    @public_method
    def import_bundle(self, bundle: str | Path | IO[bytes]) -> Imported:
        """Import a bundle from a file or a stream; return what was written and what was here already.

        Raises ``BadBundle`` for one that is damaged or refused, and ``StoreError``: nothing of it is kept then.
        Programs that do not work here are left out with a warning.
        """
        from llama_runner.library.bundle_import import Importer  # noqa: PLC0415 - not for a list

        importer = Importer(self._store, self._sink, self._builds, self._lock_timeout)
        if not isinstance(bundle, (str, os.PathLike)):
            return importer.run(bundle)
        path = _path(bundle)
        with source_read_errors(path), open_regular(path) as file:
            return importer.run(file)

    @public_method
    def import_path(self, path: str | Path, *, name: str | None = None, how: How = "link") -> ImportedModel:
        """Import a GGUF file with its other shards, or a directory of safetensors; return what was imported.

        It is run by ``name``, by default that of the file or directory. With ``link`` the bytes are shared with the
        file; with ``copy`` they are copied, with ``move`` the file is removed afterwards. Raises ``UsageError``,
        ``SourceError``, ``StoreError``.
        """
        from llama_runner.library.file_import import FileImporter  # noqa: PLC0415 - not for a list
        from llama_runner.library.find_foreign_models import path_model  # noqa: PLC0415

        found = _path(path)
        with source_read_errors(found):
            model = path_model(found, name)
        return FileImporter(self._store, self._sink, self._lock_timeout).run(model, how)

    @public_method
    def found_in(self, tool: str, *, path: str | Path | None = None) -> tuple[ForeignModel, ...]:
        """Return the models that another program keeps: ``ollama``, ``huggingface``, ``lm-studio``, ``llama.cpp``.

        ``path`` is its directory, if that is not the usual one. Raises ``UsageError``, ``SourceError``.
        """
        from llama_runner.library.find_foreign_models import find_foreign  # noqa: PLC0415 - not for a list

        return tuple(find_foreign(tool, None if path is None else _path(path), os.environ))

    @public_method
    def import_from(
        self, tool: str, *names: str, path: str | Path | None = None, how: How = "link"
    ) -> tuple[ImportedModel, ...]:
        """Import models that another program keeps, by the names of ``found_in``; its files are not changed.

        Raises ``UsageError`` for names before anything is imported, ``SourceError`` and ``StoreError``.
        """
        from llama_runner.library.file_import import FileImporter, moved_from_tool_error  # noqa: PLC0415 - not for a list
        from llama_runner.library.find_foreign_models import choose  # noqa: PLC0415

        if how == "move":
            raise moved_from_tool_error(tool)
        there = self.found_in(tool, path=path)
        chosen = {(model := choose(tool, there, name)).name: model for name in names}
        importer = FileImporter(self._store, self._sink, self._lock_timeout)
        return tuple(importer.run(model, how) for model in chosen.values())

    def _select(self, inventory: Inventory, name: str) -> Selection:
        return select(models_of(inventory), self._declared().names.get(name, name))


def _path(text: str | os.PathLike[str]) -> Path:
    """Return a path that the user names; ``UsageError`` for an empty one, which would be the working directory."""
    if not os.fspath(text):
        raise UsageError("the path is empty", hint="name a file or a directory")
    return layout.user_path(text)
