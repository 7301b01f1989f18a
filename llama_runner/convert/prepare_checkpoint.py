"""Checks a model directory and prepares everything of the output except the weights.

`describe` reads only small files, before the weights are here; `inspect` also reads the headers of the shards. Both
raise for anything wrong in these files. `prepare` also makes the plan that `gguf_writer` writes. What the two have in
common, headers and vocabulary, is kept by `inspect` for the conversion that follows in the same process.
"""

from __future__ import annotations

import os
import struct
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llama_runner.convert import find_weight_files, general_metadata
from llama_runner.convert.config_json import load
from llama_runner.convert.errors import (
    BadVocabulary,
    no_vision_tensors_error,
    unexpected_structure_error,
    unsupported_projector_error,
)
from llama_runner.convert.families import family_of
from llama_runner.convert.gguf_metadata import KeyValues
from llama_runner.convert.model_config import Config
from llama_runner.convert.model_directory import ModelDirectory, architecture_of
from llama_runner.convert.projectors import PROJECTORS, is_native_projector, projector_of
from llama_runner.convert.projectors.projector_definition import TEXT
from llama_runner.convert.quantized_tensors import assemble
from llama_runner.convert.safetensors import Stamp
from llama_runner.convert.tensor_plan import plan
from llama_runner.convert.tensor_types import FILE_TYPES, MXFP4_FILE_TYPE, guess_outtype

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from llama_runner.convert.families.family_definition import Family
    from llama_runner.convert.quantization_config import Quantization
    from llama_runner.convert.safetensors import Shard, Tensor
    from llama_runner.convert.tensor_plan import PlannedTensor
    from llama_runner.convert.vocab import Vocabulary

_STRUCTURE_ERRORS = (
    *(ArithmeticError, AttributeError, LookupError, TypeError, ValueError),
    *(MemoryError, RecursionError, struct.error),
)
"""Exceptions that Python raises for a value of an unexpected type or size."""
QUANTIZATION_VERSION = 2  # of ggml; written into every file, quantized or not


@dataclass(frozen=True)
class Checkpoint:
    """Contents of a model directory; ``dtype`` is the type of most bytes."""

    architecture: str
    family: str
    dtype: str
    parameters: int
    weight_bytes: int
    context_length: int | None
    vocabulary_kind: str
    vocabulary_size: int
    tensors: tuple[Tensor, ...]
    files: tuple[Path, ...]
    differences: tuple[str, ...]
    """Sentences about text that llama.cpp splits differently from the model's own tokenizer."""


@dataclass(frozen=True)
class Description:
    """Contents of the small files of a model."""

    architecture: str
    family: str
    context_length: int | None
    shards: tuple[str, ...]
    """Shards that the index names; empty for a model in one file."""


@dataclass(frozen=True)
class PreparedConversion:
    """Metadata, planned tensors and shards: everything that writing the output needs."""

    checkpoint: Checkpoint
    outtype: str
    values: KeyValues
    planned: tuple[PlannedTensor, ...]
    shards: tuple[Shard, ...]
    quantization: Quantization | None = None
    """Quantization of the stored weights, None if there is none."""
    vocabulary: WrittenVocabulary | None = None
    """The vocabulary and its metadata; None for a projector."""


@dataclass(frozen=True)
class WrittenVocabulary:
    """A vocabulary, and the metadata that it set."""

    vocabulary: Vocabulary
    encoded: Mapping[str, bytes]


@dataclass(frozen=True)
class _Inspected:
    """Headers and vocabulary of a directory, which do not depend on the type of the output."""

    key: tuple[Path, str, str | None]
    """The directory, the name for the metadata, and the pre-tokenizer that the user gave."""
    stamps: Mapping[str, Stamp]
    """The stamps of the files in the directory before they were read."""
    shards: tuple[Shard, ...]
    vocabulary: WrittenVocabulary


@dataclass
class _LastInspected:
    """What the last `inspect` has read, until it is taken."""

    found: _Inspected | None = None


