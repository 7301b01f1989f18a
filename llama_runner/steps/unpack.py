"""Steps: unpack the source tree of llama.cpp, or one file, from an archive."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from llama_runner.core.step import Node, Place, ResourceEstimate, Step, unkeyed
from llama_runner.store.layout import SOURCES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from llama_runner.core.digest import Digest, Key
    from llama_runner.core.step_interfaces import Workspace


class UnpackSource(Step):
    """The source tree of llama.cpp."""

    archive: Node
    member: str
    directory: str
    digest: Digest
    bytes: int = unkeyed(0)
    kind: ClassVar[str] = "unpack"

    @property
    def expected_digest(self) -> Digest:
        """The pinned digest of the tree."""
        return self.digest

    def place(self, key: Key | None, digests: Mapping[str, Digest | None], places: Mapping[str, Place]) -> Place:
        """Return the place in the directory of source trees."""
        del key, digests, places
        return Place(f"{SOURCES}/{self.directory}")

    def estimate(self) -> ResourceEstimate:
        """Return the size of the tree."""
        return ResourceEstimate(disk=self.bytes)

    def run(self, workspace: Workspace) -> None:
        """Extract every file below ``member``; of the modes only the executable bit is kept."""
        prefix = self.member.rstrip("/") + "/"
        extract(workspace, workspace.out, lambda name: name[len(prefix) :] if name.startswith(prefix) else None)


class UnpackFile(Step):
    """One file of an archive, by its name in it, such as the source archive in a wheel."""

    archive: Node
    member: str
    digest: Digest
    bytes: int = unkeyed(0)
    kind: ClassVar[str] = "unpack_file"

    @property
    def expected_digest(self) -> Digest:
        """The pinned digest of the file."""
        return self.digest

    @property
    def transient(self) -> bool:
        """True: the file can be unpacked again."""
        return True

    def place(self, key: Key | None, digests: Mapping[str, Digest | None], places: Mapping[str, Place]) -> Place:
        """Return the place in the directory of source archives, under the file's name."""
        del key, digests, places
        return Place(SOURCES, self.member.rpartition("/")[2])

    def estimate(self) -> ResourceEstimate:
        """Return the size of the file."""
        return ResourceEstimate(disk=self.bytes)

    def run(self, workspace: Workspace) -> None:
        """Extract the file. Raises ``BadArchive`` if it is missing."""
        from llama_runner.system.archive_member_paths import BadArchive  # noqa: PLC0415 - not on the warm path

        extract(workspace, workspace.out, lambda name: workspace.target.name if name == self.member else None)
        if not workspace.target.is_file():
            raise BadArchive(f"there is no {self.member} in the archive")


def extract(workspace: Workspace, into: Path, pick: Callable[[str], str | None], name: str = "archive") -> None:
    """Extract an input into a directory; ``pick`` as of ``archives.extract``."""
    from llama_runner.system import archives  # noqa: PLC0415 - not on the warm path

    def on_progress(done: int, total: int) -> None:
        workspace.check_cancelled()
        workspace.progress(done, total, "bytes")

    archives.extract(workspace.input(name), into, pick=pick, on_progress=on_progress)
