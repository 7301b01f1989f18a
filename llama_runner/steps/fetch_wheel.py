"""Step: download a file from the user's package index by name, version and digest."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, ClassVar

from llama_runner.core.errors import DownloadError
from llama_runner.core.step import Place, ResourceEstimate, Step, unkeyed
from llama_runner.engine.errors import ProgramFailed
from llama_runner.store.layout import SOURCES
from llama_runner.system.processes import python_module

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llama_runner.core.digest import Digest, Key
    from llama_runner.core.step_interfaces import Workspace

_RAW_PROGRESS = r"Progress (\d+) of (\d+)"


def fetch_failed_error(what: str, tail: list[str], log: str) -> DownloadError:
    """Return the error for a failed download."""
    lines = "".join(f"\n  {line}" for line in tail[-4:])
    return DownloadError(
        f"{what} could not be fetched from the package index{lines}\nfull log: {log}",
        hint="check the network and pip's index, proxy and certificate settings (pip config list)",
    )


def wrong_file_error(what: str, log: str) -> DownloadError:
    """Return the error for a file with another digest than the pinned one."""
    return DownloadError(
        f"{what} from the package index is not the pinned file: its sha256 differs\nfull log: {log}",
        hint="nothing was kept; check which index pip uses (pip config list)",
    )


class FetchPackage(Step):
    """One file of a package, downloaded by pip, which uses the user's index, proxy and certificates."""

    package: str
    release: str
    filename: str
    digest: Digest
    size: int = unkeyed(0)
    kind: ClassVar[str] = "fetch"
    resource: ClassVar = "network"
    sharing: ClassVar = "record"

    @property
    def expected_digest(self) -> Digest:
        """The pinned digest."""
        return self.digest

    @property
    def source(self) -> dict[str, object]:
        """The package and its version."""
        return {"kind": "package", "ref": f"{self.package}=={self.release}"}

    def place(self, key: Key | None, digests: Mapping[str, Digest | None], places: Mapping[str, Place]) -> Place:
        """Return the place in the directory of source archives."""
        del key, digests, places
        return Place(SOURCES, self.filename)

    def estimate(self) -> ResourceEstimate:
        """Return the size of the file; on disk twice, for pip's copy."""
        return ResourceEstimate(fetch=self.size, disk=2 * self.size)

    def run(self, workspace: Workspace) -> None:
        """Download with pip, which verifies the digest."""
        requirements = workspace.scratch / "requirements.txt"
        requirements.write_text(f"{self.package}=={self.release} --hash={self.digest}\n", encoding="utf-8")
        what = f"{self.package} {self.release}"

        def on_line(line: str) -> None:
            if match := re.match(_RAW_PROGRESS, line):
                workspace.progress(int(match[1]), int(match[2]), "bytes")

        try:
            workspace.run_program(
                [
                    *(*python_module("pip"), "download", "--no-deps", "--no-input"),
                    *("--disable-pip-version-check", "--progress-bar", "raw", "--only-binary", ":all:"),
                    *("--require-hashes", "--dest", workspace.out, "--requirement", requirements),
                ],
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
                on_line=on_line,
            )
        except ProgramFailed as error:
            if any("DO NOT MATCH" in line for line in error.tail):
                raise wrong_file_error(what, error.log) from None
            raise fetch_failed_error(what, error.tail, error.log) from None
