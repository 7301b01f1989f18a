"""Toy sources and steps: real files, real records, and a line in a journal for each execution."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from llama_runner.core.plan import Snapshot
from llama_runner.core.source import Source
from llama_runner.core.step import Node, Place, Step, all_inputs, noted, unkeyed
from llama_runner.core.step_interfaces import Workspace
from llama_runner.engine.executor import Executor
from llama_runner.engine.observer import Observer
from llama_runner.engine.plan_outcome import Outcome
from llama_runner.store.artifacts import Store
from llama_runner.store.digest_cache import hash_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from llama_runner.core.digest import Digest, Key
    from llama_runner.core.events import Event
    from llama_runner.core.plan import Plan


class File(Source):
    """A local file."""

    path: Path
    kind: ClassVar[str] = "file"


class Toy(Step):
    """Writes a number made of its salt and of what its inputs hold, coarsely: runs often give the same."""

    name: str
    salt: int = 0
    above: tuple[Node, ...] = ()
    journal: Path = unkeyed(Path())
    comment: str = unkeyed("")
    tool: Node | None = noted(None)
    going: bool = unkeyed(False)
    kind: ClassVar[str] = "toy"

    @property
    def transient(self) -> bool:
        return self.going

    def place(self, key: Key | None, digests: object, places: object) -> Place:
        return Place("models/toys", self.name)

    def run(self, workspace: Workspace) -> None:
        with self.journal.open("a") as journal:
            journal.write(f"{self.name}\n")
        text = str(self.salt) + "".join(
            workspace.input(name).read_text() for name in all_inputs(self) if name != "tool"
        )
        number = int(hashlib.sha256(text.encode()).hexdigest(), 16) % 3
        (workspace.out / self.name).write_text(f"{number}")


class ToyTree(Step):
    """Writes a directory of two files, in a place that depends on its key, as a build does."""

    salt: int = 0
    journal: Path = unkeyed(Path())
    kind: ClassVar[str] = "toy_tree"

    def place(self, key: Key | None, digests: object, places: object) -> Place | None:
        return None if key is None else Place(f"bins/toy-{key[-8:]}")

    def run(self, workspace: Workspace) -> None:
        with self.journal.open("a") as journal:
            journal.write("tree\n")
        (workspace.out / "lib").mkdir()
        (workspace.out / "lib" / "data").write_text(str(self.salt))
        program = workspace.out / "program"
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)


class World:
    """A root with everything that running a graph of toys takes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.journal = root / "journal"
        self.events: list[Event] = []
        self.store = Store(root, self.events.append)
        self.hashes = 0

    def digest(self, source: Source) -> Digest:
        self.hashes += 1
        return hash_file(self.path(source))

    def path(self, source: Source) -> Path:
        assert isinstance(source, File)
        return source.path

    def origin(self, source: Source) -> dict[str, object]:
        return {"kind": "file", "ref": str(self.path(source))}

    def changed(self, source: Source, origin: Mapping[str, Any]) -> list[str] | None:
        return None

    def unrecorded_origin(self, source: Source) -> dict[str, object] | None:
        return None

    def verify(self, source: Source) -> None:
        assert self.path(source).exists()

    def plan(self, targets: Iterable[Step], **keywords: object) -> Plan:
        return Observer(self.store, self).plan(targets, Snapshot(**keywords))  # type: ignore[arg-type]

    def execute(self, targets: Iterable[Step], *, lock_timeout: float = 30, **keywords: object) -> Outcome:
        plan = self.plan(targets, **keywords)
        executor = Executor(
            self.store,
            Observer(self.store, self),
            self.events.append,
            lock_timeout=lock_timeout,
        )
        outcome = executor.execute(plan)
        executor.evict_transients()
        return outcome

    def ran(self) -> list[str]:
        """Return what ran since the last call, in order."""
        if not self.journal.exists():
            return []
        names = self.journal.read_text().split()
        self.journal.unlink()
        return names

    def bytes_of(self, name: str) -> str:
        return (self.root / "models" / "toys" / name).read_text()

    def tree(self) -> dict[str, tuple[int, int]]:
        """Return everything below the root with size and time, to see that nothing was written."""
        return {
            str(path.relative_to(self.root)): (path.lstat().st_size, path.lstat().st_mtime_ns)
            for path in sorted(self.root.rglob("*"))
        }
