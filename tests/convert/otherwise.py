"""Where the output differs from the official script's on purpose, and how to undo it.

Byte for byte, the rest is still the official one: with the differences undone, a file has the digest of the script's.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llama_runner.convert.gguf_metadata import KeyValues
from llama_runner.convert.model_config import Config
from llama_runner.convert.model_directory import ModelDirectory
from llama_runner.convert.vocab.byte_fallback import BYTE_TOKEN
from llama_runner.convert.vocab.token_types import BYTE, CONTROL, NORMAL, USER_DEFINED
from llama_runner.convert.vocab.tokenizer import Tokenizer
from llama_runner.convert.vocab.write_sentencepiece import ADDED_SCORE
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
    return Tokenizer.load(ModelDirectory(directory), Config(config["architectures"][0], {**config, **inner}))


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
    settings = ModelDirectory(directory).optional_object("tokenizer_config.json")
    names = [key for key, name in NAMED.items() if name not in settings]
    return names if settings else ["bos", *names]


def _without_special_tokens(values: Values, directory: Path) -> None:
    for key in _unnamed(directory):
        values.pop(f"{GGML}{key}_token_id", None)


def _case_differs(directory: Path) -> bool:
    said = _raw_normalizer(directory)
    return said is not None and said != _loaded(directory).document["normalizer"]


def _raw_normalizer(directory: Path) -> Any:
    """A BertNormalizer in tokenizer.json."""
    found = ModelDirectory(directory).optional_object("tokenizer.json").get("normalizer")
    return found if isinstance(found, dict) and found.get("type") == "BertNormalizer" else None


def _with_raw_case(values: Values, directory: Path) -> None:
    said, plain = _raw_normalizer(directory), KeyValues("x")
    for key in ("lowercase", "strip_accents"):
        values.pop(f"{GGML}normalizer.{key}", None)
        if said.get(key) is not None:
            plain.boolean(f"{GGML}normalizer.{key}", said[key])
    values |= {key: value for key, value in raw_values(plain.encode(), len(plain)) if key.startswith(GGML)}


OTHERWISE = (
    Otherwise(
        "a tokenizer.json with byte fallback and no tokenizer.model",
        "the script gives every token the same score, and so loses the order of the merges; it writes neither that no "
        "space is put before a text nor that no BOS is, takes added tokens of the vocabulary for ordinary ones, and "
        "leaves out what pads the vocabulary to the size of the embedding, so that llama-server does not load the file",
        _is_byte_fallback,
        _without_scores,
    ),
    Otherwise(
        "a WordPiece vocabulary whose `[CLS]`, `[SEP]`, `[UNK]` or `[MASK]` tokenizer_config.json does not name, with "
        "other numbers than 101, 102, 100 and 103",
        "the script writes none of them, and llama.cpp takes those",
        lambda directory: bool(_unnamed(directory)),
        _without_special_tokens,
    ),
    Otherwise(
        "a BertTokenizer whose `do_lower_case` and `strip_accents` in tokenizer_config.json, or their defaults, say "
        "otherwise than tokenizer.json",
        "transformers follows the former, the script the latter; where there is vocab.txt alone, it writes neither",
        _case_differs,
        _with_raw_case,
    ),
)


def official(made: Path, directory: Path) -> bytes | None:
    """The file as the script writes it, None where nothing is different."""
    concerned = [one for one in OTHERWISE if one.concerns(directory)]

    def change(values: Values) -> None:
        for one in concerned:
            one.undo(values, directory)

    return rewritten(made.read_bytes(), change) if concerned else None