_last = _LastInspected()


def describe(directory: Path, *, vocabulary: bool = True, pre_tokenizer: str | None = None) -> Description:
    """Check config.json and, with ``vocabulary``, the tokenizer and the index; raises as `inspect`."""
    source = ModelDirectory(directory, pre_tokenizer=pre_tokenizer)
    with _structural():
        architecture = architecture_of(source)
        family, config = _configured(source, architecture)
        values = KeyValues(family.name)
        family.hyperparameters(values, config, source, FILE_TYPES["f16"])
    if vocabulary:
        _vocabulary(family, values, config, source)
    return Description(architecture, family.name, _context(config), tuple(find_weight_files.named_by_index(source)))


def _configured(source: ModelDirectory, architecture: str) -> tuple[Family, Config]:
    family = family_of(architecture)
    config = load(source, family)
    return family.variant(config) if family.variant else family, config


def _file_type(config: Config, outtype: str) -> int:
    mixed = config.quantization is not None and config.quantization.layout == "mxfp4" and outtype != "q8_0"
    return MXFP4_FILE_TYPE if mixed else FILE_TYPES[outtype]


def _context(config: Config) -> int | None:
    context = config.find("max_position_embeddings", "n_ctx", "n_positions")
    return context if type(context) is int and context > 0 else None


def inspect(directory: Path, *, pre_tokenizer: str | None = None) -> Checkpoint:
    """Check a model directory; raises a typed error for anything that would stop the conversion."""
    stamps = _stamps(directory)
    prepared = prepare(directory, name=directory.name, outtype="auto", pre_tokenizer=pre_tokenizer)
    if prepared.vocabulary is not None:
        key = (directory, directory.name, pre_tokenizer)
        _last.found = _Inspected(key, stamps, prepared.shards, prepared.vocabulary)
    return prepared.checkpoint


def _inspected(directory: Path, name: str, pre_tokenizer: str | None) -> _Inspected | None:
    """Return what `inspect` read of a directory, unless a file there has changed. It is not kept for another call."""
    found, _last.found = _last.found, None
    if found is None or found.key != (directory, name, pre_tokenizer) or found.stamps != _stamps(directory):
        return None
    return found


def _stamps(directory: Path) -> dict[str, Stamp]:
    """Return the stamps of the files in a directory; of what cannot be looked at, nothing."""
    found = {}
    with suppress(OSError), os.scandir(directory) as entries:
        for entry in entries:
            with suppress(OSError):
                found[entry.name] = Stamp.of(entry.path)
    return found


def prepare(directory: Path, *, name: str, outtype: str, pre_tokenizer: str | None = None) -> PreparedConversion:
    """Return everything needed to write the output; ``name`` is the directory name for the metadata."""
    inspected = _inspected(directory, name, pre_tokenizer)
    source = ModelDirectory(directory, pre_tokenizer=pre_tokenizer)
    with _structural():
        architecture = architecture_of(source)
        family, config = _configured(source, architecture)
    found = find_weight_files.find_shards(source) if inspected is None else inspected.shards
    tensors = tuple(tensor for shard in found for tensor in shard.tensors)
    with _structural():
        if outtype == "auto":
            kept = (tensor for tensor in tensors if family.rename(tensor.name, config) is not None)
            outtype = guess_outtype(kept)
        config = family.completed(config, tensors)
        combined = family.combine(assemble(config.quantization, tensors))
        planned = plan(family, config, combined, outtype)
        values = KeyValues(family.name)
        family.early(values, config)
    general_metadata.write(values, source, name=name, parameters=general_metadata.Parameters.of(planned))
    with _structural():
        family.hyperparameters(values, config, source, _file_type(config, outtype))
    values.uint32("general.quantization_version", QUANTIZATION_VERSION)
    written = _written_vocabulary(family, values, config, source) if inspected is None else inspected.vocabulary
    values.update(written.encoded)
    vocabulary = written.vocabulary
    sizes = _bytes_by_type(tensors)
    checkpoint = Checkpoint(
        architecture=architecture,
        family=family.name,
        dtype=sizes.most_common(1)[0][0],
        parameters=sum(tensor.elements for tensor in combined),
        weight_bytes=sum(sizes.values()),
        context_length=_context(config),
        vocabulary_kind=vocabulary.kind,
        vocabulary_size=vocabulary.tokens,
        tensors=tensors,
        files=tuple(shard.path for shard in found),
        differences=vocabulary.differences,
    )
    return PreparedConversion(checkpoint, outtype, values, planned, found, config.quantization, written)


