"""What is wrong with vocab.json and merges.txt is told; that they convert is in the families' goldens."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from llama_runner.convert import errors, inspect
from llama_runner.core.errors import SourceError
from tests.convert.checkpoints import write_json
from tests.convert.families.slow import CASES

Spoil = Callable[[Path], object]
BAD: dict[str, tuple[Spoil, type[SourceError], str]] = {
    "no merges": (lambda d: (d / "merges.txt").unlink(), errors.MissingFile, "merges.txt is missing"),
    "a class that needs tokenizer.json": (
        lambda d: write_json(d / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast"}),
        errors.MissingFile, "tokenizer.json is missing"),
    "a merge to a token that there is not": (
        lambda d: (d / "merges.txt").write_text("#version: 0.2\na b\nqqq zzz\n", encoding="utf-8"),
        errors.BadVocabulary, "does not join two known tokens to a known one"),
    "three in a line": (
        lambda d: (d / "merges.txt").write_text("#version: 0.2\na b c\n", encoding="utf-8"),
        errors.BadVocabulary, "does not join two known tokens to a known one"),
    "a vocabulary that is a list": (lambda d: write_json(d / "vocab.json", ["a"]), errors.UnreadableFile, "vocab.json"),
    "numbers that are texts": (
        lambda d: write_json(d / "vocab.json", {"a": "1"}), errors.BadVocabulary, "is not an object of token numbers"),
}  # fmt: skip


@pytest.mark.parametrize("title", BAD)
def test_what_is_wrong_is_reported(title: str, tmp_path: Path) -> None:
    spoil, kind, text = BAD[title]
    CASES["gpt2"].build(tmp_path)
    inspect(tmp_path)
    spoil(tmp_path)
    with pytest.raises(kind, match=text):
        inspect(tmp_path)
