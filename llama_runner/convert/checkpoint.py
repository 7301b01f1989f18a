"""A model directory, looked at: what it is, whether it can be converted, and all of the output but the weights.

`describe` reads only small files, before there are any weights; `inspect` also the headers of the shards. Both raise
for all that is wrong with what they read. `prepare` goes one step further, to the plan that `stream` writes.
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
from llama_runner.convert.model_directory import Source, architecture_of
from llama_runner.convert.quantized_tensors import assemble
from llama_runner.convert.tensor_plan import FILE_TYPES, MXFP4_FILE_TYPE, guess_outtype, plan

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from llama_runner.convert.families.family import Family
    from llama_runner.convert.model_config import Config
    from llama_runner.convert.quantization_config import Quantization
    from llama_runner.convert.safetensors import Shard, Tensor
    from llama_runner.convert.tensor_plan import Planned
    from llama_runner.convert.vocab import Vocabulary

_OF_STRUCTURE = (
    *(ArithmeticError, AttributeError, LookupError, TypeError, ValueError),
    *(MemoryError, RecursionError, struct.error),
)
"""What Python raises where a value has another type or size than the code expects."""
QUANTIZATION_VERSION = 2  # of ggml; written into every file, quantized or not


@dataclass(frozen=True)
class Checkpoint:
    """What a model directory holds; ``dtype`` is the one that most bytes are stored in."""

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
    """Sentences about text that llama.cpp splits otherwise than the model's own tokenizer."""


@dataclass(frozen=True)
class Description:
    """What the small files of a model say, before its weights are here."""

    architecture: str
    family: str
    context_length: int | None
    shards: tuple[str, ...]
    """The weights that the index names; none where the model is one file."""


@dataclass(frozen=True)
class Prepared:
    """All that is needed to write the output: metadata and planned tensors, and the shards they are read from."""

    checkpoint: Checkpoint
    outtype: str
    values: KeyValues
    planned: tuple[Planned, ...]
    shards: tuple[Shard, ...]
    quantization: Quantization | None = None
    """How the weights are stored, where they are no plain numbers."""


def describe(directory: Path, *, vocabulary: bool = True, pre_tokenizer: str | None = None) -> Description:
    """Look at config.json and, with ``vocabulary``, the tokenizer and the index. Raises as `inspect` does."""
    source = Source(directory, pre_tokenizer=pre_tokenizer)
    with _structural():
        architecture = architecture_of(source)
        family, config = _configured(source, architecture)
        values = KeyValues(family.name)
        family.hyperparameters(values, config, source, FILE_TYPES["f16"])
    if vocabulary:
        _vocabulary(family, values, config, source)
    return Description(architecture, family.name, _context(config), tuple(shards.named_by_index(source)))


def _configured(source: Source, architecture: str) -> tuple[Family, Config]:
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
    """Look at a model directory. Raises a typed error for anything that would stop the conversion."""
    return prepare(directory, name=directory.name, outtype="auto").checkpoint


def prepare(directory: Path, *, name: str, outtype: str, pre_tokenizer: str | None = None) -> Prepared:
    """Everything up to the first byte written; ``name`` is the directory's name that the metadata is made from."""
    source = Source(directory, pre_tokenizer=pre_tokenizer)
    with _structural():
        architecture = architecture_of(source)
        family, config = _configured(source, architecture)
    found = shards.find(source)
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
    return Prepared(checkpoint, outtype, values, planned, found, config.quantization)


@contextmanager
def _structural() -> Iterator[None]:
    """Turn the errors of code that meets values of unexpected types in config.json into a typed error."""
    try:
        yield
    except _OF_STRUCTURE as error:
        raise unexpected_structure_error(f"{type(error).__name__}: {error}") from error


def _vocabulary(family: Family, values: KeyValues, config: Config, source: Source) -> Vocabulary:
    """Write the vocabulary; files that are JSON of quite another structure are the model maker's fault, not ours."""
    try:
        return family.vocabulary(values, config, source)
    except _OF_STRUCTURE as error:
        raise BadVocabulary(f"its files have an unexpected structure ({type(error).__name__}: {error})") from error
