"""Protocol of a remote store: artifacts and records that several machines share, by key.

Its failures are no errors: what it does not give is made here. It sends a warning for each kind of failure, once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn, Protocol

from llama_runner.core.immutable_values import Value

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from llama_runner.core.artifact_record import Record
    from llama_runner.core.digest import Digest, Key
    from llama_runner.core.step import Place, Step
    from llama_runner.core.step_interfaces import Workspace


class RemoteLost(Exception):
    """The bytes of an artifact could not be fetched, and the user was warned: the step has to run after all."""


class RemoteFile(Value):
    """One file of an artifact in the remote store, or a symbolic link of a directory."""

    path: str
    """Relative to the artifact; empty for an artifact that is one file."""
    kind: str
    """``f``: file, ``x``: executable file, ``l``: symbolic link, as in ``tree_digest``."""
    bytes: int = 0
    digest: Digest | None = None
    parts: tuple[str, ...] = ()
    """The hexadecimal SHA-256 of each part of the file."""
    target: str = ""
    """Of a link."""


class RemoteArtifact(Value):
    """What the remote store has for a key: a checked record and, unless it has the record alone, the files."""

    record: Record
    files: tuple[RemoteFile, ...] = ()
    part_bytes: int = 0

    @property
    def has_bytes(self) -> bool:
        """Whether the bytes are there and not the record alone."""
        return bool(self.files)


class RemoteStore(Protocol):
    """A remote store, bound to one address."""

    @property
    def name(self) -> str:
        """The address without credentials."""

    pushes: bool
    """Whether artifacts that are made here are put there."""

    def find(self, step: Step, key: Key, place: Place) -> RemoteArtifact | None:
        """Return what the store has for a key. None if it has nothing, nothing valid, or fails."""

    def fetch(self, found: RemoteArtifact, workspace: Workspace) -> None:
        """Write the files of an artifact into ``workspace.out``, or to ``workspace.target``.

        Every part and file is checked against its digest. An interrupted fetch is resumed. Raises ``RemoteLost``;
        then ``find`` returns None for this key from now on.
        """

    def reject(self, key: Key, why: str) -> NoReturn:
        """Warn that a fetched artifact is unusable, and raise ``RemoteLost``; ``find`` then returns None."""

    def push(
        self, step: Step, path: Path | None, record: Record, on_progress: Callable[[int, int], None]
    ) -> int | None:
        """Put an artifact and its record there, or the record alone if ``path`` is None.

        What is there already is not sent again. ``on_progress`` gets the bytes done and in all. Returns the number of
        bytes sent; None if the artifact was there already, or after a failure.
        """
