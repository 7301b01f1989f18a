"""Where the output differs from the official script's on purpose, and how to undo it.

Byte for byte, the rest is still the official one: with the differences undone, a file has the digest of the script's.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from llama_runner.convert.config import Config
from llama_runner.convert.keyvalues import KeyValues
from llama_runner.convert.source import Source
from llama_runner.convert.vocab.byte_fallback import BYTE_TOKEN
from llama_runner.convert.vocab.sentencepiece import ADDED_SCORE
from llama_runner.convert.vocab.token_types import BYTE, CONTROL, NORMAL, USER_DEFINED
from llama_runner.convert.vocab.tokenizer import Tokenizer
from tests.convert.gguf_file import raw_values, rewritten

GGML = "tokenizer.ggml."
Values = dict[str, bytes]


@dataclass(frozen=True)
class Otherwise:
    """One difference: which models it concerns, and what the script writes."""

    what: str
    why: str
    concerns: Callable[[Path], bool]
    undo: Callable[[Values, Path], None]


def _is_byte_fallback(directory: Path) -> bool:
    path = directory / "tokenizer.json"
    if not path.is_file() or (directory / "tokenizer.model").is_file():
        return False
    document = json.loads(path.read_text(encoding="utf-8"))
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    byte_fallback = bool(document["model"].get("byte_fallback"))
    return byte_fallback and config["architectures"][0].startswith(("Llama", "Llava", "Mistral", "Ministral"))


def _loaded(directory: Path) -> Tokenizer:
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    inner = config.get("text_config", config)
    return Tokenizer.load(Source(directory), Config(config["architectures"][0], {**config, **inner}))


def _without_scores(values: Values, directory: Path) -> None:
    tokenizer = _loaded(directory)
    texts = sorted(tokenizer.numbered().items())
    plain = KeyValues("x")
    plain.strings("tokens", [text for _, text in texts])
    plain.floats("scores", [ADDED_SCORE] * len(texts))
    kinds = []
    for number, text in texts:
        special = CONTROL if text in tokenizer.specials else USER_DEFINED if number >= len(tokenizer.base) else NORMAL
        kinds.append(BYTE if BYTE_TOKEN.fullmatch(text) else special)
    plain.integers("token_type", kinds)
    data = plain.encode()
    values |= {GGML + key: value for key, value in raw_values(data, len(plain)) if not key.startswith("general.")}


NAMED = {"seperator": "sep_token", "unknown": "unk_token", "mask": "mask_token"}


def _unnamed(directory: Path) -> list[str]:
    """The special tokens of a WordPiece vocabulary that tokenizer_config.json does not name."""
    path = directory / "tokenizer.json"
    if path.is_file() and json.loads(path.read_text(encoding="utf-8"))["model"]["type"] != "WordPiece":
        return []
    if not path.is_file() and not (directory / "vocab.txt").is_file():
        return []
    settings = Source(directory).optional_object("tokenizer_config.json")
    names = [key for key, name in NAMED.items() if name not in settings]
    return names if settings else ["bos", *names]


def _without_special_tokens(values: Values, directory: Path) -> None:
    for key in _unnamed(directory):
        values.pop(f"{GGML}{key}_token_id", None)


OTHERWISE = (
    Otherwise(
        "scores and types of tokens, and as many as the embedding has, of a tokenizer.json with byte fallback",
        "the script gives every token the same score, so llama.cpp merges from left to right instead of in the order "
        "of the merges",
        _is_byte_fallback,
        _without_scores,
    ),
    Otherwise(
        "numbers of `[CLS]`, `[SEP]`, `[UNK]` and `[MASK]` of a WordPiece vocabulary that tokenizer_config.json does "
        "not name, where they are not 101, 102, 100 and 103",
        "the script writes none of them, so llama.cpp takes those",
        lambda directory: bool(_unnamed(directory)),
        _without_special_tokens,
    ),
)


def official(made: Path, directory: Path) -> bytes | None:
    """The file as the script writes it, None where nothing is different."""
    concerned = [one for one in OTHERWISE if one.concerns(directory)]

    def change(values: Values) -> None:
        for one in concerned:
            one.undo(values, directory)

    return rewritten(made.read_bytes(), change) if concerned else None
