"""Describes a model by its headers: a GGUF file (also split), or a directory of safetensors."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any

from llama_runner.core.immutable_values import Value
from llama_runner.sources.gguf_header import read_header
from llama_runner.sources.local import LocalGguf, LocalSafetensors
from llama_runner.sources.resolve_source import open_source

if TYPE_CHECKING:
    from pathlib import Path

    from llama_runner.sources.gguf_header import GgufHeader


class Described(Value):
    """One tensor: ``shape`` row-major, the length of a row last."""

    name: str
    shape: tuple[int, ...]
    type: str
    bytes: int


class Inspection(Value):
    """A model on disk."""

    format: str
    """``gguf`` or ``safetensors``."""
    files: tuple[Path, ...]
    bytes: int
    architecture: str | None
    parameters: int
    context_length: int | None
    vocabulary: int | None
    """How many tokens."""
    types: dict[str, int]
    """How many tensors are stored in each type."""
    metadata: dict[str, Any]
    """Scalars; of an array how many elements it has, as ``{"array": n}``."""
    template: str | None
    """The chat template."""
    tensors: tuple[Described, ...]

    @property
    def bits_per_weight(self) -> float:
        """Bits of all tensors together for each weight."""
        return 8 * sum(tensor.bytes for tensor in self.tensors) / self.parameters if self.parameters else 0.0

    def to_json(self) -> dict[str, Any]:
        """Return the document of ``inspect --json``."""
        return {
            **self.__dict__,
            "files": [str(path) for path in self.files],
            "bits_per_weight": round(self.bits_per_weight, 3),
            "tensors": [{**tensor.__dict__, "shape": list(tensor.shape)} for tensor in self.tensors],
        }


def inspect(path: str | Path) -> Inspection:
    """Look at a GGUF file, or one of the files of a split one, or a directory of safetensors. Reads headers only.

    Raises a ``SourceError`` for what is no model.
    """
    source = open_source(safetensors_dir=path) if _is_directory(path) else open_source(gguf_path=path)
    if isinstance(source, LocalSafetensors):
        return _of_directory(source)
    assert isinstance(source, LocalGguf)
    return _of_files(source)


def _is_directory(path: str | Path) -> bool:
    from llama_runner.store.layout import user_path  # noqa: PLC0415 - one word of it

    return user_path(path).is_dir()


def _of_files(source: LocalGguf) -> Inspection:
    headers = [source.header, *(read_header(path) for path in source.shards[1:])]
    entries = [entry for header in headers for entry in header.entries]
    tensors = tuple(Described(entry.name, entry.shape[::-1], entry.type, entry.bytes) for entry in entries)
    first = headers[0]
    return Inspection(
        format="gguf",
        files=source.shards,
        bytes=sum(path.stat().st_size for path in source.shards),
        architecture=first.text("general.architecture"),
        parameters=sum(entry.elements for entry in entries),
        context_length=first.facts().get("context_length"),
        vocabulary=first.arrays.get("tokenizer.ggml.tokens"),
        types=dict(Counter(tensor.type for tensor in tensors).most_common()),
        metadata=_metadata(first),
        template=first.text("tokenizer.chat_template"),
        tensors=tensors,
    )


def _metadata(header: GgufHeader) -> dict[str, Any]:
    scalars = {name: _in_json(value) for name, value in header.metadata.items() if name != "tokenizer.chat_template"}
    return {**scalars, **{name: {"array": count} for name, count in header.arrays.items()}}


def _in_json(value: Any) -> Any:  # noqa: ANN401 - a scalar of a header
    """Return a value that JSON can represent; infinities and NaN become text."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _of_directory(source: LocalSafetensors) -> Inspection:
    """Look at config.json and the headers of the shards: also of a model that cannot be converted here."""
    from llama_runner.convert import find_weight_files  # noqa: PLC0415 - only here
    from llama_runner.convert.model_directory import ModelDirectory, architecture_of  # noqa: PLC0415

    files = ModelDirectory(source.path)
    architecture, config = architecture_of(files), files.config
    inner = config.get("text_config")  # of a model that sees or hears too
    said = {**inner, **config} if isinstance(inner, dict) else config
    found = find_weight_files.find_shards(files)
    tensors = tuple(Described(t.name, t.shape, t.dtype.lower(), t.nbytes) for one in found for t in one.tensors)
    return Inspection(
        format="safetensors",
        files=tuple(shard.path for shard in found),
        bytes=sum(shard.stamp.size for shard in found),
        architecture=architecture,
        parameters=sum(tensor.elements for shard in found for tensor in shard.tensors),
        context_length=_count(said, "max_position_embeddings", "n_ctx", "n_positions"),
        vocabulary=_count(said, "vocab_size"),
        types=dict(Counter(tensor.type for tensor in tensors).most_common()),
        metadata={
            name: {"array": len(value)} if isinstance(value, list) else _in_json(value)
            for name, value in said.items()
            if not isinstance(value, dict)
        },
        template=_template(source.path),
        tensors=tensors,
    )


def _count(config: dict[str, Any], *names: str) -> int | None:
    """Return the first of these numbers that config.json has."""
    found = next((config[name] for name in names if name in config), None)
    return found if isinstance(found, int) and not isinstance(found, bool) else None


def _template(directory: Path) -> str | None:
    """Return the chat template of a directory, from wherever it stands."""
    from llama_runner.system.files import LARGEST_JSON, read_bounded, read_json  # noqa: PLC0415 - only here

    file = directory / "chat_template.jinja"
    try:
        if file.is_file():
            return read_bounded(file, LARGEST_JSON).decode("utf-8", "replace")
        found = read_json(directory / "tokenizer_config.json").get("chat_template")
    except (OSError, ValueError, AttributeError):
        return None
    return found if isinstance(found, str) else None
