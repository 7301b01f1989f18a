"""What a name on the Hub resolved to, and where that is remembered.

A pin is the commit with every file's name, size and digest. It is asked for once and kept under the store's private
directory; a rerun reads it from there and makes no request. Only ``--update`` asks again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llama_runner.core.value import Value

if TYPE_CHECKING:
    from llama_runner.core.digest import Digest


class RemoteFile(Value):
    """One file of a repository at one commit.

    ``sha256`` is what the Hub publishes for files in LFS. Small ones have only the SHA-1 of their git blob, which is
    checked when they are read; from then on their SHA-256 is known too.
    """

    name: str
    """Relative to the repository, with forward slashes."""
    size: int
    sha256: Digest | None = None
    blob: str = ""
    """The git blob's SHA-1 in hex; of a file in LFS that is the pointer's and says nothing about the bytes."""


class Pin(Value):
    """A repository at one commit."""

    repo: str
    commit: str
    files: tuple[RemoteFile, ...]
    """Sorted by name."""
    gguf: dict[str, object] | None = None
    """What the Hub says of the GGUF files: ``architecture``, ``context_length``, …; None where it says nothing."""

    def file(self, name: str) -> RemoteFile | None:
        """Return the file of exactly this name."""
        return next((file for file in self.files if file.name == name), None)
