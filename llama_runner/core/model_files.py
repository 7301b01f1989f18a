"""Which files of a model directory conversion reads, and which part of them decides the result."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

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
"""Patterns of the files that are fetched to be converted, and that the digest of a model directory is made of.

Python files and pickles are never read. Our own conversion reads fewer, see ``is_read_here``.
"""

READ_BY_SCRIPT = (*READ_BY_CONVERSION, "*.model", "*.tiktoken", "*.txt")
"""Those that llama.cpp's own script may read; with ``CODE`` if it is trusted."""

CODE = "*.py"

CARD = "README.md"
CARD_HEAD = 2 << 20
"""Bytes of the model card that are read; real front matter with results of hundreds of tasks has less than 1 MB."""
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
"""Keys of a JSON file that no conversion reads, and that every tool that writes such a file sets anew."""
_RERANKER = "# qwen3-reranker"
"""A heading of the model card that our own conversion looks for; such models are refused."""


def is_read_here(name: str, there: Container[str], indexed: Container[str] | None) -> bool:
    """Whether our own conversion reads a file of a model directory.

    ``there`` are the names of all files, relative to the directory; ``indexed`` are the shards that the index names,
    None without an index.
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
    """Return the lines of a model card between its fences, none without fences, and whether there is a second fence.

    The rules are those of gguf's ``Metadata.load_model_card``: without a second fence, all lines count. ``head`` is the
    start of the file, ``CARD_HEAD`` bytes of it; bytes that are not UTF-8 become surrogates.
    """
    lines = head.decode("utf-8", "surrogateescape").splitlines()
    if not lines or lines[0] != "---":
        return [], True
    end = next((number for number, line in enumerate(lines[1:], 1) if line == "---"), None)
    return lines[1:end], end is not None


def is_read_in_part(name: str) -> bool:
    """Whether less than the bytes of a file decide the result: of a card its front matter, of JSON its value."""
    return name == CARD or name.endswith(".json")


def part_of(name: str, content: bytes) -> str:
    """Return the digest of what conversion reads of such a file, of which this is the content; empty for nothing.

    Raises ``ValueError`` for what is not JSON, or nested too deeply.
    """
    return part_of_card(content) if name == CARD else _part_of_json(content)


def part_of_card(head: bytes) -> str:
    """Return the digest of what conversion reads of a model card, of which this is the start; empty for nothing."""
    matter, _ = front_matter(head)
    if _RERANKER.encode() in head.lower():
        matter.append(_RERANKER)
    return _digest("\n".join(matter).encode("utf-8", "surrogateescape")) if matter else ""


def _part_of_json(content: bytes) -> str:
    """Return the digest of a JSON value: spaces and the notation of a number do not count, the order of keys does."""
    try:
        value = json.loads(content)
        if isinstance(value, dict):
            value = {key: inner for key, inner in value.items() if key not in UNREAD}
        return _digest(json.dumps(value, separators=(",", ":")).encode())
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def parts_read_here(
    digests: Mapping[str, Digest], parts: Mapping[str, str], indexed: Container[str] | None
) -> dict[str, str]:
    """Return what decides the result of our own conversion, by name: the digest of a file, or that of a part of it.

    ``parts`` has the digests of the parts of those files that are read in part.
    """
    read = [name for name in digests if is_read_here(name, digests, indexed)]
    return {name: part for name in read if (part := parts.get(name, str(digests[name])))}
