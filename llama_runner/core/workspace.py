"""What the engine gives to steps, and what it is given to look at sources. Interfaces: for type checkers only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path
    from typing import Any

    from llama_runner.core.digest import Digest
    from llama_runner.core.source import Source


class Sources(Protocol):
    """Who knows how to look at the sources of a graph."""

    def digest(self, source: Source) -> Digest:
        """Return the digest of a source's bytes; a ``SourceError`` when they cannot be used."""

    def path(self, source: Source) -> Path:
        """Return where the bytes are."""

    def origin(self, source: Source) -> dict[str, object]:
        """Return what a record says of where its artifact comes from."""

    def changed(self, source: Source, origin: Mapping[str, Any]) -> list[str] | None:
        """Return the files that differ from those of a recorded origin; None for the origin of another source."""

    def unrecorded_origin(self, source: Source) -> dict[str, object] | None:
        """Return the origin of a source that no record knows as it is now: it was moved, copied or touched."""

    def verify(self, source: Source) -> None:
        """Raise ``SourceChanged`` if the bytes are no longer those whose digest was given."""


class Workspace(Protocol):
    """All that a running step may touch."""

    @property
    def out(self) -> Path:
        """An empty directory for the artifact, or for what it consists of when it is a directory."""

    @property
    def target(self) -> Path:
        """What the step has to make: the file of its place in ``out``, or ``out`` itself."""

    @property
    def work(self) -> Path:
        """A directory of this key's own that survives a crash, so that long work resumes."""

    @property
    def tools(self) -> Path:
        """Where small files of this run may be written; gone afterwards."""

    @property
    def log_name(self) -> str:
        """The log of what the step's programs say, relative to the root."""

    @property
    def log_path(self) -> Path:
        """That log, to be appended to; neither it nor its directory has to be there yet."""

    def input(self, name: str) -> Path:
        """Return the bytes of the input of that name; they cannot vanish while the step runs."""

    def call(
        self,
        argv: Sequence[str | Path],
        *,
        env: Mapping[str, str],
        cwd: Path | None = None,
        on_line: Callable[[str], None] | None = None,
    ) -> None:
        """Run a program, its output into the step's log; ``ProgramFailed`` unless it exits with 0."""

    def progress(self, done: int, total: int, unit: str) -> None:
        """Say how far the step is; ``unit`` is ``bytes``, ``objects`` or ``tensors``."""

    def notice(self, what: str, text: str) -> None:
        """Tell the user something that is worth knowing; ``what`` is a word, ``text`` a clause."""

    def warn(self, what: str, text: str) -> None:
        """Tell the user that something is not as it should be, though the step goes on; the words are as above."""

    def fact(self, **facts: object) -> None:
        """Keep what was learned about the artifact (canonical JSON values) in its record."""

    def hashed(self, name: str, digest: Digest) -> None:
        """Tell the digest of a file in ``out`` that was hashed while it was written."""

    def check_cancelled(self) -> None:
        """Raise ``Interrupted`` once the user has asked to stop."""

    def is_cancelled(self) -> bool:
        """Say whether the user has asked to stop, for code that takes a predicate."""
