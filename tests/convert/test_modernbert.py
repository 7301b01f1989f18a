"""ModernBERT-base itself is converted, though the official script refuses it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from llama_runner.convert import convert
from tests.convert.families.modernbert import CASES, MASKED, modernbert
from tests.convert.official import goldens_of

if TYPE_CHECKING:
    from pathlib import Path


def test_the_bias_of_the_head_that_guesses_words_changes_nothing(tmp_path: Path) -> None:
    source = modernbert(tmp_path / "model", head=True, words=True, dtype="BF16", **MASKED)
    made = convert(source, tmp_path / "out.gguf", name=CASES["modernbert-masked"].name)
    assert made.sha256 == json.loads(goldens_of("modernbert").read_text(encoding="utf-8"))["modernbert-masked/auto"]
