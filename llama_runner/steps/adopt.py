"""Programs that lie on this machine already, taken as they are: links to them, once they have proved themselves."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, ClassVar

from llama_runner.core.digest import short_hash
from llama_runner.core.errors import ToolError
from llama_runner.core.step import Place, Step, unkeyed
from llama_runner.llama_cpp.executable_format import check_platform
from llama_runner.llama_cpp.system_binaries import SERVER, AdoptedPrograms
from llama_runner.store.layout import build_place

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from llama_runner.core.digest import Digest, Key
    from llama_runner.core.workspace import Workspace

LIST = "adopted.txt"
"""The sha256 and the path of each program and library. Links alone would look the same after an upgrade."""


def program_lacking_error(program: str) -> ToolError:
    """Programs that were adopted are not enough for what is asked."""
    return ToolError(
        f"the system's programs lack {program}",
        hint="install it beside llama-server, or take other programs: --binaries build or --binaries prebuilt",
    )


class AdoptPrograms(Step):
    """A directory of links to the programs where they lie; of copies on Windows. Keyed by what is in them."""

    programs: AdoptedPrograms
    directory: str
    """Where they lie: the same programs elsewhere are other links."""
    server: str
    os_and_arch: str = unkeyed("")
    kind: ClassVar[str] = "adopt"

    @property
    def platform(self) -> dict[str, object]:
        """What the programs run on."""
        return {"system": self.os_and_arch}

    def place(self, key: Key | None, digests: Mapping[str, Digest | None], places: Mapping[str, Place]) -> Place | None:
        """Beside what is built here."""
        del digests, places
        return None if key is None else Place(build_place(self.os_and_arch, f"system-{short_hash(key)}"))

    def run(self, workspace: Workspace) -> None:
        """Link, list, prove. Raises ``StepError``, and what ``prove`` raises."""
        from llama_runner.serving.smoke_test import Expected, prove  # noqa: PLC0415 - not on the warm path
        from llama_runner.store.stamps import hash_file  # noqa: PLC0415

        lines = []
        for name, path in self.programs.files().items():
            workspace.check_cancelled()
            lines.append(f"{hash_file(path)}  {path}\n")
            if "/" in name:  # a library elsewhere; it is found from where the program really is
                continue
            if name == self.server:
                check_platform(path, self.os_and_arch)
            _link(path, workspace.out / _called(name, self.server))
        (workspace.out / LIST).write_text("".join(lines), encoding="utf-8", errors="surrogateescape")
        prove(workspace.out, Expected(), workspace)


def program_in(directory: Path, name: str) -> Path:
    """Return a program of a directory of programs; ``ToolError``: of a system nothing but a server may be here."""
    for path in (directory / name, directory / f"{name}.exe"):
        if path.is_file():
            return path
    raise program_lacking_error(name)


def _called(name: str, server: str) -> str:
    """Return what a program is called in the artifact: a server that the user named may be called anything."""
    if name != server:
        return name
    return f"{SERVER}.exe" if name.lower().endswith(".exe") else SERVER


def _link(original: Path, link: Path) -> None:
    if os.name != "nt":
        link.symlink_to(original)
        return
    import shutil  # noqa: PLC0415 - not on the warm path

    shutil.copy2(original, link)  # links are for administrators there
