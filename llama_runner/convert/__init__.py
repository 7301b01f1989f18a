"""Safetensors to GGUF without torch, byte for byte what convert_hf_to_gguf.py of the pinned llama.cpp writes.

Where the script's file makes llama.cpp split text otherwise than the model's own tokenizer, ours differs from it; the
cases are listed in docs/architectures.md.

`inspect` tells what a model directory is and what is wrong with it; `convert` writes the file. Nothing in the
model directory is ever run, and no pickle is loaded. Importing this module imports neither numpy nor gguf.

The pieces: `source` and `config` read the small files, `shards` and `safetensors` the headers, `families` say
what is particular to an architecture, `vocab` writes the tokenizer, `metadata` and `hyperparameters` the rest,
`tensors` plans the output, `rows`, `chunks`, `cast` and `stream` write it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from llama_runner.core.value import Value, field

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from llama_runner.convert.checkpoint import Checkpoint, Description

Outtype = Literal["auto", "bf16", "f16", "f32", "q8_0"]

__all__ = ["Converted", "Outtype", "convert", "describe", "inspect", "supported_architectures"]


class Converted(Value):
    """The file that was written: its SHA-256 in hex, its size, the type that was chosen, and what it was made from.

    ``not_finite`` counts, per tensor of the output, the numbers that are infinite or none in float16, most often since
    they are too large for it; tensors without any are left out. ``quantized_before`` says in words how the
    weights were quantized already; empty if they were not. ``differences`` are sentences about text that llama.cpp
    splits into other tokens than the model's own tokenizer, where the tokenizer's files say so.
    """

    sha256: str
    bytes: int
    outtype: str
    architecture: str
    not_finite: Mapping[str, int] = field(default_factory=dict)
    quantized_before: str = ""
    differences: tuple[str, ...] = ()


def supported_architectures() -> tuple[str, ...]:
    """The architectures that can be converted, as config.json names them, sorted."""
    from llama_runner.convert.families import ARCHITECTURES  # noqa: PLC0415

    return tuple(sorted(ARCHITECTURES))


def inspect(directory: Path, *, pre_tokenizer: str | None = None) -> Checkpoint:
    """Look at a model directory: small files and headers only. ``pre_tokenizer`` is as in `convert`.

    Raises a subclass of ``SourceError`` for everything that would stop the conversion.
    """
    from llama_runner.convert import checkpoint  # noqa: PLC0415

    return checkpoint.prepare(directory, name=directory.name, outtype="auto", pre_tokenizer=pre_tokenizer).checkpoint


def describe(directory: Path, *, vocabulary: bool = True, pre_tokenizer: str | None = None) -> Description:
    """Look at the small files of a model whose weights are not here yet: config.json and the tokenizer.

    ``pre_tokenizer`` is as in `convert`.
    Raises a subclass of ``SourceError`` for everything in them that would stop the conversion.
    """
    from llama_runner.convert import checkpoint  # noqa: PLC0415

    return checkpoint.describe(directory, vocabulary=vocabulary, pre_tokenizer=pre_tokenizer)


def convert(
    directory: Path,
    destination: Path,
    *,
    name: str,
    outtype: Outtype = "auto",
    pre_tokenizer: str | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Converted:
    """Write a model directory as one GGUF file.

    ``name`` is the directory's base name that the metadata is made from (the directory itself may be called
    anything); ``auto`` keeps the source's own 16-bit type, f16 where it has none. ``on_progress`` is told the
    bytes written and the bytes in all; where ``cancelled`` says so, ``Interrupted`` is raised. ``destination``
    must not exist, and does not exist after an error. ``pre_tokenizer`` is llama.cpp's name for how the tokenizer
    splits text (``tokenizer.ggml.pre``), for one that is not recognised; vocabularies that are no byte-level BPE
    ignore it. Raises a subclass of ``SourceError`` for a bad source; ``OSError`` of the file system (a full disk)
    goes through.
    """
    from llama_runner.convert import checkpoint, gguf_writer  # noqa: PLC0415

    prepared = checkpoint.prepare(directory, name=name, outtype=outtype, pre_tokenizer=pre_tokenizer)
    start = gguf_writer.head(prepared.values, prepared.planned)
    written = gguf_writer.write(
        destination,
        start,
        prepared.planned,
        prepared.shards,
        on_progress=on_progress,
        cancelled=cancelled,
    )
    return Converted(
        sha256=written.sha256,
        bytes=destination.stat().st_size,
        outtype=prepared.outtype,
        architecture=prepared.checkpoint.architecture,
        not_finite=written.not_finite,
        quantized_before=str(prepared.quantization or ""),
        differences=prepared.checkpoint.differences,
    )
