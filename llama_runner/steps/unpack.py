"""Unpack a directory out of a zip archive (a wheel)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from llama_runner.core.errors import StepError
from llama_runner.core.step import Needs, Node, Place, Step, unkeyed

if TYPE_CHECKING:
    import zipfile
    from collections.abc import Mapping
    from pathlib import Path

    from llama_runner.core.digest import Digest, Key
    from llama_runner.core.workspace import Workspace

_EXECUTABLE = 0o100 << 16


class BadArchive(StepError):
    """The archive is damaged, or a member would leave the directory it is unpacked into."""

    def __init__(self, why: str) -> None:
        self.why = why
        super().__init__(f"unpack: {why}", hint="nothing was kept")


class UnpackSource(Step):
    """The llama.cpp source tree: a private copy to build from."""

    archive: Node
    member: str
    directory: str
    digest: Digest
    bytes: int = unkeyed(0)
    kind: ClassVar[str] = "unpack"

    @property
    def promise(self) -> Digest:
        """The pinned digest of the tree."""
        return self.digest

    def place(self, key: Key | None, digests: Mapping[str, Digest | None], places: Mapping[str, Place]) -> Place:
        """Beside the pin."""
        del key, digests, places
        return Place(f"vendor/{self.directory}")

    def needs(self) -> Needs:
        """The tree."""
        return Needs(disk=self.bytes)

    def run(self, workspace: Workspace) -> None:
        """Write every file below ``member``; of the modes only the executable bit is kept."""
        import zipfile  # noqa: PLC0415 - not on the warm path

        try:
            with zipfile.ZipFile(workspace.input("archive")) as archive:
                prefix = self.member.rstrip("/") + "/"
                members = [info for info in archive.infolist() if info.filename.startswith(prefix)]
                for index, info in enumerate(members):
                    workspace.check_cancelled()
                    self._write(archive, info, workspace.out / _inside(info.filename[len(prefix) :]))
                    workspace.progress(index + 1, len(members), "files")
        except (zipfile.BadZipFile, NotImplementedError) as error:
            raise BadArchive(str(error)) from error

    @staticmethod
    def _write(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> None:
        if info.is_dir():
            return
        import shutil  # noqa: PLC0415 - not on the warm path

        path.parent.mkdir(parents=True, exist_ok=True)
        with archive.open(info) as source, path.open("wb") as target:
            shutil.copyfileobj(source, target)
        path.chmod(0o755 if info.external_attr & _EXECUTABLE else 0o644)


def _inside(name: str) -> str:
    """Return a member's name if it stays inside; ``BadArchive`` otherwise."""
    if name.startswith(("/", "\\")) or ":" in name or ".." in name.replace("\\", "/").split("/"):
        raise BadArchive(f"member {name!r} would leave the directory")
    return name
