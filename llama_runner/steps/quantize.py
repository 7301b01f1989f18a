"""Quantize a GGUF file with the llama-quantize that was built."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, ClassVar

from llama_runner.binaries.toolchain import PASSED_ENVIRONMENT
from llama_runner.core.step import Needs, Node, Place, Source, Step, noted, unkeyed
from llama_runner.sources.local import bucket

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llama_runner.core.digest import Digest, Key
    from llama_runner.core.workspace import Workspace

_PROGRESS = r"\[\s*(\d+)/\s*(\d+)\]"


class Quantize(Step):
    """A model with fewer bits per weight."""

    model: Node
    type: str
    tool: Node | None = noted(None)
    base_bytes: int = unkeyed(0)
    threads: int = unkeyed(1)
    kind: ClassVar[str] = "quantize"
    resource: ClassVar = "compute"

    def place(self, key: Key | None, digests: Mapping[str, Digest | None], places: Mapping[str, Place]) -> Place | None:
        """Beside the base, under its name with the type added."""
        del key
        if isinstance(self.model, Source):
            digest = digests["model"]
            name = getattr(self.model, "name", "model")
            return None if digest is None else Place(bucket(name, digest), f"{name}.{self.type}.gguf")
        base = places.get("model")
        if base is None:
            return None
        return Place(base.directory, f"{base.name.removesuffix('.gguf')}.{self.type}.gguf")

    def needs(self) -> Needs:
        """A share of the base that follows from the bits per weight, which the name begins with."""
        digit = next((int(letter) for letter in self.type if letter.isdigit()), 8)
        return Needs(disk=self.base_bytes * (digit + 1) // 16)

    def run(self, workspace: Workspace) -> None:
        """Run llama-quantize and read back what it wrote."""
        from llama_runner.sources.gguf import read_header  # noqa: PLC0415 - not on the warm path

        files = (workspace.input("model"), workspace.target)

        def on_line(line: str) -> None:
            if match := re.match(_PROGRESS, line):
                workspace.progress(int(match[1]), int(match[2]), "tensors")

        workspace.call(
            [workspace.input("tool") / "llama-quantize", *files, self.type.upper(), str(self.threads)],
            env={name: os.environ[name] for name in PASSED_ENVIRONMENT if name in os.environ},
            on_line=on_line,
        )
        workspace.fact(**read_header(workspace.target).facts())
