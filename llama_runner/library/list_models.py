"""Models, made from the inventory: one for each source and revision."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_runner.core.immutable_values import Value, field
from llama_runner.serving import server_registry
from llama_runner.store import layout
from llama_runner.system.utc_time import utc_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from llama_runner.store.contents_of_root import Artifact, Directory, Inventory

_OTHERS = {
    "projector": "projector",
    "adapter": "adapter",
    "imatrix": "imatrix",
    "quality": "quality",
    "check": "check",
    "numbers": "numbers",
}
LOCAL = "local__"
"""Prefix of the directories of models from local files."""


class Model(Value):
    """The artifacts of one source at one revision."""

    name: str
    """``ORG/MODEL``, or what the files of a local model are called."""
    source: str
    """``ORG/MODEL``, or the path of a local model."""
    kind: str
    """``hf``, ``safetensors`` or ``gguf``; empty where no record tells."""
    revision: str
    directories: tuple[str, ...]
    """Below the root, with forward slashes."""
    artifacts: tuple[Artifact, ...]
    problems: Mapping[str, str] = field(default_factory=dict)
    """Records that cannot be read, by path below the root."""
    servers: tuple[Mapping[str, Any], ...] = ()
    """Entries of the registry of the servers that run with it."""

    @property
    def title(self) -> str:
        """The name with its revision, as ``models show`` takes it."""
        return f"{self.name}@{self.revision[:12]}"

    @property
    def bytes(self) -> int:
        """Size on disk."""
        return sum(artifact.bytes or 0 for artifact in self.artifacts)

    @property
    def files(self) -> list[Artifact]:
        """The GGUF models that are there."""
        return [each for each in self.artifacts if role_of(each) == "model" and each.bytes is not None]

    @property
    def is_here(self) -> bool:
        """Whether a GGUF model is there, or weights that were imported."""
        return bool(self.files) or any(each.step == "import" and each.bytes is not None for each in self.artifacts)

    @property
    def quantizations(self) -> list[str]:
        """The types of the models that are there."""
        return list(dict.fromkeys(quantization_of(each) for each in self.files))

    @property
    def context(self) -> int | None:
        """How many tokens it was trained for."""
        return max((each.summary.context for each in self.artifacts), default=0) or None

    @property
    def last_used(self) -> float | None:
        """When a server was last started with it, in seconds since the epoch."""
        return max((each.last_used for each in self.artifacts if each.last_used is not None), default=None)

    @property
    def made(self) -> str:
        """When the newest of it was made, in UTC."""
        return max((str(each.summary.made or "") for each in self.artifacts), default="")

    def to_json(self, *, everything: bool = True) -> dict[str, Any]:
        """Return it for ``models list --json``; without ``everything``, only models that are there are among it."""
        return {
            "name": self.name,
            "source": self.source,
            "kind": self.kind,
            "revision": self.revision,
            "quantizations": self.quantizations,
            "bytes": self.bytes,
            "context": self.context,
            "last_used": time_text(self.last_used),
            "made": self.made or None,
            "servers": [{name: each.get(name) for name in ("alias", "pid", "url")} for each in self.servers],
            "artifacts": [artifact_json(each) for each in (self.artifacts if everything else self.files)],
            "problems": dict(self.problems),
        }


def artifact_json(artifact: Artifact) -> dict[str, Any]:
    """Return an artifact for the documents of ``models``."""
    summary = artifact.summary
    return {
        "path": artifact.path,
        "role": role_of(artifact),
        "quantization": quantization_of(artifact) if role_of(artifact) == "model" else None,
        "present": artifact.bytes is not None,
        "bytes": summary.bytes if artifact.bytes is None else artifact.bytes,
        "digest": summary.digest,
        "step": artifact.step,
        "made": summary.made,
        "last_used": time_text(artifact.last_used),
    }


def role_of(artifact: Artifact) -> str:
    """Return what an artifact is: ``model``, ``intermediate``, ``weights``, ``projector``, ``adapter``, …"""
    summary = artifact.summary
    if summary.step in _OTHERS:
        return _OTHERS[summary.step]
    if summary.step == "import" and summary.is_projector:
        return "projector"
    if artifact.directory.startswith(layout.SAFETENSORS):
        return "weights"
    return "model" if summary.is_result else "intermediate"


def quantization_of(artifact: Artifact) -> str:
    """Return the type of a model's weights, as its record or the step that made it has it."""
    return artifact.summary.quantization


def models_of(inventory: Inventory) -> list[Model]:
    """Return all models, sorted by name and age. Reads records, stamps of use and the registry of servers."""
    there = layout.servers(inventory.private)
    servers = server_registry.running(there) + server_registry.elsewhere(there)
    grouped: dict[str, list[Directory]] = {}
    for directory in inventory.models:
        bucket = "/".join(directory.path.split("/")[2:3])
        if bucket:
            grouped.setdefault(bucket, []).append(directory)
    used = {path: about for about in servers for path in files_of(about)}
    found = []
    for bucket, directories in grouped.items():
        running = [about for path, about in used.items() if any(lies_in(path, each.path) for each in directories)]
        mine = tuple({about["pid"]: about for about in running}.values())
        found.append(_model(bucket, directories, mine))
    return sorted(found, key=lambda model: (model.name.lower(), model.made, model.source))


def files_of(about: Mapping[str, Any]) -> list[str]:
    """Return the files that a server of the registry uses, as far as it is written down."""
    files = about.get("files")
    named = [about.get("model"), about.get("binary"), *(files if isinstance(files, list) else ())]
    return [name for name in named if isinstance(name, str)]


def lies_in(file: str, path: str) -> bool:
    """Return whether a file of a server is the artifact at a path below the root, or lies in that directory."""
    return f"/{path}/" in f"{file}/"


def _model(bucket: str, directories: Sequence[Directory], servers: tuple[Mapping[str, Any], ...]) -> Model:
    artifacts = tuple(artifact for directory in directories for artifact in directory.artifacts)
    summaries = [each.summary for each in artifacts]
    named = [one for one in summaries if one.ref] or [one for one in summaries if one.kind]
    kind, ref, revision = (named[0].kind, named[0].ref or "", named[0].revision) if named else ("", "", "")
    name, _, short_revision = bucket.rpartition("__")
    name = name.removeprefix(LOCAL) if name.startswith(LOCAL) or not ref else str(ref)
    name = next((one.name for one in summaries if isinstance(one.name, str)), name)
    problems = {
        directory.record_path(what): why for directory in directories for what, why in directory.problems.items()
    }
    return Model(
        name=name or bucket,
        source=str(ref) or bucket,
        kind=str(kind or ""),
        revision=str(revision or short_revision),
        directories=tuple(directory.path for directory in directories),
        artifacts=artifacts,
        problems=problems,
        servers=servers,
    )


def time_text(seconds: float | None) -> str | None:
    """Return a time in UTC, as records have it."""
    return None if seconds is None else utc_text(seconds)
