"""Step: compute the importance matrix (imatrix) of a model for a text, with llama-imatrix."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, ClassVar

from llama_runner.core.digest import short_hash
from llama_runner.core.errors import SourceError
from llama_runner.core.source import Source
from llama_runner.core.step import Node, Place, ResourceEstimate, Step, noted, unkeyed
from llama_runner.engine.errors import ProgramFailed
from llama_runner.llama_cpp.program_environment import check_system_config, step_environment
from llama_runner.sources.local import artifact_directory

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from llama_runner.core.digest import Digest, Key
    from llama_runner.core.step_interfaces import Workspace

_CONTEXT = 512
_SIZE = 64 << 20
"""Approximate size of the matrix of a large model in bytes."""


def text_too_short_error(name: str, tokens: int) -> SourceError:
    """Return the error for a text with fewer tokens than llama.cpp requires."""
    return SourceError(
        f"{name} is too short: at least {tokens} tokens are needed",
        hint="give a text of the kind the model is used for",
    )


class Imatrix(Step):
    """An importance matrix of a model for a text, as GGUF."""

    model: Node
    text: Source
    chunks: int | None = None
    """Number of chunks of 512 tokens that are read; None: all."""
    tool: Node | None = noted(None)
    threads: int = unkeyed(1)
    kind: ClassVar[str] = "imatrix"
    resource: ClassVar = "compute"

    def place(self, key: Key | None, digests: Mapping[str, Digest | None], places: Mapping[str, Place]) -> Place | None:
        """Return a place in the directory of the model, with digits of the key."""
        if key is None:
            return None
        if isinstance(self.model, Source):
            digest = digests["model"]
            directory = None if digest is None else artifact_directory(getattr(self.model, "name", "model"), digest)
        else:
            directory = places["model"].directory if "model" in places else None
        return None if directory is None else Place(directory, f"imatrix-{short_hash(key)}.gguf")

    def estimate(self) -> ResourceEstimate:
        """Return the size of the matrix."""
        return ResourceEstimate(disk=_SIZE)

    def run(self, workspace: Workspace) -> None:
        """Run llama-imatrix on the text."""
        import shutil  # noqa: PLC0415 - not on the warm path

        from llama_runner.steps.link_installed_programs import program_path  # noqa: PLC0415 - not on the warm path

        shutil.copyfile(workspace.input("text"), workspace.scratch / "calibration.txt")  # its name is in the output
        total = self.chunks or 0

        def on_line(line: str) -> None:
            nonlocal total
            if match := re.search(r"computing over (\d+) chunks", line):
                total = int(match[1])
            for count in re.findall(r"\[(\d+)\]", line):
                workspace.progress(int(count), max(total, int(count)), "chunks")

        check_system_config(lambda text: workspace.warn("system_config", text))
        words: list[str | Path] = [
            program_path(workspace.input("tool"), "llama-imatrix"),
            "-m",
            workspace.input("model"),
        ]
        words += ["-f", "calibration.txt", "-o", workspace.target, "--ctx-size", str(_CONTEXT), "--no-ppl"]
        words += ["--threads", str(self.threads)]
        words += ["--chunks", str(self.chunks)] if self.chunks is not None else []
        try:
            workspace.run_program(
                words,
                env=step_environment(os.environ),
                cwd=workspace.scratch,
                on_line=on_line,
            )
        except ProgramFailed as error:
            if any("you need at least" in line for line in error.tail):
                raise text_too_short_error(workspace.input("text").name, 2 * _CONTEXT) from None
            raise
        workspace.add_facts(chunks=total)