def prepare_projector(directory: Path, *, name: str, outtype: str) -> PreparedConversion:
    """Return everything needed to write the projector of a vision model; as `prepare` for the text part.

    Tensors of the text part are not looked at, whatever their types, except the few that the projector needs.
    """
    source = ModelDirectory(directory)
    with _structural():
        architecture = architecture_of(source)
        if not is_native_projector(source.config):
            raise unsupported_projector_error(architecture, sorted(PROJECTORS))
        projector = projector_of(architecture)
        family, config = projector.family, Config(architecture, projector.settings(source))
    found = find_weight_files.find_shards(source)
    with _structural():
        named = [(tensor, family.rename(tensor.name, config)) for shard in found for tensor in shard.tensors]
        tensors = tuple(tensor for tensor, renamed in named if renamed is not None)
        if all(renamed in (None, TEXT) for _, renamed in named):
            raise no_vision_tensors_error(directory)
        if outtype == "auto":
            outtype = guess_outtype(tensor for tensor, renamed in named if (renamed or TEXT) != TEXT)
        planned = plan(family, config, tensors, outtype)
        values = KeyValues(family.name)
    parameters = general_metadata.Parameters.of(planned)
    general_metadata.write(values, source, name=name, parameters=parameters, kind="mmproj")
    with _structural():
        family.hyperparameters(values, config, source, FILE_TYPES[outtype])
    values.uint32("general.quantization_version", QUANTIZATION_VERSION)
    sizes = _bytes_by_type(tensors)
    checkpoint = Checkpoint(
        architecture=architecture,
        family=family.name,
        dtype=sizes.most_common(1)[0][0],
        parameters=sum(tensor.elements for tensor in tensors),
        weight_bytes=sum(sizes.values()),
        context_length=None,
        vocabulary_kind="none",
        vocabulary_size=0,
        tensors=tensors,
        files=tuple(shard.path for shard in found),
        differences=(),
    )
    return PreparedConversion(checkpoint, outtype, values, planned, found)


def _bytes_by_type(tensors: Iterable[Tensor]) -> Counter[str]:
    sizes: Counter[str] = Counter()
    for tensor in tensors:
        sizes[tensor.dtype] += tensor.nbytes
    return sizes


@contextmanager
def _structural() -> Iterator[None]:
    """Turn errors caused by values of unexpected types in config.json into a typed error."""
    try:
        yield
    except _STRUCTURE_ERRORS as error:
        raise unexpected_structure_error(f"{type(error).__name__}: {error}") from error


def _written_vocabulary(family: Family, values: KeyValues, config: Config, source: ModelDirectory) -> WrittenVocabulary:
    before = dict(values.encoded)
    vocabulary = _vocabulary(family, values, config, source)
    return WrittenVocabulary(
        vocabulary, {key: value for key, value in values.encoded.items() if before.get(key) is not value}
    )


def _vocabulary(family: Family, values: KeyValues, config: Config, source: ModelDirectory) -> Vocabulary:
    """Write the vocabulary; raises `BadVocabulary` for files of an unexpected structure."""
    try:
        return family.vocabulary(values, config, source)
    except _STRUCTURE_ERRORS as error:
        raise BadVocabulary(f"its files have an unexpected structure ({type(error).__name__}: {error})") from error
