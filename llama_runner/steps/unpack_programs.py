"""Step: unpack the programs of a release archive of llama.cpp."""

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
from llama_runner.system.archive_member_paths import BadArchive
from llama_runner.system.find_programs import find_program

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from llama_runner.core.digest import Digest, Key
    from llama_runner.core.step_interfaces import Workspace

NEEDED = ("llama-server", "llama-quantize")
"""Programs that a build must have, to serve and to quantize."""

PROGRAMS_DISK = 400 << 20
"""Estimate; a CPU release has 50 MB, a CUDA release more than 1 GB."""


class NoPrograms(BadArchive):
    """The archive lacks required programs."""

    resolution = "get a release archive of llama.cpp's programs: llama-b…-bin-….zip or .tar.gz"

    def __init__(self, missing: tuple[str, ...], beside: str | None) -> None:
        self.missing, self.beside = missing, beside
        where = "in the archive" if beside is None else f"beside {beside} in the archive"
        super().__init__(f"there is no {' and no '.join(missing)} {where}")


class UnpackPrograms(Step):
    """The programs of a release archive. They get a smoke test if they are for this platform, else a format check.

    Programs for Windows serve the demo model on Linux if there is a Wine; what fails there is told and no error.
    """

    archive: Node
    os_and_arch: str = unkeyed("")
    backend: str = "cpu"
    build: int | None = None
    """Expected build number of ``llama-server``; None: any."""
    sha256: Digest | None = unkeyed(None)
    """Expected digest of the archive; not keyed, as the input's digest is."""
    beside: tuple[Node, ...] = keyed_unless_default(())
    """Archives with further libraries: those of CUDA on Windows."""
    kind: ClassVar[str] = "unpack_programs"

    @property
    def platform(self) -> dict[str, object]:
        """Operating system and architecture of the programs."""
        return {"system": self.os_and_arch}

    def place(self, key: Key | None, digests: Mapping[str, Digest | None], places: Mapping[str, Place]) -> Place | None:
        """Return the place of a build, with digits of the key.

        Raises ``SourceError`` for an archive with another digest, here and not in ``run``, so that it is reported even
        if nothing has to run.
        """
        del places
        found = digests["archive"]
        if self.sha256 is not None and found not in (None, self.sha256):
            raise SourceError(
                f"the archive has {found}, not the given {self.sha256}",
                hint="it is another archive or it is damaged; nothing was unpacked",
            )
        if key is None:
            return None
        build = "" if self.build is None else f"-b{self.build}"
        return Place(build_place(self.os_and_arch, f"prebuilt-{self.backend}{build}-{short_hash(key)}"))

    def estimate(self) -> ResourceEstimate:
        """Return the estimated size of the unpacked archive."""
        return ResourceEstimate(disk=PROGRAMS_DISK)

    def run(self, workspace: Workspace) -> None:
        """Unpack, find the programs, check their platform, run the smoke test.

        Raises ``BadArchive``, ``StepError``, and the errors of ``prove``.
        """
        found = self._find_programs(_unpack(workspace, "archive"))
        for path in [path for path in found.iterdir() if not _links_outside(path, found)]:
            path.rename(workspace.out / path.name)
        for index in range(len(self.beside)):
            for path in sorted(_unpack(workspace, f"beside.{index}").rglob("*")):
                if _is_library(path) and not (workspace.out / path.name).exists():
                    path.rename(workspace.out / path.name)
        self._check_programs(workspace)
        here = hardware.platform_tag()
        if self.os_and_arch == here:
            from llama_runner.serving.smoke_test import Expected, prove  # noqa: PLC0415 - not on the warm path

            prove(workspace.out, Expected(backend=self.backend, build=self.build), workspace)
        elif why := self._prove_under_wine(workspace):
            workspace.notice("not_proven", f"not proven here: {why}")
            workspace.add_facts(
                backend=self.backend, proven=None, why=f"for {self.os_and_arch}; this machine is {here}"
            )
            if self.build is not None:
                workspace.add_facts(build=self.build)

    def _prove_under_wine(self, workspace: Workspace) -> str | None:
        """Prove programs for Windows; return why they are not proven, None if they are."""
        if (hardware.platform_tag(), self.os_and_arch) != ("linux-x86_64", "windows-x64"):
            return f"they are for {self.os_and_arch}"
        wine = find_program("wine")
        if wine is None:
            return "they are for Windows, and there is no Wine"
        from llama_runner.serving.smoke_test import Expected, prove_under_wine  # noqa: PLC0415 - not on the warm path
        from llama_runner.serving.smoke_test_errors import Rejected  # noqa: PLC0415 - as above

        try:
            prove_under_wine(workspace.out, Expected(backend=self.backend, build=self.build), workspace, wine)
        except Rejected as error:  # Wine may lack something that Windows has
            return f"under Wine, {str(error).splitlines()[0]}"
        return None

    def _find_programs(self, root: Path) -> Path:
        """Return the directory that has most of the programs; of several, the one nearest to the root."""
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

    def _check_programs(self, workspace: Workspace) -> None:
        """Check the platform of every program and library, record the programs, and make them executable."""
        programs = []
        for path in sorted(workspace.out.iterdir()):
            if not path.is_file():
                continue
            is_binary = check_platform(path, self.os_and_arch)
            if is_binary and not _is_library(path):
                programs.append(path.name)
                path.chmod(0o755)  # an archive made on Windows has no modes
        for name in map(self._program, NEEDED):
            if name not in programs and self.os_and_arch != hardware.platform_tag():
                raise BadArchive(f"{name} in the archive is not a program")
        workspace.add_facts(programs=programs)

    def _program(self, name: str) -> str:
        return f"{name}.exe" if self.os_and_arch.startswith("windows") else name


def _is_library(path: Path) -> bool:
    return re.search(r"\.(dll|dylib|so)\b", path.name) is not None


def _links_outside(path: Path, directory: Path) -> bool:
    """Whether a link leads outside of the directory that is kept."""
    return path.is_symlink() and not (path.exists() and directory.resolve() in path.resolve().parents)


def _unpack(workspace: Workspace, name: str) -> Path:
    """Unpack all of an input into a temporary directory."""
    into = workspace.scratch / name
    into.mkdir()
    extract(workspace, into, lambda member: member, name)
    return into
