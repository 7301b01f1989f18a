"""The status of a root: artifacts, unfinished work, running servers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_runner.core.immutable_values import Value
from llama_runner.serving.status_probe import look_at_all
from llama_runner.store import layout
from llama_runner.store.contents_of_root import Inventory
from llama_runner.store.record_summaries import SummaryCache

if TYPE_CHECKING:
    from pathlib import Path

    from llama_runner.core.events import Sink
    from llama_runner.store.artifacts import Store
    from llama_runner.store.contents_of_root import Artifact


class ArtifactStatus(Value):
    """One artifact: path, size, step, source, time, and whether its bytes are present."""

    path: str
    bytes: int
    present: bool
    step: str
    source: str
    made: str

    def to_json(self) -> dict[str, Any]:
        """Return the member of the document of ``status --json``."""
        return dict(self.__dict__)


class Status(Value):
    """The artifacts, servers and unfinished work of one root."""

    root: Path
    artifacts: tuple[ArtifactStatus, ...]
    servers: tuple[dict[str, Any], ...]
    sessions: dict[str, int]
    """How many sessions there are, and their bytes."""
    unfinished: dict[str, int]
    """Bytes of work that was interrupted and will be resumed, by name."""

    def to_json(self) -> dict[str, Any]:
        """Return the document of ``status --json``."""
        return {
            "root": str(self.root),
            "artifacts": [artifact.to_json() for artifact in self.artifacts],
            "servers": list(self.servers),
            "sessions": self.sessions,
            "unfinished": self.unfinished,
        }


def read_status(store: Store, sink: Sink) -> Status:
    """Read every record below the root, and look at what runs. ``sink`` gets a warning for each that cannot be read."""
    cache = SummaryCache(store.private)
    inventory = Inventory(store.root, cache)
    for warning in inventory.warnings(inventory.directories):
        sink(warning)
    found = tuple(map(_holding, inventory.artifacts))
    cache.write()
    unfinished = {work.name: work.bytes for work in inventory.entries(layout.work(store.private)) if work.is_directory}
    return Status(
        root=store.root,
        artifacts=found,
        servers=tuple(look_at_all(layout.servers(store.private))),
        sessions=_sessions(store.private),
        unfinished=unfinished,
    )


def _sessions(private: Path) -> dict[str, int]:
    if not layout.sessions(private).exists() and not layout.session_directories(private).exists():
        return {"count": 0, "bytes": 0}
    from llama_runner.sessions.session_library import bytes_of_sessions  # noqa: PLC0415 - only where there are any

    count, size = bytes_of_sessions(private)
    return {"count": count, "bytes": size}


def _holding(artifact: Artifact) -> ArtifactStatus:
    summary = artifact.summary
    return ArtifactStatus(
        path=artifact.path,
        bytes=summary.bytes,
        present=artifact.bytes is not None,
        step=summary.step,
        source="" if summary.ref is None else str(summary.ref),
        made="" if summary.made is None else str(summary.made),
    )
