"""Checks a model directory and prepares everything of the output except the weights.

`describe` reads only small files, before the weights are here; `inspect` also reads the headers of the shards. Both
raise for anything wrong in these files. `prepare` also makes the plan that `gguf_writer` writes.
"""

from __future__ import annotations

import struct
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llama_runner.convert import general_metadata, shards
from llama_runner.convert.config_json import load
from llama_runner.convert.errors import BadVocabulary, unexpected_structure_error
from llama_runner.convert.families import family_of
from llama_runner.convert.gguf_metadata import KeyValues
from llama_runner.convert.model_directory import ModelDirectory, architecture_of
from llama_runner.convert.quantized_tensors import assemble
from llama_runner.convert.tensor_plan import FILE_TYPES, MXFP4_FILE_TYPE, guess_outtype, plan

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from llama_runner.convert.families.family_definition import Family
    from llama_runner.convert.model_config import Config
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
    return Description(architecture, family.name, _context(config), tuple(shards.named_by_index(source)))


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


def inspect(directory: Path) -> Checkpoint:
    """Check a model directory; raises a typed error for anything that would stop the conversion."""
    return prepare(directory, name=directory.name, outtype="auto").checkpoint


def prepare(directory: Path, *, name: str, outtype: str, pre_tokenizer: str | None = None) -> PreparedConversion:
    """Return everything needed to write the output; ``name`` is the directory name for the metadata."""
    source = ModelDirectory(directory, pre_tokenizer=pre_tokenizer)
    with _structural():
        architecture = architecture_of(source)
        family, config = _configured(source, architecture)
    found = shards.find_shards(source)
    tensors = tuple(tensor for shard in found for tensor in shard.tensors)
    with _structural():
        if outtype == "auto":
            kept = (tensor for tensor in tensors if family.rename(tensor.name, config) is not None)
            outtype = guess_outtype(kept)
        combined = family.combine(assemble(config.quantization, tensors))
        planned = plan(family, config, combined, outtype)
        values = KeyValues(family.name)
        family.early(values, config)
    general_metadata.write(values, source, name=name, parameters=general_metadata.Parameters.of(planned))
    with _structural():
        family.hyperparameters(values, config, source, _file_type(config, outtype))
    values.uint32("general.quantization_version", QUANTIZATION_VERSION)
    vocabulary = _vocabulary(family, values, config, source)
    sizes: Counter[str] = Counter()
    for tensor in tensors:
        sizes[tensor.dtype] += tensor.nbytes
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
    return PreparedConversion(checkpoint, outtype, values, planned, found, config.quantization)


@contextmanager
def _structural() -> Iterator[None]:
    """Turn errors caused by values of unexpected types in config.json into a typed error."""
    try:
        yield
    except _STRUCTURE_ERRORS as error:
        raise unexpected_structure_error(f"{type(error).__name__}: {error}") from error


def _vocabulary(family: Family, values: KeyValues, config: Config, source: ModelDirectory) -> Vocabulary:
    """Write the vocabulary; raises `BadVocabulary` for files of an unexpected structure."""
    try:
        return family.vocabulary(values, config, source)
    except _STRUCTURE_ERRORS as error:
        raise BadVocabulary(f"its files have an unexpected structure ({type(error).__name__}: {error})") from error
