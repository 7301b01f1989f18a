"""The results for real tokenizers in docs/pre-tokenizers.md are what is measured."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.convert.real_results import MODELS, measure, recorded

pytest.importorskip("tokenizers")

ELSEWHERE = {"yi", "baichuan2", "mistral v1", "mistral v2", "mistral v3"}
"""Compared line by line in test_same_tokens.py."""


@pytest.mark.parametrize("name", [name for name in MODELS if name not in ELSEWHERE])
def test_17_13_a_real_tokenizer_has_the_results_of_the_docs(name: str, binaries: Path, tmp_path: Path) -> None:
    assert measure(name, tmp_path, binaries) == recorded()[name]


def test_17_13_of_what_is_compared_elsewhere_every_line_is_the_same() -> None:
    results = recorded()
    assert results.keys() == MODELS.keys()
    assert all(results[name]["lines"][0] == results[name]["lines"][1] for name in ELSEWHERE)
