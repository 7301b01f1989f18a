"""State of one import: the report, the tables that are made, and the rules for paths."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_runner.config.import_options import ModelDraft
from llama_runner.config.import_report import Report
from llama_runner.config.paths_of_imported_file import Paths
from llama_runner.config.read_config_file import can_be_name

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from llama_runner.config.import_options import Listens
    from llama_runner.config.server_flags import ServerFlags

_LONGEST_NAME = 190


def name_for(text: str) -> str:
    """Return a text as a name that a model can have; empty if nothing is left of it."""
    return "".join("-" if char == "," else char for char in text if char.isprintable()).strip()[:_LONGEST_NAME].strip()


class Context:
    """One import."""

    def __init__(self, flags: ServerFlags, base: Path, target: Path, *, name: str | None, file_name: str) -> None:
        self.report = Report()
        self.flags = flags
        self.name = name
        """The name that the user gives the model."""
        self.file_name = file_name
        """The name of the foreign file; empty for a command line."""
        self.tables: dict[str, Any] = {}
        self.lines: dict[str, int] = {}
        """The line of each model."""
        self._base, self._target = base, target
        self._numbers: dict[str, int] = {}

    def paths(self, volumes: Iterable[tuple[str, str]] | None = None) -> Paths:
        """Return how paths are read; ``volumes``: those of a container."""
        return Paths(self._base, self._target, None if volumes is None else tuple(volumes))

    def draft(self, listens: Listens, volumes: Iterable[tuple[str, str]] | None = None) -> ModelDraft:
        """Return a draft of a model."""
        return ModelDraft(self.report, self.flags, self.paths(volumes), listens=listens)

    def finish(self, draft: ModelDraft, name: str, *, line: int, context: bool = True) -> str | None:
        """Add the model of a draft to the tables, and return its name; None if it is left out.

        A name that is taken gets a number; one that no model can have is mended.
        """
        models = self.tables.setdefault("models", {})
        kept = name_for(name) or "model"
        unique = kept
        while unique in models:
            self._numbers[kept] = self._numbers.get(kept, 1) + 1
            unique = f"{kept}-{self._numbers[kept]}"
        if unique != name and not draft.left_out:
            draft.skip(line, name, f"the model is called {unique} here", "not needed")
        table = draft.finish(unique, line=line, context=context)
        if table is None:
            return None
        models[unique], self.lines[unique] = table, line
        return unique

    def drop_double_names(self) -> None:
        """Leave out aliases and variants whose name another model has."""
        models = self.tables.get("models", {})
        taken = set(models)
        for name, model in models.items():
            aliases = self._free(name, model.get("aliases", ()), taken)
            if len(aliases) < len(model.get("aliases", ())):
                model["aliases"] = aliases
            for variant, table in [*model.get("variants", {}).items()]:
                if not can_be_name(variant) or not self._free(name, [f"{name}:{variant}"], taken):
                    del model["variants"][variant]
                elif "aliases" in table:
                    table["aliases"] = self._free(name, table["aliases"], taken)

    def _free(self, model: str, names: Iterable[str], taken: set[str]) -> list[str]:
        """Return the names that no other model has, and take them."""
        free = []
        for each in names:
            if each in taken or not can_be_name(each):
                note = "another model has this name" if each in taken else "not a name that a model can have"
                self.report.add(self.lines[model], f"alias {each}", "not taken", "", note)
            else:
                taken.add(each)
                free.append(each)
        return free

    def default(self, line: int, text: str, key: str, value: Any, note: str = "") -> None:  # noqa: ANN401 - TOML
        """Set a key of ``[defaults]``."""
        from llama_runner.config.imported_model import assignment  # noqa: PLC0415 - beside its class

        self.tables.setdefault("defaults", {})[key] = value
        self.report.add(line, text, "taken", assignment(("defaults", key), value), note)
