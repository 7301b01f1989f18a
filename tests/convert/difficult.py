"""Text on which tokenizers differ, by what is difficult about it."""

from __future__ import annotations

import json

from llama_runner.convert.vocab.pre_tokenizer_of_wordpiece import SAMPLE
from tests.convert.checkpoints import DATA

TEXTS: dict[str, str] = {
    "official-sample": SAMPLE,
    **json.loads((DATA / "tokenizers" / "difficult.json").read_text(encoding="utf-8")),
    "long-word": "Donaudampfschifffahrtsgesellschaftskapitän" * 3,
    "long-run": "a" * 70 + " " * 70 + "." * 70 + "\n" * 20 + "1" * 40 + "=" * 33,
}

# For tokenizers that put a space first, or that see a text as one word: also each line by itself, and after a space.
_LINES = dict.fromkeys(line for text in TEXTS.values() for line in text.split("\n"))
LINES: tuple[str, ...] = tuple(dict.fromkeys([*TEXTS.values(), *_LINES, *(f" {line}" for line in _LINES)]))
