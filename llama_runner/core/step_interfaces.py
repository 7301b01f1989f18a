"""Protocols: the ``Workspace`` that the engine gives to a running step, and ``Sources``, its access to sources."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path
    from typing import Any

    from llama_runner.core.digest import Digest, Hasher
    from llama_runner.core.source import Source


class Sources(Protocol):
    """Access to the sources of a graph."""

    def digest(self, source: Source) -> Digest:
        """Return the digest of a source's bytes. Raises ``SourceError`` if they cannot be used."""

    def path(self, source: Source) -> Path:
        """Return the path of the bytes."""

    def origin(self, source: Source) -> dict[str, object]:
        """Return the origin of a source, for the records of artifacts that are made from it."""

    def changed(self, source: Source, origin: Mapping[str, Any]) -> list[str] | None:
        """Return the names of files that differ from a recorded origin; None if it is the origin of another source."""

    def unrecorded_origin(self, source: Source) -> dict[str, object] | None:
        """Return the origin of a source whose current stamps are in no record (moved, copied, touched); else None."""

    def verify(self, source: Source) -> None:
        """Raise ``SourceChanged`` if the bytes have changed since ``digest`` was called."""


class Workspace(Protocol):
    """Directories, inputs, log and callbacks of a running step."""

    @property
    def out(self) -> Path:
        """An empty directory for the output: the artifact's file, or the contents of its directory."""

    @property
    def target(self) -> Path:
        """The path of the output: the file of the step's place in ``out``, or ``out`` itself."""

    @property
    def work(self) -> Path:
        """A directory for this key that is kept after a failure, so that the next run resumes."""

    @property
    def scratch(self) -> Path:
        """A directory for temporary files, removed after the run."""

    @property
    def log_name(self) -> str:
        """The path of the log of the step's programs, relative to the root."""

    @property
    def log_path(self) -> Path:
        """The absolute path of the log; the file and its directory may not exist yet."""

    def input(self, name: str) -> Path:
        """Return the path of an input by field name; it stays readable while the step runs."""

    def finish_reading(self, name: str) -> None:
        """Say that an input is read no more. Raises ``SourceChanged`` if a source has changed; it may change later."""

    def run_program(
        self,
        argv: Sequence[str | Path],
        *,
        env: Mapping[str, str],
        cwd: Path | None = None,
        on_line: Callable[[str], None] | None = None,
    ) -> None:
        """Run a program with its output in the step's log. Raises ``ProgramFailed`` unless it exits with 0."""

    def progress(self, done: int, total: int, unit: str) -> None:
        """Report the progress of the step; ``unit`` is a plural noun such as ``bytes`` or ``tensors``."""

    def training_progress(
        self, done: int, total: int, *, loss: float, rate: float, tokens_s: float, validation_loss: float | None
    ) -> None:
        """Report the progress of a training in steps; ``rate`` is the learning rate."""

    def notice(self, what: str, text: str) -> None:
        """Send a ``Noticed`` event; ``what`` is a keyword, ``text`` a clause."""

    def warn(self, what: str, text: str) -> None:
        """Send a ``Warned`` event; ``what`` is a keyword, ``text`` a clause."""

    def add_facts(self, **facts: object) -> None:
        """Add facts about the artifact (canonical JSON values) to its record."""

    def new_hasher(self, size: int) -> Hasher:
        """Return a hasher for a file of ``size`` bytes in ``out``, whose digest is given to ``add_digest``."""

    def add_digest(self, name: str, digest: Digest) -> None:
        """Set the digest of a file in ``out`` that was hashed while it was written."""

    def check_cancelled(self) -> None:
        """Raise ``Interrupted`` if the user has interrupted the run."""

    def is_cancelled(self) -> bool:
        """Return whether the user has interrupted the run."""
