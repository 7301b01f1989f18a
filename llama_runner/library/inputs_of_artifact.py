"""The lineage of an artifact: the artifacts, tools and source files that records name by digest."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from llama_runner.core.digest import is_digest
from llama_runner.core.immutable_values import Value
from llama_runner.library.list_models import LOCAL, role_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llama_runner.library.list_models import Model
    from llama_runner.store.contents_of_root import Artifact, Inventory


class Lineage(Value):
    """An artifact and what it was made from, according to the records."""

    model: Model
    name: str
    """Of the model, without a path."""
    artifact: Artifact
    ancestors: tuple[Artifact, ...]
    """The artifacts that it was made from, directly or not, the first made first."""
    tools: tuple[Artifact, ...]
    """Builds that made it or them, where their records are here."""
    missing: tuple[tuple[str, str], ...]
    """Name and digest of each input without a record: files of the user, or artifacts whose record is gone."""

    @property
    def chain(self) -> tuple[Artifact, ...]:
        """The ancestors and the artifact."""
        return (*self.ancestors, self.artifact)

    @property
    def source(self) -> Mapping[str, Any]:
        """The origin of the first of the chain."""
        return self.chain[0].record.source

    def graph(self) -> dict[str, Any]:
        """Return artifacts, tools and inputs without a record as nodes, and what was made from what as edges."""
        rows = [(each, "artifact") for each in self.chain] + [(each, "tool") for each in self.tools]
        nodes: list[dict[str, Any]] = [
            {"id": str(each.record.digest), "kind": kind, "step": each.step, "path": each.path, "key": each.record.key}
            for each, kind in rows
        ]
        nodes += [
            {"id": digest, "kind": "input", "step": None, "path": name, "key": None} for name, digest in self.missing
        ]
        ids, edges = {node["id"] for node in nodes}, []
        for each in self.chain:
            used = {**each.record.recipe.get("inputs", {})}
            tools = {name: value.get("digest") for name, value in each.record.noted.items() if isinstance(value, dict)}
            for keyed, found in ((True, used), (False, tools)):
                edges += [
                    {"from": digest, "to": str(each.record.digest), "input": name, "keyed": keyed}
                    for name, digest in found.items()
                    if digest in ids
                ]
        return {"nodes": nodes, "edges": edges}


def lineage_of(inventory: Inventory, model: Model, artifact: Artifact) -> Lineage:
    """Return what an artifact was made from. Of several records of the same bytes, the model's own is taken."""
    mine = {id(each) for each in model.artifacts}
    known: dict[str, Artifact] = {}
    for each in sorted(inventory.artifacts, key=lambda one: (id(one) not in mine, one.path)):
        known.setdefault(str(each.record.digest), each)
    ancestors: dict[str, Artifact] = {}
    tools: dict[str, Artifact] = {}
    missing: dict[tuple[str, str], None] = {}
    seen = {str(artifact.record.digest)}

    def follow(one: Artifact) -> None:
        for name, digest in sorted(one.record.recipe.get("inputs", {}).items()):
            if not is_digest(digest):
                continue
            found = known.get(digest)
            if found is None:
                missing[name, digest] = None
            elif digest not in seen:  # an edited record may name itself
                seen.add(digest)
                follow(found)
                ancestors[digest] = found
        for value in one.record.noted.values():
            digest = value.get("digest") if isinstance(value, dict) else None
            if is_digest(digest) and digest in known:
                tools[digest] = known[digest]

    follow(artifact)
    name = model.name if re.fullmatch(r"(?:[\w.-]+/)?[\w.-]+", model.name) else re.split(r"[/\\]", model.name)[-1]
    return Lineage(model, name, artifact, tuple(ancestors.values()), tuple(tools.values()), tuple(missing))


def file_name(artifact: Artifact) -> str:
    """Return the name of a file, or of the directory of an artifact in several files, without its path."""
    name = artifact.path.rpartition("/")[2]
    return name.removeprefix(LOCAL) if role_of(artifact) == "weights" else name
