"""Vocabulary and template of a GGUF file, and a tiny model that carries them.

llama-server loads the carrier in a second, whatever the size of the model: it has the metadata ``tokenizer.*`` and
``general.*`` of the file, byte for byte, and one layer whose weights are a hole. How a text is split depends on nothing
else, but for two architectures of encoders whose ``<mask>`` takes the space before it.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

from llama_runner.core.immutable_values import Value
from llama_runner.sources.gguf_header import NotGGUF, read_header
from llama_runner.sources.gguf_without_weights import write_tiny_model
from llama_runner.system.files import open_regular

if TYPE_CHECKING:
    from pathlib import Path

TEMPLATE = "tokenizer.chat_template"
_TOKENS, _MERGES, _TYPES = "tokenizer.ggml.tokens", "tokenizer.ggml.merges", "tokenizer.ggml.token_type"
_SCORES = "tokenizer.ggml.scores"
_UINT32, _FLOAT32, _STRING = 4, 6, 8
_NUMBERS = {_UINT32: "I", 5: "i", _FLOAT32: "f"}


class MadeFile(Value, eq=False):
    """What a GGUF file says of its vocabulary. A model in several files has it in the first one."""

    path: Path
    metadata: dict[str, Any]
    spans: dict[str, tuple[int, int]]
    tokens: tuple[str, ...]
    types: tuple[int, ...]
    merges: tuple[str, ...] | None
    scores: tuple[float, ...]

    @property
    def kind(self) -> str:
        """llama.cpp's name of the tokenizer: ``gpt2``, ``llama``, ``bert``, ``t5``."""
        return str(self.metadata.get("tokenizer.ggml.model"))

    @property
    def pre_tokenizer(self) -> str:
        """llama.cpp's name of the pre-tokenizer."""
        return str(self.metadata.get("tokenizer.ggml.pre", ""))

    @property
    def template(self) -> str | None:
        """The chat template that is used by default."""
        found = self.metadata.get(TEMPLATE)
        return found if isinstance(found, str) else None

    def number(self, name: str) -> int | None:
        """Return the number of a special token."""
        found = self.metadata.get(f"tokenizer.ggml.{name}_token_id")
        return found if isinstance(found, int) else None


def read_made(path: Path) -> MadeFile | None:
    """Return the vocabulary of a file; None for a model without one. Raises ``NotGGUF``."""
    header = read_header(path)
    if _TOKENS not in header.arrays:
        return None
    with open_regular(path) as file:

        def array(key: str) -> tuple[Any, ...] | None:
            if key not in header.arrays:
                return None
            start, end = header.spans[key]
            file.seek(start)
            return _decoded(path, file.read(end - start))

        tokens, types, scores = (array(key) or () for key in (_TOKENS, _TYPES, _SCORES))
        return MadeFile(path, header.metadata, header.spans, tokens, types, array(_MERGES), scores)


def _decoded(path: Path, value: bytes) -> tuple[Any, ...]:
    """Return the elements of an array of texts or of 32-bit numbers."""
    _, kind, count = struct.unpack_from("<IIQ", value)
    at = 16
    if kind != _STRING:
        if kind not in _NUMBERS:
            raise NotGGUF(path, f"a vocabulary has an array of type {kind}")
        return struct.unpack_from(f"<{count}{_NUMBERS[kind]}", value, at)
    found = []
    for _ in range(count):
        (length,) = struct.unpack_from("<Q", value, at)
        at += 8 + length
        found.append(value[at - length : at].decode("utf-8", "surrogateescape"))
    return tuple(found)


def write_carrier(target: Path, made: MadeFile, *, template: bool = True) -> None:
    """Write the tiny model with the vocabulary of a file; without ``template``, with no chat template."""
    values = {}
    with open_regular(made.path) as file:
        for key, (start, end) in made.spans.items():
            wanted = key.startswith("tokenizer.") or key == "general.name"
            if wanted and (template or not key.startswith((TEMPLATE, "tokenizer.chat_templates"))):
                file.seek(start)
                values[key] = file.read(end - start)
    target.unlink(missing_ok=True)
    write_tiny_model(target, values, len(made.tokens))
