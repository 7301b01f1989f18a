"""Copies of model files for ``--output``; the target is checked before any work."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from llama_runner.core.errors import StoreError, UsageError
from llama_runner.core.sizes import size_text
from llama_runner.request.result_types import OutputExists
from llama_runner.store.layout import PARTS, user_path

if TYPE_CHECKING:
    from pathlib import Path

    from llama_runner.core.step import Step
    from llama_runner.request.pipeline_graph import Pipeline
    from llama_runner.request.result_types import ModelFile
    from llama_runner.store.artifacts import Store


class OutputInStore(UsageError):
    """A copy is to be put among the artifacts."""

    def __init__(self, path: Path) -> None:
        self.path = path
        super().__init__(f"{path} is inside the store", hint="choose an --output outside of it")


class OutputNotWritable(StoreError):
    """A copy cannot be put there."""

    def __init__(self, path: Path, why: str, hint: str = "choose another --output") -> None:
        self.path, self.why = path, why
        super().__init__(f"cannot write {path}: {why}", hint=hint)


def is_directory_error(path: Path) -> UsageError:
    """Return the error for a directory that is named without the slash that says that a file is to be put into it."""
    return UsageError(f"{path} is a directory", hint=f"a copy is put into it with a slash: --output {path}/")


def output_file(pipeline: Pipeline, output: str | Path) -> Path:
    """Return the file that an output stands for: with a slash at its end, one named after the model in a directory."""
    path = user_path(output)
    if not os.fspath(output).endswith(("/", os.sep)):
        return path
    name = pipeline.alias.rpartition("/")[2].removesuffix(":auto").replace(":", ".")
    return path / f"{name.removesuffix('.gguf')}.gguf"


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


def copied(store: Store, pipeline: Pipeline, made: list[ModelFile], wanted: str | Path) -> list[ModelFile]:
    """Copy the first of the files that were made; return them with what was copied."""
    first, *others = made
    copies = copies_of(pipeline.model, first.path, output_file(pipeline, wanted))
    store.copy_out(copies)
    return [first.replace(copies=tuple(copies.values())), *others]


def check_output(pipeline: Pipeline, wanted: str | Path, root: Path) -> None:
    """Raise a ``UsageError``, or ``OutputNotWritable``, if copies of the model cannot be put there."""
    if not os.fspath(wanted):
        raise UsageError("the output has no name", hint="say which file: --output FILE, or --output DIR/")
    output = output_file(pipeline, wanted)
    if output.is_dir():
        raise is_directory_error(output)
    for file in copies_of(pipeline.model, output, output).values():
        if os.path.lexists(file):
            raise OutputExists(file)
    folder = output.parent
    if not folder.is_dir():
        missing = None if os.path.lexists(folder) else f"make it: mkdir -p {folder}"
        raise OutputNotWritable(output, f"{folder} is not a directory", *filter(None, [missing]))
    if not os.access(folder, os.W_OK):
        raise OutputNotWritable(output, f"{folder} is not writable")
    real = folder.resolve()
    if any(real.is_relative_to((root / name).resolve()) for name in PARTS):
        raise OutputInStore(output)
    import shutil  # noqa: PLC0415 - only for a copy

    need, free = 0 if pipeline.model is None else pipeline.model.estimate().disk, shutil.disk_usage(folder).free
    if need > free:
        raise OutputNotWritable(output, f"{size_text(need)} needed in {folder}, {size_text(free)} free")
