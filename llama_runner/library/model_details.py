"""What is known of one model: its header, its files, how each was made, what it needs, and what the Hub has now."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from llama_runner.core.digest import short_hash
from llama_runner.core.errors import SourceError, UsageError
from llama_runner.core.events import Noticed, Sink
from llama_runner.core.immutable_values import Value
from llama_runner.fidelity.report import Report
from llama_runner.library.list_models import artifact_json, role_of
from llama_runner.library.provenance import seconds_of
from llama_runner.store import layout
from llama_runner.store.stored_file import StoredFile, recorded_digest
from llama_runner.system.files import read_json

if TYPE_CHECKING:
    from pathlib import Path

    from llama_runner.core.artifact_record import Record
    from llama_runner.library.list_models import Model
    from llama_runner.library.model_names import Selection
    from llama_runner.store.artifacts import Store
    from llama_runner.store.contents_of_root import Artifact, Inventory

_VERBS = {
    "download": "downloaded from {source}",
    "projector": "projector of {source}",
    "convert": "converted to {outtype} from {source}",
    "quantize": "quantized to {type} from {model}",
    "imatrix": "importance matrix of {model}",
    "quality": "quality of {model}",
    "check": "check of {model}",
    "numbers": "logits of {model} compared with the original's",
    "adapter": "adapter converted from {source}",
    "import": "imported from {source}",
}


def not_on_the_hub_error(name: str, source: str) -> UsageError:
    """A local model has no revision on the Hub."""
    return UsageError(f"{name} was made of {source}, which is not on the Hub", hint="leave --check out")


class Details(Value):
    """One model, as ``models show`` prints it."""

    model: Model
    others: tuple[str, ...]
    """Further revisions that are here."""
    header: dict[str, Any]
    """``architecture``, ``parameters``, ``license``, ``chat_template``, ``capabilities``."""
    artifacts: tuple[dict[str, Any], ...]
    kept: bool
    """Whether ``models keep`` names it."""
    drift: dict[str, Any] | None = None
    """What the Hub has now, where it was asked."""

    def to_json(self) -> dict[str, Any]:
        """Return the document of ``models show --json``."""
        return {
            **self.model.to_json(),
            "other_revisions": list(self.others),
            **self.header,
            "artifacts": list(self.artifacts),
            "kept": self.kept,
            "drift": self.drift,
        }


def details_of(inventory: Inventory, chosen: Selection, *, kept: bool, hashed_in: Store | None = None) -> Details:
    """Return what records tell of the newest of the chosen models, and what the header of one of its files does.

    The SHA-256 of files of the store ``hashed_in`` is computed where the record lacks it, and recorded there.
    """
    model, *others = chosen.models
    artifacts = [each for each in model.artifacts if chosen.quantization is None or each in chosen.artifacts]
    by_digest = {str(each.record.digest): each for each in model.artifacts}
    by_digest |= {
        str(each.record.digest): each
        for directory in inventory.programs
        for each in directory.artifacts
        if each.is_tree
    }
    memory = _memory(inventory.private)
    told = []
    for each in artifacts:
        quality = [
            one.record.facts
            for one in model.artifacts
            if one.step == "quality" and one.record.recipe.get("inputs", {}).get("model") == each.record.digest
        ]
        checks = [
            one.record
            for one in model.artifacts
            if one.step == "check" and one.record.recipe.get("inputs", {}).get("model") == each.record.digest
        ]
        told.append(
            {
                **artifact_json(each),
                "sha256": _sha256(each, hashed_in),
                "recipe": recipe_text(each.record, by_digest),
                "seconds": seconds_of(each.record),
                "made_by": each.record.made.get("by"),
                "memory": max((size for path, size in memory if f"/{each.path}" in path), default=None),
                "quality": quality[-1] if quality else None,
                "check": _newest_check(checks),
            }
        )
    header = _header(inventory.root, model, artifacts)
    return Details(model, tuple(other.revision[:12] for other in others), header, tuple(told), kept)


def _sha256(artifact: Artifact, hashed_in: Store | None) -> str | None:
    """Return the SHA-256 of an artifact in one file, if it is recorded or to be computed."""
    if artifact.is_tree:
        return None
    if hashed_in is None or artifact.bytes is None:
        known = recorded_digest(artifact.record, "sha256")
        return None if known is None else known.removeprefix("sha256:")
    return StoredFile(hashed_in, artifact.place, artifact.record).sha256()


def _newest_check(records: list[Record]) -> dict[str, Any] | None:
    """Return what the newest check of a file found, with its time."""
    newest = max(records, key=lambda record: str(record.made.get("at", "")), default=None)
    if newest is None:
        return None
    counts = {name: value for name, value in newest.facts.items() if type(value) is int}
    told = Report.of_facts(newest.facts)
    findings = [finding.to_json() for finding in told.findings]
    about = {"summary": str(newest.facts.get("summary", "")), "not_checked": told.not_checked, "findings": findings}
    return {**counts, **about, "made": newest.made.get("at")}


def recipe_text(record: Record, known: dict[str, Artifact]) -> str:
    """Return how an artifact was made as one sentence: from what, by which tools."""
    recipe, source = record.recipe, record.source
    step = str(recipe.get("step", "?"))
    where = str(source.get("ref") or "an unknown source")
    if source.get("kind") == "hf":
        where += f" at {str(source.get('revision'))[:12]}"
    names: dict[str, str] = {"source": where, "model": "a model", **_texts(recipe.get("params", {}))}
    for name, digest in recipe.get("inputs", {}).items():
        found = known.get(str(digest))
        names[name] = found.path.rpartition("/")[2] if found else names.get(name) or f"{name} {short_hash(str(digest))}"
    if step == "quantize" and names["model"] == "a model":
        names["model"] = where
    text = re.sub(r"\{(\w+)\}", lambda match: names.get(match[1], "?"), _VERBS.get(step, f"{step} of {{source}}"))
    if "imatrix" in recipe.get("inputs", {}):
        text += f", with {names['imatrix']}"
    tools = [_tool(name, value, known) for name, value in record.noted.items() if isinstance(value, dict)]
    tools += [_tool("llama_runner", record.made, known)] if not tools and record.made.get("by") else []
    text = f"{text}, by {' and '.join(tools)}" if tools else text
    fetched = record.made.get("fetched")
    if isinstance(fetched, dict):
        text += f", on another machine (from the remote store {fetched.get('from')})"
    return text


def _texts(params: dict[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in params.items() if isinstance(value, (str, int))}


def _tool(name: str, noted: dict[str, Any], known: dict[str, Artifact]) -> str:
    if isinstance(noted.get("by"), str):
        return str(noted["by"])
    if "name" in noted:
        return f"{noted['name']} {noted.get('version', '')}".rstrip()
    found = known.get(str(noted.get("digest")))
    return found.path.rpartition("/")[2] if found else f"{name} {short_hash(str(noted.get('digest', '?')))}"


def _memory(private: Path) -> list[tuple[str, int]]:
    """Return what servers took in memory: the model's path, and bytes."""
    found = []
    with suppress(OSError):
        for path in sorted(layout.memory_needs(private).glob("*.json")):
            with suppress(OSError, ValueError, KeyError, TypeError):
                kept = read_json(path, 1 << 20)
                if kept["resident"]:
                    found.append((str(kept["model"]), int(kept["resident"])))
    return found


