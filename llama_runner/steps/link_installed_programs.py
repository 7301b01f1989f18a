"""Step: use installed llama.cpp programs of the system or of a directory, by links, after a smoke test."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from llama_runner.core.digest import short_hash
from llama_runner.core.errors import ToolError
from llama_runner.core.step import Place, Step, unkeyed
from llama_runner.llama_cpp.executable_format import check_platform
from llama_runner.llama_cpp.system_binaries import SERVER, AdoptedPrograms
from llama_runner.store.layout import build_place
from llama_runner.system.platforms import IS_WINDOWS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from llama_runner.core.digest import Digest, Key
    from llama_runner.core.step_interfaces import Workspace

LIST = "adopted.txt"
"""File with the sha256 and path of each program and library; links alone would not change after an upgrade."""


def missing_program_error(program: str) -> ToolError:
    """Return the error for a program that the adopted programs lack."""
    return ToolError(
        f"the system's programs lack {program}",
        hint="install it beside llama-server, or take other programs: --binaries build or --binaries prebuilt",
    )


class AdoptPrograms(Step):
    """A directory of links to installed programs; copies on Windows. Keyed by their contents."""

    programs: AdoptedPrograms
    directory: str
    """Path of the programs; keyed, as the links depend on it."""
    server: str
    os_and_arch: str = unkeyed("")
    kind: ClassVar[str] = "adopt"
    sharing: ClassVar = "nothing"

    @property
    def platform(self) -> dict[str, object]:
        """Operating system and architecture of the programs."""
        return {"system": self.os_and_arch}

    def place(self, key: Key | None, digests: Mapping[str, Digest | None], places: Mapping[str, Place]) -> Place | None:
        """Return the place of a build, with digits of the key."""
        del digests, places
        return None if key is None else Place(build_place(self.os_and_arch, f"system-{short_hash(key)}"))

    def run(self, workspace: Workspace) -> None:
        """Link the programs, write the list, run the smoke test. Raises ``StepError``, and the errors of ``prove``."""
        from llama_runner.serving.smoke_test import Expected, prove  # noqa: PLC0415 - not on the warm path
        from llama_runner.store.digest_cache import hash_file  # noqa: PLC0415

        lines = []
        for name, path in self.programs.files().items():
            workspace.check_cancelled()
            lines.append(f"{hash_file(path)}  {path}\n")
            if "/" in name:  # a library in another directory, found relative to the real path of the program
                continue
            if name == self.server:
                check_platform(path, self.os_and_arch)
            _link(path, workspace.out / _artifact_name(name, self.server))
        (workspace.out / LIST).write_text("".join(lines), encoding="utf-8", errors="surrogateescape")
        prove(workspace.out, Expected(), workspace)


def program_path(directory: Path, name: str) -> Path:
    """Return the path of a program in a build. Raises ``ToolError`` if it is missing, as in some adopted builds."""
    for path in (directory / name, directory / f"{name}.exe"):
        if path.is_file():
            return path
    raise missing_program_error(name)


def _artifact_name(name: str, server: str) -> str:
    """Return the name of a program in the artifact; a server with another file name is called llama-server."""
    if name != server:
        return name
    return f"{SERVER}.exe" if name.lower().endswith(".exe") else SERVER


def _link(original: Path, link: Path) -> None:
    if not IS_WINDOWS:
        link.symlink_to(original)
        return
    import shutil  # noqa: PLC0415 - not on the warm path

    shutil.copy2(original, link)  # on Windows only administrators may make links
