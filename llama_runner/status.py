"""What the store holds, how much of it is there, and which servers run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_runner.core.record import STATE_FILE, TREE
from llama_runner.core.value import Value
from llama_runner.serving.status_probe import look_at_all
from llama_runner.store import layout

if TYPE_CHECKING:
    from pathlib import Path

    from llama_runner.core.record import Record
    from llama_runner.store.artifacts import Store


class Holding(Value):
    """One artifact: where, how big, from what, and whether its bytes are there."""

    path: str
    bytes: int
    present: bool
    step: str
    source: str
    made: str

    def to_json(self) -> dict[str, Any]:
        """Return it for ``status --json``."""
        return dict(self.__dict__)


class Status(Value):
    """Everything below one root."""

    root: Path
    artifacts: tuple[Holding, ...]
    servers: tuple[dict[str, Any], ...]
    unfinished: dict[str, int]
    """Bytes of work that was interrupted and will be resumed, by name."""

    def to_json(self) -> dict[str, Any]:
        """Return the document of ``status --json``."""
        return {
            "root": str(self.root),
            "artifacts": [artifact.to_json() for artifact in self.artifacts],
            "servers": list(self.servers),
            "unfinished": self.unfinished,
        }


def take_stock(store: Store) -> Status:
    """Read every record below the root, and look at what runs."""
    found: list[Holding] = []
    for parent, pattern in layout.RECORD_DIRECTORIES:
        for directory, records in store.directories(parent, pattern):
            found += [_holding(store.root, directory, name, record) for name, record in sorted(records.items())]
    work = layout.work(store.private)
    unfinished = {path.name: _size(path) for path in sorted(work.iterdir())} if work.is_dir() else {}
    return Status(store.root, tuple(found), tuple(look_at_all(layout.servers(store.private))), unfinished)


def _holding(root: Path, directory: Path, name: str, record: Record) -> Holding:
    path = directory if name == TREE else directory / name
    present = path.is_file() or (path.is_dir() and any(child.name != STATE_FILE for child in path.iterdir()))
    return Holding(
        path=path.relative_to(root).as_posix(),
        bytes=record.bytes,
        present=present,
        step=str(record.recipe.get("step", "")),
        source=str(record.source.get("ref", "")),
        made=str(record.made.get("at", "")),
    )


def _size(path: Path) -> int:
    return sum(file.lstat().st_size for file in path.rglob("*") if file.is_file())