def _header(root: Path, model: Model, artifacts: list[Artifact]) -> dict[str, Any]:
    """Return what the header of a file says, or the records where no file is left or none can be read."""
    facts = next((each.record.facts for each in model.artifacts if each.record.facts.get("architecture")), {})
    found: dict[str, Any] = {
        "architecture": facts.get("architecture"),
        "parameters": None,
        "license": None,
        "chat_template": bool(facts.get("chat_template")),
        "capabilities": [],
    }
    vision = any(role_of(each) == "projector" and each.bytes is not None for each in model.artifacts)
    template = None
    file = next((each for each in artifacts if role_of(each) == "model" and each.bytes is not None), None)
    if file is not None:
        from llama_runner.request.model_inspection import inspect  # noqa: PLC0415 - reads a header

        with suppress(SourceError, OSError):
            path = root / file.path
            if file.is_tree:
                path = min(path.glob("*.gguf"), default=path)
            seen = inspect(path)
            template = seen.template
            found |= {
                "architecture": seen.architecture or found["architecture"],
                "parameters": seen.parameters,
                "license": seen.metadata.get("general.license"),
                "chat_template": template is not None,
            }
    found["capabilities"] = capabilities(template, vision=vision)
    return found


def capabilities(template: str | None, *, vision: bool) -> list[str]:
    """Return what a chat template and a projector let a model do: ``chat``, ``tools``, ``thinking``, ``vision``."""
    words = template or ""
    found = {
        "chat": template is not None,
        "tools": re.search(r"\btools\b", words) is not None,
        "thinking": re.search(r"<think>|enable_thinking|reasoning_content|\bthinking\b", words) is not None,
        "vision": vision,
    }
    return [name for name, is_so in found.items() if is_so]


def drift_of(store: Store, model: Model, sink: Sink) -> dict[str, Any]:
    """Ask the Hub what the model's branch means now, and return how that differs. Writes nothing."""
    from llama_runner.sources.hub.client import HubClient  # noqa: PLC0415
    from llama_runner.sources.hub.endpoint_and_token import find_access  # noqa: PLC0415 - only when asked for
    from llama_runner.sources.hub.errors import offline_error  # noqa: PLC0415
    from llama_runner.sources.hub.pins import open_pins  # noqa: PLC0415
    from llama_runner.sources.hub.resolver import drift  # noqa: PLC0415
    from llama_runner.system.network_settings import is_offline  # noqa: PLC0415

    if model.kind != "hf":
        raise not_on_the_hub_error(model.name, model.source)
    if is_offline(os.environ):
        raise offline_error(f"what {model.source} is now")
    known = open_pins(store.private, sink).read(model.source)
    branches = [name for name, commit in known.names.items() if commit == model.revision]
    branch = "main" if "main" in branches or not branches else branches[0]

    def notice(what: str, text: str) -> None:
        sink(Noticed(what, text))

    now = HubClient(find_access(os.environ, token_file=None, notice=notice), notice=notice).pin(model.source, branch)
    found: dict[str, Any] = {"branch": branch, "here": model.revision, "now": now.commit, "files": None}
    if before := known.pins.get(model.revision):
        told = drift(branch, before, now)
        found["files"] = {"added": list(told.added), "removed": list(told.removed), "changed": list(told.changed)}
    return found
