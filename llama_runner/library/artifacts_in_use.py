"""Checks whether a server or a running step uses an artifact."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from llama_runner.library.list_models import files_of, lies_in
from llama_runner.serving import server_registry
from llama_runner.store import layout, process_locks, removal
from llama_runner.store.last_use import last_uses, name_of

if TYPE_CHECKING:
    from pathlib import Path

    from llama_runner.store.artifacts import Store
    from llama_runner.store.contents_of_root import Artifact


def served_files(private: Path) -> list[str]:
    """Return the files that running servers use, also those that may run in other containers."""
    there = layout.servers(private)
    return [
        name for about in server_registry.running(there) + server_registry.elsewhere(there) for name in files_of(about)
    ]


class UseCheck:
    """A check before and after an artifact is moved away: raises ``InUse`` if it is in use."""

    def __init__(self, store: Store, artifact: Artifact) -> None:
        self._store, self._artifact = store, artifact
        names = [artifact.path]
        if artifact.is_tree:
            with suppress(OSError):
                names = [f"{artifact.path}/{child.name}" for child in (store.root / artifact.path).iterdir()]
        self._stamps = frozenset(map(name_of, names))

    def __call__(self) -> None:
        """Raise ``InUse`` if something uses it now, or has begun to since it was listed."""
        artifact, used = self._artifact, last_uses(self._store.private)
        before = artifact.last_used or 0.0
        started = any(used.get(name, 0.0) > before for name in self._stamps)
        if started or any(lies_in(name, artifact.path) for name in served_files(self._store.private)):
            raise removal.InUse(f"{artifact.path} is used by a server")
        if artifact.is_tree:
            self._check_steps()

    def _check_steps(self) -> None:
        """Raise ``InUse`` while a step runs: a directory that it reads is not linked into its staging."""
        private, mine = self._store.private, self._artifact.summary.lock
        for home in sorted(layout.staging(private).glob("[0-9a-f]*")):
            lock = layout.lock_file(private, home.name)
            if home.name != mine and lock.exists():
                with process_locks.try_hold(lock) as held:
                    if not held:
                        raise removal.InUse(
                            f"{self._artifact.path} may be read by {process_locks.describe_holder(lock)}"
                        )
