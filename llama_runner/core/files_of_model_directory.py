"""The files of a model directory that the converters read, and digests of the part of each file that they use."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from llama_runner.core.short_sha256 import sha256

if TYPE_CHECKING:
    from collections.abc import Container, Mapping

    from llama_runner.core.digest import Digest

READ_BY_CONVERSION = (
    "*.safetensors",
    "*.json",
    "*.jinja",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "vocab.txt",
    "merges.txt",
    "README.md",
    "*/config.json",
    "additional_chat_templates/*.jinja",
)
"""Patterns of the files that are downloaded for conversion, and that the digest of a model directory covers.

Python files and pickles are never read. The native converter reads fewer, see ``is_read_by_native_converter``.
"""

READ_BY_SCRIPT = (*READ_BY_CONVERSION, "*.model", "*.tiktoken", "*.txt")
"""Patterns of the files that llama.cpp's official script may read; also ``CODE`` with ``--trust-remote-code``."""

CODE = "*.py"

PREPROCESSORS = ("preprocessor_config.json", "processor_config.json")
"""Files that say how a vision model prepares images; the later one counts more."""

CARD = "README.md"
CARD_HEAD = 2 << 20
"""Maximum bytes of a model card that are read; front matter with results of hundreds of tasks has less than 1 MB."""
INDEX = "model.safetensors.index.json"
MODULES = "modules.json"
_TEMPLATE = "chat_template.jinja"
_READ_HERE = frozenset({
    "config.json", "generation_config.json", "hf_quant_config.json", INDEX, MODULES, CARD,
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "tekken.json",
    "tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "vocab.json", "vocab.txt", "merges.txt",
    _TEMPLATE, "chat_template.json",
})  # fmt: skip
UNREAD = frozenset({"transformers_version"})
"""Members of a JSON file that no converter reads, and that other tools change whenever they write the file."""
_RERANKER = "# qwen3-reranker"
"""A heading of the model card by which the native converter recognises models that it does not support."""


def is_read_by_native_converter(name: str, there: Container[str], indexed: Container[str] | None) -> bool:
    """Whether the native converter reads a file of a model directory.

    ``there`` has the names of all files, relative to the directory; ``indexed`` has the shards that the index names,
    or is None without an index.
    """
    if name.endswith(".safetensors"):
        return name in indexed if indexed is not None else name.startswith("model") and "/" not in name
    folder, _, file = name.rpartition("/")
    if not folder:
        return name in _READ_HERE
    if folder == "additional_chat_templates":
        return name.endswith(".jinja") and _TEMPLATE in there
    return file == "config.json" and MODULES in there


def front_matter(head: bytes) -> tuple[list[str], bool]:
    """Return the YAML front matter of a model card as lines, and whether it has a closing fence (``---``).

    The rules are those of gguf's ``Metadata.load_model_card``: without an opening fence there is no front matter,
    without a closing fence it includes all lines. ``head`` has the first ``CARD_HEAD`` bytes of the file. Bytes that
    are not UTF-8 become surrogates.
    """
    lines = head.decode("utf-8", "surrogateescape").splitlines()
    if not lines or lines[0] != "---":
        return [], True
    end = next((number for number, line in enumerate(lines[1:], 1) if line == "---"), None)
    return lines[1:end], end is not None


def is_read_partially(name: str) -> bool:
    """Whether only part of a file affects the conversion: the front matter of a model card, the value of JSON."""
    return name == CARD or name.endswith(".json")


def relevant_digest(name: str, content: bytes) -> str:
    """Return the digest of the part of a file that affects the conversion; empty if no part does.

    ``content`` is all of a JSON file, or the first ``CARD_HEAD`` bytes of a model card. Raises ``ValueError`` for
    invalid or too deeply nested JSON.
    """
    return relevant_card_digest(content) if name == CARD else _relevant_json_digest(content)


def relevant_card_digest(head: bytes) -> str:
    """Return the digest of the part of a model card that affects the conversion; empty if no part does."""
    matter, _ = front_matter(head)
    if _RERANKER.encode() in head.lower():
        matter.append(_RERANKER)
    return _digest("\n".join(matter).encode("utf-8", "surrogateescape")) if matter else ""


def _relevant_json_digest(content: bytes) -> str:
    """Return the digest of a JSON value. White space and number notation do not count; the order of members does."""
    try:
        value = json.loads(content)
        if isinstance(value, dict):
            value = {key: inner for key, inner in value.items() if key not in UNREAD}
        return _digest(json.dumps(value, separators=(",", ":")).encode())
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _digest(content: bytes) -> str:
    return f"sha256:{sha256(content).hexdigest()}"


def native_converter_inputs(
    digests: Mapping[str, Digest], parts: Mapping[str, str], indexed: Container[str] | None
) -> dict[str, str]:
    """Return, for each file that the native converter reads, the digest of the part that affects the conversion.

    ``parts`` has the digests of the relevant parts of those files that are read partially.
    """
    read = [name for name in digests if is_read_by_native_converter(name, digests, indexed)]
    return {name: part for name in read if (part := parts.get(name, str(digests[name])))}
