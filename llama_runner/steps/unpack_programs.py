"""Unpack a directory of programs out of a release archive of llama.cpp."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, ClassVar

from llama_runner.core.digest import short_hash
from llama_runner.core.errors import SourceError
from llama_runner.core.step import Node, Place, ResourceEstimate, Step, keyed_unless_default, unkeyed
from llama_runner.llama_cpp.executable_format import check_platform
from llama_runner.steps.unpack import extract
from llama_runner.store.layout import build_place
from llama_runner.system import hardware
from llama_runner.system.archives import BadArchive

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from llama_runner.core.digest import Digest, Key
    from llama_runner.core.workspace import Workspace

NEEDED = ("llama-server", "llama-quantize")
"""Without these a directory of programs is of no use: nothing could be served, or nothing could be made."""

PROGRAMS_DISK = 400 << 20
"""What a CPU release takes unpacked is 50 MB; CUDA's takes more than a gigabyte."""


class NoPrograms(BadArchive):
    """An archive without the programs that are needed."""

    way_out = "get a release archive of llama.cpp's programs: llama-b…-bin-….zip or .tar.gz"

    def __init__(self, missing: tuple[str, ...], beside: str | None) -> None:
        self.missing, self.beside = missing, beside
        where = "in the archive" if beside is None else f"beside {beside} in the archive"
        super().__init__(f"there is no {' and no '.join(missing)} {where}")


def other_archive_error(expected: Digest, found: Digest) -> SourceError:
    """An archive with another sha256 than the one that was given with it."""
    return SourceError(
        f"the archive has {found}, and {expected} was asked for",
        hint="it is another archive or it is damaged; nothing was unpacked",
    )


class UnpackPrograms(Step):
    """A directory of programs out of a release archive of llama.cpp; proven where it can run, else only looked at."""

    archive: Node
    os_and_arch: str = unkeyed("")
    backend: str = "cpu"
    build: int | None = None
    """What ``llama-server`` must call itself; None: whatever it says."""
    sha256: Digest | None = unkeyed(None)
    """What the archive must hash to; it is in the key anyhow."""
    beside: tuple[Node, ...] = keyed_unless_default(())
    """Archives with libraries that the programs need and their own lacks: CUDA's, on Windows."""
    kind: ClassVar[str] = "unpack_programs"

    @property
    def platform(self) -> dict[str, object]:
        """What the programs are to run on."""
        return {"system": self.os_and_arch}

    def place(self, key: Key | None, digests: Mapping[str, Digest | None], places: Mapping[str, Place]) -> Place | None:
        """Beside what is built here. Raises ``SourceError``: here it is seen even if nothing has to run."""
        del places
        found = digests["archive"]
        if self.sha256 is not None and found not in (None, self.sha256):
            raise other_archive_error(self.sha256, found)
        if key is None:
            return None
        build = "" if self.build is None else f"-b{self.build}"
        return Place(build_place(self.os_and_arch, f"prebuilt-{self.backend}{build}-{short_hash(key)}"))

    def estimate(self) -> ResourceEstimate:
        """The programs, with what is thrown away of the archive."""
        return ResourceEstimate(disk=PROGRAMS_DISK)

    def run(self, workspace: Workspace) -> None:
        """Unpack, find the programs, look at what they run on, prove them.

        Raises ``BadArchive``, ``StepError``, and what ``prove`` raises.
        """
        found = self._found(_unpacked(workspace, "archive"))
        for path in [path for path in found.iterdir() if not _leads_out(path, found)]:
            path.rename(workspace.out / path.name)
        for index in range(len(self.beside)):
            for path in sorted(_unpacked(workspace, f"beside.{index}").rglob("*")):
                if _is_library(path) and not (workspace.out / path.name).exists():
                    path.rename(workspace.out / path.name)
        self._look_at(workspace)
        here = hardware.platform_tag()
        if self.os_and_arch == here:
            from llama_runner.serving.smoke_test import Expected, prove  # noqa: PLC0415 - not on the warm path

            prove(workspace.out, Expected(backend=self.backend, build=self.build), workspace)
        else:
            workspace.add_facts(
                backend=self.backend, proven=None, why=f"for {self.os_and_arch}; this machine is {here}"
            )
            if self.build is not None:
                workspace.add_facts(build=self.build)

    def _found(self, root: Path) -> Path:
        """Return the directory with the programs: that with most of them, of several the uppermost."""
        needed = [self._program(name) for name in NEEDED]
        directories = [path.parent for path in root.rglob(needed[0]) if path.is_file()]
        if not directories:
            for path in (*root.rglob(NEEDED[0]), *root.rglob(f"{NEEDED[0]}.exe")):
                check_platform(path, self.os_and_arch)  # of Windows, or not of Windows
            raise NoPrograms((needed[0],), None)

        def missing(directory: Path) -> tuple[str, ...]:
            return tuple(name for name in needed if not (directory / name).is_file())

        best = min(directories, key=lambda each: (len(missing(each)), len(each.parts), str(each)))
        if lacking := missing(best):
            raise NoPrograms(lacking, (best / needed[0]).relative_to(root).as_posix())
        return best

    def _look_at(self, workspace: Workspace) -> None:
        """Check what every program and library runs on, list the programs, and let them be run."""
        programs = []
        for path in sorted(workspace.out.iterdir()):
            if not path.is_file():
                continue
            is_binary = check_platform(path, self.os_and_arch)
            if is_binary and not _is_library(path):
                programs.append(path.name)
                path.chmod(0o755)  # an archive that was made on Windows says nothing of it
        for name in map(self._program, NEEDED):
            if name not in programs and self.os_and_arch != hardware.platform_tag():
                raise BadArchive(f"{name} in the archive is no program")
        workspace.add_facts(programs=programs)

    def _program(self, name: str) -> str:
        return f"{name}.exe" if self.os_and_arch.startswith("windows") else name


def _is_library(path: Path) -> bool:
    return re.search(r"\.(dll|dylib|so)\b", path.name) is not None


def _leads_out(path: Path, directory: Path) -> bool:
    """Whether it is a link to what is in the archive, but not in the directory that is kept."""
    return path.is_symlink() and not (path.exists() and directory.resolve() in path.resolve().parents)


def _unpacked(workspace: Workspace, name: str) -> Path:
    """Unpack the whole of an input into a directory that is gone afterwards."""
    into = workspace.scratch / name
    into.mkdir()
    extract(workspace, into, lambda member: member, name)
    return into
