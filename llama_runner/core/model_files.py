"""Which files of a model directory conversion reads, and which part of them decides the result."""

from __future__ import annotations

import hashlib
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
INDEX = "model.safetensors.index.json"
MODULES = "modules.json"
_TEMPLATE = "chat_template.jinja"
_READ_HERE = frozenset({
    "config.json", "generation_config.json", "hf_quant_config.json", INDEX, MODULES, CARD,
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "tekken.json",
    "tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "vocab.json", "vocab.txt", "merges.txt",
    _TEMPLATE, "chat_template.json",
})  # fmt: skip
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


def part_of_card(content: bytes) -> str:
    """Return the digest of what conversion reads of a model card; empty where that is nothing.

    It is the front matter, by the rules of gguf's ``Metadata.load_model_card``.
    """
    try:
        text = content.decode()
    except UnicodeDecodeError:  # an error of conversion, so no part of it is left out
        return f"sha256:{hashlib.sha256(content).hexdigest()}"
    lines = text.replace("\r\n", "\n").replace("\r", "\n").splitlines()
    matter: list[str] = []
    if lines and lines[0] == "---":
        end = lines.index("---", 1) if "---" in lines[1:] else len(lines)
        matter = lines[1:end]
    if _RERANKER in text.lower():
        matter.append(_RERANKER)
    return f"sha256:{hashlib.sha256(chr(10).join(matter).encode()).hexdigest()}" if matter else ""


def parts_read_here(digests: Mapping[str, Digest], card: str, indexed: Container[str] | None) -> dict[str, str]:
    """Return what decides the result of our own conversion: digests by name, of the card that of its part."""
    parts = {name: str(digest) for name, digest in digests.items() if is_read_here(name, digests, indexed)}
    if CARD in parts:
        parts[CARD] = card
    return {name: part for name, part in parts.items() if part}
