"""Where copies of model files go: ``--output``. Checked before any work is done."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from llama_runner.core.errors import StoreError, UsageError
from llama_runner.request.results import OutputExists
from llama_runner.store.layout import PARTS

if TYPE_CHECKING:
    from pathlib import Path

    from llama_runner.core.step import Step


class OutputInStore(UsageError):
    """A copy is to be put among the artifacts."""

    def __init__(self, path: Path) -> None:
        self.path = path
        super().__init__(f"{path} is inside the store", hint="choose an --output outside of it")


class OutputNotWritable(StoreError):
    """A copy cannot be put there."""

    def __init__(self, path: Path, why: str) -> None:
        self.path, self.why = path, why
        super().__init__(f"cannot write {path}: {why}", hint="choose another --output")


def copies_of(model: Step | None, path: Path, output: Path) -> dict[Path, Path]:
    """Return the files to copy, and where to: ``path``, the first or only file of a model, to ``output``.

    The files of a model in several find each other by their names: ``out.gguf`` stands for ``out-00001-of-00003.gguf``
    and so on, and so does ``out-00001-of-00003.gguf``.
    """
    shards = getattr(model, "shards", 0)
    return dict(zip(_names(path, shards), _names(output, shards), strict=True))


def _names(path: Path, shards: int) -> list[Path]:
    if not shards:
        return [path]
    base = re.sub(rf"-\d{{5}}-of-{shards:05}$", "", path.name.removesuffix(".gguf"))
    return [path.with_name(f"{base}-{number:05}-of-{shards:05}.gguf") for number in range(1, shards + 1)]


def check_output(model: Step | None, output: Path, root: Path) -> None:
    """Raise ``OutputExists``, ``OutputInStore`` or ``OutputNotWritable`` if copies cannot be put there."""
    for file in copies_of(model, output, output).values():
        if os.path.lexists(file):
            raise OutputExists(file)
    if not output.parent.is_dir():
        raise OutputNotWritable(output, f"{output.parent} is not a directory")
    if not os.access(output.parent, os.W_OK):
        raise OutputNotWritable(output, f"{output.parent} is not writable")
    real = output.parent.resolve()
    if any(real.is_relative_to((root / name).resolve()) for name in PARTS):
        raise OutputInStore(output)
