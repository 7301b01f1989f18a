"""Converts safetensors to GGUF without torch; byte-identical to convert_hf_to_gguf.py of the pinned llama.cpp.

The output differs where the script's file makes llama.cpp split text differently from the model's own tokenizer; the
cases are listed in docs/architectures.md.

`inspect` checks a model directory; `convert` writes the file. No code in the model directory is run, and no pickle is
loaded. Importing this module imports neither numpy nor gguf.

`model_directory` and `config_json` read the small files, `find_weight_files` and `safetensors` the headers; `families`
has the rules of each architecture; `vocab` writes the tokenizer, `general_metadata` and `hyperparameters` the other
metadata; `tensor_plan` plans the output by the rules of `tensor_types`; `select_tensor_rows`, `cut_tensor_into_chunks`,
`cast_numbers` and `gguf_writer` write it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from llama_runner.core.immutable_values import Value, field

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from llama_runner.convert.prepare_checkpoint import Checkpoint, Description
    from llama_runner.core.digest import Digest, Hasher

Outtype = Literal["auto", "bf16", "f16", "f32", "q8_0"]

__all__ = ["ConversionResult", "Outtype", "convert", "describe", "inspect", "supported_architectures"]


class ConversionResult(Value):
    """Converted file: digest, size in bytes, chosen type, and architecture.

    ``not_finite`` counts infinities and NaNs in float16 per tensor of the output, most often numbers too large for it;
    tensors without any are left out. ``quantized_before`` describes the quantization of the stored weights; empty if
    there was none. ``differences`` are sentences about text that llama.cpp splits into other tokens than the model's
    own tokenizer.
    """

    digest: Digest
    bytes: int
    outtype: str
    architecture: str
    not_finite: Mapping[str, int] = field(default_factory=dict)
    quantized_before: str = ""
    differences: tuple[str, ...] = ()

    @property
    def sha256(self) -> str | None:
        """SHA-256 of the file in hex; None of a large file, whose digest is a BLAKE3."""
        scheme, _, digits = self.digest.partition(":")
        return digits if scheme == "sha256" else None


def supported_architectures() -> tuple[str, ...]:
    """Return the architectures that can be converted, as named in config.json, sorted."""
    from llama_runner.convert.families import ARCHITECTURES  # noqa: PLC0415

    return tuple(sorted(ARCHITECTURES))


def inspect(directory: Path, *, pre_tokenizer: str | None = None, projector: bool = False) -> Checkpoint:
    """Check a model directory by its small files and headers. The options are as in `convert`.

    Raises a subclass of ``SourceError`` for everything that would stop the conversion.
    """
    from llama_runner.convert import prepare_checkpoint  # noqa: PLC0415

    if projector:
        return prepare_checkpoint.prepare_projector(directory, name=directory.name, outtype="auto").checkpoint
    return prepare_checkpoint.inspect(directory, pre_tokenizer=pre_tokenizer)


def describe(directory: Path, *, vocabulary: bool = True, pre_tokenizer: str | None = None) -> Description:
    """Check config.json and the tokenizer of a model whose weights are not here yet.

    ``pre_tokenizer`` is as in `convert`. Raises a subclass of ``SourceError`` for anything that would stop the
    conversion.
    """
    from llama_runner.convert import prepare_checkpoint  # noqa: PLC0415

    return prepare_checkpoint.describe(directory, vocabulary=vocabulary, pre_tokenizer=pre_tokenizer)


def convert(
    directory: Path,
    destination: Path,
    *,
    name: str,
    outtype: Outtype = "auto",
    pre_tokenizer: str | None = None,
    projector: bool = False,
    new_hasher: Callable[[int], Hasher] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> ConversionResult:
    """Write a model directory as one GGUF file; with ``projector`` the projector (mmproj) of a vision model.

    ``name`` is the directory name for the metadata (the actual one may differ). ``auto`` keeps the source's 16-bit
    type, f16 if it has none. ``on_progress`` gets the bytes written and the total; ``Interrupted`` is raised once
    ``cancelled`` returns true. ``destination`` must not exist, and does not exist after an error. ``pre_tokenizer``
    is llama.cpp's name of the pre-tokenizer (``tokenizer.ggml.pre``), for one that is not recognised; only byte-level
    BPE uses it. ``new_hasher`` returns the hasher for an output of so many bytes; None: the default for its size.
    Raises a subclass of ``SourceError`` for a bad source, ``OSError`` for the file system (a full disk).
    """
    from llama_runner.convert import gguf_writer, prepare_checkpoint  # noqa: PLC0415
    from llama_runner.system.hashing import hasher_for  # noqa: PLC0415

    if projector:
        prepared = prepare_checkpoint.prepare_projector(directory, name=name, outtype=outtype)
    else:
        prepared = prepare_checkpoint.prepare(directory, name=name, outtype=outtype, pre_tokenizer=pre_tokenizer)
    start = gguf_writer.encode_header(prepared.values, prepared.planned)
    written = gguf_writer.write(
        destination,
        start,
        prepared.planned,
        prepared.shards,
        new_hasher=new_hasher or hasher_for,
        on_progress=on_progress,
        cancelled=cancelled,
    )
    return ConversionResult(
        digest=written.digest,
        bytes=destination.stat().st_size,
        outtype=prepared.outtype,
        architecture=prepared.checkpoint.architecture,
        not_finite=written.not_finite,
        quantized_before=str(prepared.quantization or ""),
        differences=prepared.checkpoint.differences,
    )
