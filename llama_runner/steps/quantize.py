"""Step: quantize a GGUF file with llama-quantize."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, ClassVar

from llama_runner.core.digest import short_hash
from llama_runner.core.source import Source
from llama_runner.core.step import Node, Place, ResourceEstimate, Step, keyed_unless_default, noted, unkeyed
from llama_runner.llama_cpp.program_environment import step_environment
from llama_runner.sources.local import artifact_directory
from llama_runner.system.platforms import IS_WINDOWS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from llama_runner.core.digest import Digest, Key
    from llama_runner.core.step_interfaces import Workspace

_PROGRESS = r"\[\s*(\d+)/\s*(\d+)\]"
_BITS = r"llama_model_quantize_impl: quant size *= .*\((\d+\.\d+) BPW\)"
_FALLBACK = r".*WARNING: (\d+) of (\d+) tensor\(s\) required fallback quantization"


class Quantize(Step):
    """A quantized model."""

    model: Node
    type: str
    tool: Node | None = noted(None)
    base_bytes: int = unkeyed(0)
    threads: int = unkeyed(1)
    imatrix: Node | None = keyed_unless_default(None)
    tuning: tuple[str, ...] = keyed_unless_default(())
    """Options of llama-quantize, as ``QuantizeOptions.arguments`` returns them."""
    shards: int = unkeyed(0)
    """Number of shards if the output is split like the source; else 0."""
    kind: ClassVar[str] = "quantize"
    resource: ClassVar = "compute"

    @property
    def label(self) -> str:
        """The type, with an asterisk if an imatrix or other options are used."""
        return f"{self.type}*" if self._is_special else self.type

    @property
    def _is_special(self) -> bool:
        return bool(self.tuning) or self.imatrix is not None

    @property
    def entry(self) -> str:
        """See ``Step``."""
        return f"model-00001-of-{self.shards:05}.gguf" if self.shards else ""

    def place(self, key: Key | None, digests: Mapping[str, Digest | None], places: Mapping[str, Place]) -> Place | None:
        """Return a place in the directory of the base: its name with the type, and digits of the key for options."""
        directory, stem = self._beside(digests, places)
        if directory is None or (self._is_special and key is None):
            return None
        name = f"{stem}.{self.type}" + (f"-{short_hash(str(key))}" if self._is_special else "")
        return Place(f"{directory}/{name}") if self.shards else Place(directory, f"{name}.gguf")

    def _beside(self, digests: Mapping[str, Digest | None], places: Mapping[str, Place]) -> tuple[str | None, str]:
        if isinstance(self.model, Source):
            digest, name = digests["model"], getattr(self.model, "name", "model")
            return (None if digest is None else artifact_directory(name, digest)), name
        base = places.get("model")
        return (None, "") if base is None else (base.directory, base.name.removesuffix(".gguf"))

    def estimate(self) -> ResourceEstimate:
        """Return the size of the base times the bits per weight, from the first digit of the type, over 16."""
        digit = next((int(letter) for letter in self.type if letter.isdigit()), 8)
        return ResourceEstimate(disk=self.base_bytes * (digit + 1) // 16)

    def check_fetched(self, workspace: Workspace) -> None:
        """Read the header of the file, so that its facts are those of the bytes."""
        from llama_runner.sources.gguf_header import read_header  # noqa: PLC0415 - not on the warm path

        made = workspace.out / self.entry if self.shards else workspace.target
        workspace.add_facts(**read_header(made).facts())

    def run(self, workspace: Workspace) -> None:
        """Run llama-quantize and read the header of its output."""
        from llama_runner.sources.gguf_header import read_header  # noqa: PLC0415 - not on the warm path
        from llama_runner.steps.link_installed_programs import program_path  # noqa: PLC0415 - not on the warm path

        told: dict[str, tuple[str, ...]] = {}

        def on_line(line: str) -> None:
            if match := re.match(_PROGRESS, line):
                workspace.progress(int(match[1]), int(match[2]), "tensors")
            for pattern in (_BITS, _FALLBACK):
                if match := re.match(pattern, line):
                    told[pattern] = match.groups()

        imatrix: list[str | Path] = []
        if self.imatrix is not None:
            import shutil  # noqa: PLC0415 - not on the warm path

            imatrix = ["--imatrix", f"imatrix{workspace.input('imatrix').suffix}"]
            shutil.copyfile(workspace.input("imatrix"), workspace.scratch / imatrix[1])  # its name ends up in the file
        target = workspace.out / "model" if self.shards else workspace.target  # of several, a prefix is given
        words: list[str | Path] = [program_path(workspace.input("tool"), "llama-quantize"), *self.tuning, *imatrix]
        files = (_as_argument(path, workspace.scratch) for path in (workspace.input("model"), target))
        words += [*files, self.type.upper(), str(self.threads)]
        workspace.run_program(
            words,
            env=step_environment(os.environ),
            cwd=workspace.scratch,
            on_line=on_line,
        )
        made = workspace.out / self.entry if self.shards else workspace.target
        workspace.add_facts(**read_header(made).facts())
        if _BITS in told:
            workspace.add_facts(bits_per_weight=told[_BITS][0])
        if _FALLBACK in told:
            count, of = told[_FALLBACK]
            workspace.add_facts(fallback_tensors=int(count))
            text = f"{count} of {of} tensors have rows that {self.type} cannot hold, and are stored in a larger type"
            workspace.notice("fallback", text)


def _as_argument(path: Path, directory: Path) -> str | Path:
    """Return a path as llama-quantize takes it, which is started in a directory.

    On Windows it does not read its arguments as UTF-8: a path that has other letters is given from there.
    """
    if not IS_WINDOWS or str(path).isascii():
        return path
    try:
        return os.path.relpath(path, directory)
    except ValueError:  # on another drive
        return path
